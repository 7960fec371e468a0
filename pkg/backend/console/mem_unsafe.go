// SPDX-License-Identifier: Apache-2.0

package console

import (
	"sync/atomic"
	"unsafe"
)

// The ring is memory shared with the guest, not Go heap. New has checked its
// length and alignment.

func aligned4(b []byte) bool { return uintptr(unsafe.Pointer(unsafe.SliceData(b)))%4 == 0 }

func load32(b []byte, off int) uint32 {
	return atomic.LoadUint32((*uint32)(unsafe.Pointer(&b[off : off+4][0])))
}

func store32(b []byte, off int, v uint32) {
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&b[off : off+4][0])), v)
}
