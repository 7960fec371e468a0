// SPDX-License-Identifier: Apache-2.0

package evtchn

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctl passes arg, which the kernel copies in during the call.
func ioctl(fd, req uintptr, arg []byte) (uintptr, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, req, uintptr(unsafe.Pointer(unsafe.SliceData(arg))))
		switch errno {
		case 0:
			return r, nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
