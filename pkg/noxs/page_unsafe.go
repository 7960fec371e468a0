// SPDX-License-Identifier: Apache-2.0

package noxs

import (
	"sync/atomic"
	"unsafe"
)

// The memory is a mapping shared with the guest, not Go heap; sync/atomic needs
// nothing but alignment, which NewPage and the constant offsets provide. The
// slice expressions bound each access.

func aligned8(b []byte) bool { return uintptr(unsafe.Pointer(unsafe.SliceData(b)))%8 == 0 }

func load32(b []byte, off int) uint32 {
	return atomic.LoadUint32((*uint32)(unsafe.Pointer(&b[off : off+4 : off+4][0])))
}

func store32(b []byte, off int, v uint32) {
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&b[off : off+4 : off+4][0])), v)
}

func load64(b []byte, off int) uint64 {
	return atomic.LoadUint64((*uint64)(unsafe.Pointer(&b[off : off+8 : off+8][0])))
}

func store64(b []byte, off int, v uint64) {
	atomic.StoreUint64((*uint64)(unsafe.Pointer(&b[off : off+8 : off+8][0])), v)
}
