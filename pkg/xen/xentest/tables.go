// SPDX-License-Identifier: Apache-2.0

package xentest

import (
	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/xen/abi"
)

// The part of the top-level table that is Xen's own.
const (
	xenFirstSlot = 256
	xenLastSlot  = 271
	frameMask    = 1<<52 - abi.PageSize
)

// PinL4 checks the tree below root as Xen does.
func (m *Machine) PinL4(id abi.DomID, root abi.MFN) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.find("pin", id)
	if err != nil {
		return err
	}
	tables := map[abi.MFN]uint{}
	if err := m.collect(d, root, 4, tables); err != nil {
		return err
	}
	for table, level := range tables {
		if d.writable[table] > 0 {
			return refuse(unix.EBUSY, "pin: level %d table %#x is mapped writable", level, uint64(table))
		}
		if level == 1 {
			if err := m.checkLeaves(d, table, tables); err != nil {
				return err
			}
		}
	}
	d.pinned = root
	return nil
}

// collect lists all page tables with their levels: none may serve at two.
func (m *Machine) collect(d *domain, table abi.MFN, level uint, tables map[abi.MFN]uint) error {
	if !m.belongs(table, d) {
		return refuse(unix.EINVAL, "pin: level %d table %#x is not the domain's", level, uint64(table))
	}
	if have, seen := tables[table]; seen {
		if have != level {
			return refuse(unix.EINVAL, "pin: table %#x at levels %d and %d", uint64(table), have, level)
		}
		return nil
	}
	tables[table] = level
	if level == 1 {
		return nil
	}
	for i := range 512 {
		e := m.entry(table, i)
		if e&abi.PTEPresent == 0 {
			if e != 0 {
				return refuse(unix.EINVAL, "pin: garbage %#x in level %d", e, level)
			}
			continue
		}
		if level == 4 && i >= xenFirstSlot && i <= xenLastSlot {
			return refuse(unix.EINVAL, "pin: entry in Xen's slot %d", i)
		}
		if err := m.collect(d, abi.MFN(e&frameMask>>abi.PageShift), level-1, tables); err != nil {
			return err
		}
	}
	return nil
}

// checkLeaves refuses foreign frames, and page tables that the guest could write.
func (m *Machine) checkLeaves(d *domain, table abi.MFN, tables map[abi.MFN]uint) error {
	for i := range 512 {
		e := m.entry(table, i)
		if e&abi.PTEPresent == 0 {
			if e != 0 {
				return refuse(unix.EINVAL, "pin: garbage %#x in level 1", e)
			}
			continue
		}
		f := abi.MFN(e & frameMask >> abi.PageShift)
		if !m.belongs(f, d) {
			return refuse(unix.EINVAL, "pin: frame %#x is not the domain's", uint64(f))
		}
		if _, isTable := tables[f]; isTable && e&abi.PTEWritable != 0 {
			return refuse(unix.EINVAL, "pin: table %#x is writable to the guest", uint64(f))
		}
	}
	return nil
}

// translate finds the frame behind an address of a domain, as its CPU would.
func (m *Machine) translate(d *domain, v abi.VAddr) (abi.MFN, bool) {
	f := d.pinned
	for shift := 39; shift >= 12; shift -= 9 {
		e := m.entry(f, int(v>>shift)&511)
		if e&abi.PTEPresent == 0 {
			return 0, false
		}
		f = abi.MFN(e & frameMask >> abi.PageShift)
	}
	return f, true
}

// read copies n bytes from an address of a domain.
func (m *Machine) read(d *domain, v abi.VAddr, n int) ([]byte, bool) {
	var out []byte
	for n > 0 {
		f, ok := m.translate(d, v)
		if !ok {
			return nil, false
		}
		off := int(v % abi.PageSize)
		part := m.at(f)[off:min(off+n, abi.PageSize)]
		out = append(out, part...)
		v += abi.VAddr(len(part))
		n -= len(part)
	}
	return out, true
}
