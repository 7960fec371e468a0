// SPDX-License-Identifier: Apache-2.0

package xentest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/xen/abi"
	"github.com/xcontainer/xcontainer/pkg/xen/foreign"
	"github.com/xcontainer/xcontainer/pkg/xen/hypercall"
)

const (
	// firstFrame is added to the page numbers of the machine's memory, so
	// that a guest page number taken for a frame is never right by luck.
	firstFrame = 0x40000
	// garbage fills frames when a domain gets them: Xen promises no zeros.
	garbage = 0xa5
)

// at is a frame's memory.
func (m *Machine) at(f abi.MFN) []byte {
	i := int(f-firstFrame) * abi.PageSize
	return m.mem[i : i+abi.PageSize : i+abi.PageSize]
}

// belongs tells whether d owns the frame.
func (m *Machine) belongs(f abi.MFN, d *domain) bool {
	return f >= firstFrame && f < firstFrame+abi.MFN(len(m.owner)) && m.owner[f-firstFrame] == d
}

// give makes d the owner of page i.
func (m *Machine) give(i int, d *domain) abi.MFN {
	m.owner[i] = d
	f := abi.MFN(firstFrame + i)
	page := m.at(f)
	for i := range page {
		page[i] = garbage
	}
	return f
}

// takeFrame takes the highest free page, so that neighbours are in falling order.
func (m *Machine) takeFrame(d *domain) (abi.MFN, bool) {
	for i := len(m.owner) - 1; i >= 0; i-- {
		if m.owner[i] == nil {
			return m.give(i, d), true
		}
	}
	return 0, false
}

// takeRun takes n aligned pages, going through memory in an order without order.
func (m *Machine) takeRun(d *domain, n int) (abi.MFN, bool) {
	if m.bigs++; m.options.Fragmented && m.bigs%2 == 0 {
		return 0, false
	}
	runs := len(m.owner) / n
	for k := range runs {
		run := (k*7 + 3) % runs
		if runs%7 == 0 {
			run = runs - 1 - k
		}
		if m.runFree(run*n, n) {
			for i := range n {
				m.give(run*n+i, d)
			}
			return abi.MFN(firstFrame + run*n), true
		}
	}
	return 0, false
}

func (m *Machine) runFree(first, n int) bool {
	for i := range n {
		if m.owner[first+i] != nil {
			return false
		}
	}
	return true
}

// Claim looks at free memory less what other domains have claimed.
func (m *Machine) Claim(id abi.DomID, pages uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.find("claim", id)
	if errors.Is(err, hypercall.ErrNoDomain) {
		// Alone of all calls it says so.
		return refuse(unix.EINVAL, "claim for domain %d, which is none", id)
	}
	if err != nil {
		return err
	}
	if pages > d.info.MaxPages {
		return refuse(unix.EINVAL, "claim %d pages, limit %d", pages, d.info.MaxPages)
	}
	free := uint64(0)
	for _, o := range m.owner {
		if o == nil {
			free++
		}
	}
	for _, o := range m.domains {
		free -= min(free, o.claimed)
	}
	if pages > free {
		return fmt.Errorf("claim %d KiB for domain %d: %w", pages*4, id, hypercall.ErrNoMemory)
	}
	d.claimed = pages
	return nil
}

// Populate stops early where memory or the domain's limit ends.
func (m *Machine) Populate(id abi.DomID, order uint32, pfns []abi.PFN) ([]abi.MFN, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.find("populate", id)
	if err != nil {
		return nil, err
	}
	var got []abi.MFN
	n := uint64(1) << order
	for _, pfn := range pfns {
		if d.info.TotPages+n > d.info.MaxPages {
			break
		}
		first, ok := abi.MFN(0), false
		if order == 0 {
			first, ok = m.takeFrame(d)
		} else {
			first, ok = m.takeRun(d, int(n))
		}
		if !ok {
			break
		}
		for i := range n {
			d.pfns[first+abi.MFN(i)] = pfn + abi.PFN(i)
		}
		d.info.TotPages += n
		d.claimed -= min(d.claimed, n)
		got = append(got, first)
	}
	return got, nil
}

// Map refuses frames of others, and to map page tables writable.
func (m *Machine) Map(id abi.DomID, frames []abi.MFN, writable bool) ([]byte, func() error, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.find("map", id)
	if err != nil {
		return nil, nil, err
	}
	return m.mapLocked(d, frames, writable)
}

func (m *Machine) mapLocked(d *domain, frames []abi.MFN, writable bool) ([]byte, func() error, error) {
	if len(frames) == 0 {
		return nil, nil, refuse(unix.EINVAL, "map nothing")
	}
	tables := map[abi.MFN]uint{}
	if d.pinned != 0 {
		// The tree was sound when it was pinned.
		_ = m.collect(d, d.pinned, 4, tables)
	}
	pages := make([]int64, len(frames))
	for i, f := range frames {
		if !m.belongs(f, d) {
			return nil, nil, fmt.Errorf("xentest: map frame %#x: %w: %w", uint64(f), foreign.ErrFrame, unix.EINVAL)
		}
		if _, table := tables[f]; table && writable {
			return nil, nil, fmt.Errorf("xentest: map page table %#x writable: %w: %w", uint64(f), foreign.ErrFrame, unix.EINVAL)
		}
		pages[i] = int64(f - firstFrame)
	}
	prot := unix.PROT_READ
	if writable {
		prot |= unix.PROT_WRITE
	}
	mem, err := mapFrames(int(m.file.Fd()), pages, prot)
	if err != nil {
		return nil, nil, err
	}
	m.nextMap++
	serial := m.nextMap
	m.maps[serial] = d
	d.mapped++
	if writable {
		for _, f := range frames {
			d.writable[f]++
		}
	}
	owned := append([]abi.MFN(nil), frames...)
	return mem, sync.OnceValue(func() error { return m.unmap(serial, mem, owned, writable) }), nil
}

func (m *Machine) unmap(serial int, mem []byte, frames []abi.MFN, writable bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.maps[serial]
	delete(m.maps, serial)
	d.mapped--
	if writable {
		for _, f := range frames {
			if d.writable[f]--; d.writable[f] == 0 {
				delete(d.writable, f)
			}
		}
	}
	m.reap(d)
	return unix.Munmap(mem)
}

// OpenForeign answers a file that only MapBackend of the same Machine
// understands.
func (m *Machine) OpenForeign(id abi.DomID) (*os.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.find("open privcmd for", id); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	m.privs[f] = id
	return f, nil
}

// MapBackend is foreign.MapBackend for the files of OpenForeign.
func (m *Machine) MapBackend(privcmd *os.File, s foreign.MapSpec) (page, pool, console []byte, unmap func() error, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.find("map back-end of", s.DomID)
	if err == nil && m.privs[privcmd] != s.DomID {
		err = refuse(unix.EPERM, "privcmd is restricted to domain %d", m.privs[privcmd])
	}
	if err != nil {
		return nil, nil, nil, nil, err
	}
	frames := append(append([]abi.MFN{s.Page}, s.Pool...), s.Console)
	mem, unmap, err := m.mapLocked(d, frames, true)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	end := len(mem) - abi.PageSize
	return mem[:abi.PageSize], mem[abi.PageSize:end], mem[end:], unmap, nil
}

// Hypercall tells what a hypercall through a file of OpenForeign gives.
func (m *Machine) Hypercall(*os.File) error { return unix.EPERM }

// entry is one entry of a page table.
func (m *Machine) entry(table abi.MFN, i int) uint64 {
	return binary.LittleEndian.Uint64(m.at(table)[i*8:])
}
