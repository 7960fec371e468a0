// SPDX-License-Identifier: Apache-2.0

package abi

import "fmt"

// DomID names a domain. Xen gives an id again after the counter has wrapped, so
// an id alone does not identify a domain for ever: compare its handle as well.
type DomID uint16

// DomIDSelf stands for the calling domain (DOMID_SELF).
const DomIDSelf DomID = 0x7ff0

// FirstReservedDomID is the first id that never names an ordinary domain.
const FirstReservedDomID DomID = 0x7ff0

// PFN is a page number in a guest's own, contiguous view of its memory.
type PFN uint64

// MFN is a page number of the machine, what page tables and foreign mappings of
// a PV guest use.
type MFN uint64

// VAddr is an address in the guest's kernel address space.
type VAddr uint64

// Port is an event channel number, local to the domain that owns the end.
type Port uint32

// UUID is a domain's handle: 16 bytes chosen by its creator, opaque to Xen.
type UUID [16]byte

// String is the customary text form.
func (u UUID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:16])
}

// PageShift and PageSize describe the only page size of the interface.
const (
	PageShift = 12
	PageSize  = 1 << PageShift
)

// Addr is the machine address of the frame.
func (m MFN) Addr() uint64 { return uint64(m) << PageShift }

// Addr is the guest-physical address of the page.
func (p PFN) Addr() uint64 { return uint64(p) << PageShift }

// PagesOf is the number of pages that hold n bytes.
func PagesOf(n uint64) uint64 { return (n + PageSize - 1) >> PageShift }
