// SPDX-License-Identifier: Apache-2.0

package hypercall

import (
	"encoding/binary"
	"fmt"
	"os"

	"github.com/xcontainer/xcontainer/pkg/xen/abi"
	"github.com/xcontainer/xcontainer/pkg/xen/foreign"
)

// maxExtents is how many extents one populate call carries.
const maxExtents = (slotSize - abi.SizeofMemoryReservation) / 8

// Claim sets pages of free memory aside for dom, or says ErrNoMemory. What
// Populate takes counts against the claim, and the rest ends with the domain.
func (d *Door) Claim(dom abi.DomID, pages uint64) error {
	op := fmt.Sprintf("claim %d KiB for", pages*4)
	buf, err := d.bufs.get()
	if err != nil {
		return opError(op, dom, err)
	}
	defer d.bufs.put(buf)
	abi.PutMemoryReservation(buf, dom, 0, pages, 0)
	_, err = d.call(abi.HypercallMemoryOp, abi.MemOpClaimPages, addrOf(buf))
	return opError(op, dom, err)
}

// Populate gives dom memory: for each page number in pfns, 2^order pages from
// there on. It answers the first machine frame of each extent it could get: fewer
// than asked, without an error, when memory or the domain's limit ran out.
func (d *Door) Populate(dom abi.DomID, order uint32, pfns []abi.PFN) ([]abi.MFN, error) {
	got := make([]abi.MFN, 0, len(pfns))
	for len(pfns) > 0 {
		n := min(len(pfns), maxExtents)
		part, err := d.populate(dom, order, pfns[:n])
		got = append(got, part...)
		if err != nil {
			return got, opError("populate", dom, err)
		}
		if len(part) < n {
			break
		}
		pfns = pfns[n:]
	}
	return got, nil
}

func (d *Door) populate(dom abi.DomID, order uint32, pfns []abi.PFN) ([]abi.MFN, error) {
	buf, err := d.bufs.get()
	if err != nil {
		return nil, err
	}
	defer d.bufs.put(buf)
	list := buf[abi.SizeofMemoryReservation:]
	for i, p := range pfns {
		binary.LittleEndian.PutUint64(list[i*8:], uint64(p))
	}
	abi.PutMemoryReservation(buf, dom, addrOf(list), uint64(len(pfns)), order)
	done, err := d.call(abi.HypercallMemoryOp, abi.MemOpPopulatePhysmap, addrOf(buf))
	if err != nil {
		return nil, err
	}
	got := make([]abi.MFN, min(int(done), len(pfns)))
	for i := range got {
		got[i] = abi.MFN(binary.LittleEndian.Uint64(list[i*8:]))
	}
	return got, nil
}

// Map maps frames of dom; see foreign.Map.
func (d *Door) Map(dom abi.DomID, frames []abi.MFN, writable bool) ([]byte, func() error, error) {
	return foreign.Map(d.privcmd, dom, frames, writable)
}

// PinL4 makes root a top-level page table of dom and has Xen check the tree. It
// fails while any of its tables is mapped writable.
func (d *Door) PinL4(dom abi.DomID, root abi.MFN) error {
	buf, err := d.bufs.get()
	if err != nil {
		return opError("pin page tables of", dom, err)
	}
	defer d.bufs.put(buf)
	abi.PutPinL4(buf, root)
	_, err = d.call(abi.HypercallMMUExtOp, addrOf(buf), 1, 0, uint64(dom))
	return opError("pin page tables of", dom, err)
}

// AllocPort makes an event channel of dom that the calling domain may bind.
func (d *Door) AllocPort(dom abi.DomID) (abi.Port, error) {
	buf, err := d.bufs.get()
	if err != nil {
		return 0, opError("allocate event channel of", dom, err)
	}
	defer d.bufs.put(buf)
	abi.PutAllocUnbound(buf, dom, abi.DomIDSelf)
	_, err = d.call(abi.HypercallEventChannelOp, abi.EvtchnOpAllocUnbound, addrOf(buf))
	return abi.GetAllocUnboundPort(buf), opError("allocate event channel of", dom, err)
}

// OpenForeign opens a second privcmd that can do nothing but map dom's memory.
// The caller closes it.
func (d *Door) OpenForeign(dom abi.DomID) (*os.File, error) {
	privcmd, err := openDevice(privcmdPath)
	if err != nil {
		return nil, err
	}
	if err := foreign.Restrict(privcmd, dom); err != nil {
		privcmd.Close()
		return nil, err
	}
	return privcmd, nil
}
