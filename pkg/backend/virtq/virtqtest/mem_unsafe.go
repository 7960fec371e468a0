// SPDX-License-Identifier: Apache-2.0

package virtqtest

import (
	"sync/atomic"
	"testing"
	"unsafe"
)

// Ring memory is a mapping shared with the device side; see package virtq. The
// driver lays out the rings itself, aligned.

func at(b []byte, off, n uint32) unsafe.Pointer {
	return unsafe.Pointer(&b[off : uint64(off)+uint64(n)][0])
}

func load16(b []byte, off uint32) uint16 {
	return uint16(atomic.LoadUint32((*uint32)(at(b, off&^3, 4))) >> (8 * (off & 2)))
}

func load32(b []byte, off uint32) uint32 { return atomic.LoadUint32((*uint32)(at(b, off, 4))) }

func store32(b []byte, off uint32, v uint32) { atomic.StoreUint32((*uint32)(at(b, off, 4)), v) }

func store64(b []byte, off uint32, v uint64) { atomic.StoreUint64((*uint64)(at(b, off, 8)), v) }

//go:noinline
func store16(b []byte, off uint32, v uint16) { *(*uint16)(at(b, off, 2)) = v }

func fullFence(w *uint32) { atomic.AddUint32(w, 1) }

// MustLie fails the test unless buf is part of pool[from:to].
func MustLie(t testing.TB, pool, buf []byte, from, to int) {
	t.Helper()
	off := int(uintptr(unsafe.Pointer(unsafe.SliceData(buf))) - uintptr(unsafe.Pointer(unsafe.SliceData(pool))))
	if len(buf) == 0 || off < from || off+len(buf) > to || cap(buf) != len(buf) {
		t.Fatalf("buffer of %d bytes (cap %d) at %#x is outside %#x..%#x", len(buf), cap(buf), off, from, to)
	}
}
