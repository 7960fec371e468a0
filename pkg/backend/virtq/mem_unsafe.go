// SPDX-License-Identifier: Apache-2.0

package virtq

import (
	"sync/atomic"
	"unsafe"
)

// Ring fields lie in memory shared with the guest, not on the Go heap. New has
// checked that the pool is 8-aligned and that the rings lie in it, aligned; the
// slice expressions bound each access once more.

func aligned8(b []byte) bool { return uintptr(unsafe.Pointer(unsafe.SliceData(b)))%8 == 0 }

func at(b []byte, off, n uint32) unsafe.Pointer {
	return unsafe.Pointer(&b[off : uint64(off)+uint64(n)][0])
}

// load16 reads the aligned word around the field, since there is no 16-bit
// atomic load. The pool's length is a multiple of the word's.
func load16(b []byte, off uint32) uint16 {
	w := atomic.LoadUint32((*uint32)(at(b, off&^3, 4)))
	return uint16(w >> (8 * (off & 2)))
}

func load64(b []byte, off uint32) uint64 { return atomic.LoadUint64((*uint64)(at(b, off, 8))) }

func store32(b []byte, off uint32, v uint32) { atomic.StoreUint32((*uint32)(at(b, off, 4)), v) }

// store16 is one plain store: what lies beside the field may be the guest's.
// Stores keep their order on amd64; noinline keeps the compiler's.
//
//go:noinline
func store16(b []byte, off uint32, v uint16) { *(*uint16)(at(b, off, 2)) = v }

// fullFence orders earlier stores before later loads: a locked instruction.
func fullFence(w *uint32) { atomic.AddUint32(w, 1) }
