// SPDX-License-Identifier: Apache-2.0

package hypercall

import (
	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/xen/abi"
)

// domctl makes one domctl. fill encodes the command's union and get, if not nil,
// reads the answer; both are given the whole structure's buffer.
func (d *Door) domctl(op string, cmd uint32, dom abi.DomID, fill func(u, rest []byte), get func(b []byte) error) error {
	buf, err := d.bufs.get()
	if err != nil {
		return opError(op, dom, err)
	}
	defer d.bufs.put(buf)
	abi.PutDomctl(buf, cmd, d.version.Domctl, dom)
	if fill != nil {
		fill(buf[abi.DomctlU:abi.SizeofDomctl], buf[abi.SizeofDomctl:])
	}
	if _, err = d.call(abi.HypercallDomctl, addrOf(buf)); err == nil && get != nil {
		err = get(buf)
	}
	return opError(op, dom, err)
}

// CreateDomain makes an empty, paused domain and answers its id.
func (d *Door) CreateDomain(c abi.CreateDomain) (abi.DomID, error) {
	var id abi.DomID
	err := d.domctl("create", abi.DomctlCreateDomain, 0,
		func(u, _ []byte) { c.Put(u) },
		func(b []byte) error { id = abi.GetDomctlDomain(b); return nil })
	return id, err
}

// DestroyDomain starts and mostly finishes the end of dom: what is left is a dead
// domain for as long as somebody maps its frames.
func (d *Door) DestroyDomain(dom abi.DomID) error {
	return d.domctl("destroy", abi.DomctlDestroyDomain, dom, nil, nil)
}

// PauseDomain raises the toolstack's pause count.
func (d *Door) PauseDomain(dom abi.DomID) error {
	return d.domctl("pause", abi.DomctlPauseDomain, dom, nil, nil)
}

// UnpauseDomain lowers the toolstack's pause count, 1 at creation.
func (d *Door) UnpauseDomain(dom abi.DomID) error {
	return d.domctl("unpause", abi.DomctlUnpauseDomain, dom, nil, nil)
}

// DomainInfo describes dom, or says ErrNoDomain.
func (d *Door) DomainInfo(dom abi.DomID) (abi.DomainInfo, error) {
	var info abi.DomainInfo
	err := d.domctl("look at", abi.DomctlGetDomainInfo, dom, nil, func(b []byte) (err error) {
		if info, err = abi.GetDomainInfo(b[abi.DomctlU:]); err != nil {
			return err
		}
		// Xen 4.17 answers the next higher domain for an id that is free.
		if info.Domain != dom {
			return unix.ESRCH
		}
		return nil
	})
	return info, err
}

// DomainInfos describes all domains, in the order of their ids.
func (d *Door) DomainInfos() ([]abi.DomainInfo, error) {
	const batch = (slotSize - abi.SizeofSysctl) / abi.SizeofDomainInfo
	var all []abi.DomainInfo
	for first := abi.DomID(0); first < abi.FirstReservedDomID; {
		part, err := d.infosFrom(first, batch)
		if err != nil {
			return nil, opError("list from", first, err)
		}
		all = append(all, part...)
		if len(part) < batch {
			break
		}
		first = part[len(part)-1].Domain + 1
	}
	return all, nil
}

func (d *Door) infosFrom(first abi.DomID, limit int) ([]abi.DomainInfo, error) {
	buf, err := d.bufs.get()
	if err != nil {
		return nil, err
	}
	defer d.bufs.put(buf)
	list := buf[abi.SizeofSysctl:]
	abi.PutDomainInfoList(buf, first, uint32(limit), addrOf(list))
	if _, err := d.call(abi.HypercallSysctl, addrOf(buf)); err != nil {
		return nil, err
	}
	n := min(int(abi.GetDomainInfoCount(buf)), limit)
	infos := make([]abi.DomainInfo, n)
	for i := range infos {
		if infos[i], err = abi.GetDomainInfo(list[i*abi.SizeofDomainInfo:]); err != nil {
			return nil, err
		}
	}
	return infos, nil
}

// SetMaxMem sets the most memory that dom may have, in KiB.
func (d *Door) SetMaxMem(dom abi.DomID, kib uint64) error {
	return d.domctl("set memory limit of", abi.DomctlMaxMem, dom,
		func(u, _ []byte) { abi.PutMaxMem(u, kib) }, nil)
}

// SetMaxVCPUs allocates dom's virtual CPUs: as many as CreateDomain was told.
func (d *Door) SetMaxVCPUs(dom abi.DomID, n uint32) error {
	return d.domctl("allocate virtual CPUs of", abi.DomctlMaxVCPUs, dom,
		func(u, _ []byte) { abi.PutMaxVCPUs(u, n) }, nil)
}

// SetCredit2 sets dom's scheduling weight and cap; the cap is in hundredths of a
// CPU, 0 = none.
func (d *Door) SetCredit2(dom abi.DomID, weight, limit uint16) error {
	return d.domctl("set scheduling of", abi.DomctlSchedulerOp, dom,
		func(u, _ []byte) { abi.PutCredit2(u, weight, limit) }, nil)
}

// Credit2 reads what SetCredit2 sets.
func (d *Door) Credit2(dom abi.DomID) (weight, limit uint16, err error) {
	err = d.domctl("read scheduling of", abi.DomctlSchedulerOp, dom,
		func(u, _ []byte) { abi.PutGetScheduler(u) },
		func(b []byte) error { weight, limit = abi.GetCredit2(b[abi.DomctlU:]); return nil })
	return weight, limit, err
}

// SetTSC says what dom reads as time stamp counter, from now on.
func (d *Door) SetTSC(dom abi.DomID, mode abi.TSCMode) error {
	return d.domctl("set time stamp counter of", abi.DomctlSetTSCInfo, dom,
		func(u, _ []byte) { abi.PutTSCInfo(u, mode) }, nil)
}

// TSC reads what SetTSC sets.
func (d *Door) TSC(dom abi.DomID) (mode abi.TSCMode, err error) {
	err = d.domctl("read time stamp counter of", abi.DomctlGetTSCInfo, dom, nil,
		func(b []byte) error { mode = abi.GetTSCInfo(b[abi.DomctlU:]); return nil })
	return mode, err
}

// SetVCPU gives dom's first virtual CPU its state. The page table it names must
// be pinned or fit to be.
func (d *Door) SetVCPU(dom abi.DomID, c abi.EntryContext) error {
	return d.domctl("set virtual CPU 0 of", abi.DomctlSetVCPUContext, dom,
		func(u, rest []byte) {
			c.Put(rest)
			abi.PutVCPUContextOp(u, 0, addrOf(rest))
		}, nil)
}
