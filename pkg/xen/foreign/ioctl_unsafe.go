// SPDX-License-Identifier: Apache-2.0

package foreign

import (
	"runtime"
	"unsafe"

	"github.com/xcontainer/xcontainer/pkg/xen/abi"
	"golang.org/x/sys/unix"
)

// mmapBatch fills the privcmd mapping mem with frames. The kernel copies the
// argument and frames in and errs out during the call, so Go memory will do. The
// encoded argument hides its pointers from the runtime, so the arrays are pinned.
func mmapBatch(fd uintptr, dom abi.DomID, mem []byte, frames []abi.MFN, errs []int32) error {
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(unsafe.SliceData(frames))
	pin.Pin(unsafe.SliceData(errs))
	arg := batchArg(len(frames), dom,
		uintptr(unsafe.Pointer(unsafe.SliceData(mem))),
		uintptr(unsafe.Pointer(unsafe.SliceData(frames))),
		uintptr(unsafe.Pointer(unsafe.SliceData(errs))))
	return ioctl(fd, abi.IoctlPrivcmdMmapBatchV2, unsafe.Pointer(unsafe.SliceData(arg)))
}

func restrict(fd uintptr, dom abi.DomID) error {
	return ioctl(fd, abi.IoctlPrivcmdRestrict, unsafe.Pointer(&dom))
}

func ioctl(fd uintptr, req uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, req, uintptr(arg))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}
