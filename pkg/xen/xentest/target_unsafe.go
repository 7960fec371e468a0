// SPDX-License-Identifier: Apache-2.0

package xentest

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/xen/abi"
)

// versionCall makes the hypercall xen_version through a privcmd descriptor.
func versionCall(fd uintptr) error {
	call := [abi.SizeofPrivcmdHypercall / 8]uint64{abi.HypercallXenVersion, abi.XenVerVersion}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, abi.IoctlPrivcmdHypercall, uintptr(unsafe.Pointer(&call)))
	if errno != 0 {
		return errno
	}
	return nil
}
