// SPDX-License-Identifier: Apache-2.0

package hypercall

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/xen/abi"
)

// privcmdCall is struct privcmd_hypercall of linux uapi xen/privcmd.h.
type privcmdCall struct {
	op  uint64
	arg [5]uint64
}

var _ [abi.SizeofPrivcmdHypercall]byte = [unsafe.Sizeof(privcmdCall{})]byte{}

// addrOf is the address of arena memory, which lies outside the Go heap and so
// never moves.
func addrOf(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

// ioctlCall makes one hypercall. Xen's own error comes back as the ioctl's.
func ioctlCall(fd uintptr, c *privcmdCall) (uint64, error) {
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, abi.IoctlPrivcmdHypercall, uintptr(unsafe.Pointer(c)))
	if errno != 0 {
		return 0, errno
	}
	return uint64(r), nil
}
