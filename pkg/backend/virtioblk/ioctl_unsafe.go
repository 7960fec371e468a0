// SPDX-License-Identifier: Apache-2.0

package virtioblk

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// blkdiscard tells a block device that n bytes at off are no longer needed.
func blkdiscard(fd int, off, n uint64) error {
	args := [2]uint64{off, n} // what BLKDISCARD of linux/fs.h takes
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.BLKDISCARD, uintptr(unsafe.Pointer(&args)))
	if e != 0 {
		return e
	}
	return nil
}
