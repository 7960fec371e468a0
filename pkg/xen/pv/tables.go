// SPDX-License-Identifier: Apache-2.0

package pv

import (
	"encoding/binary"

	"github.com/xcontainer/xcontainer/pkg/xen/abi"
)

const (
	topLevel     = 4
	tableBits    = 9
	tableEntries = 1 << tableBits

	leafFlags  = abi.PTEPresent | abi.PTEWritable | abi.PTEAccessed
	tableFlags = abi.PTEPresent | abi.PTEWritable | abi.PTEAccessed | abi.PTEDirty | abi.PTEUser
)

// mapping is a run of virtual addresses that shows a run of pages.
type mapping struct {
	virt  abi.VAddr
	first abi.PFN
	pages uint64
}

// last is the highest address of the mapping; its end may be 2^64.
func (m mapping) last() abi.VAddr { return m.virt + abi.VAddr(m.pages<<abi.PageShift-1) }

// table is a page table: level 1 holds pages, level 4 is the top.
type table struct {
	level uint
	span  uint64 // number of the address range that it covers, see spanOf
	pfn   abi.PFN
}

// spanShift is the width of the address range that a table of a level covers.
func spanShift(level uint) uint { return abi.PageShift + tableBits*level }

// spanOf numbers the ranges that tables of a level cover. All of an address's
// upper bits count at the top, where there is one table.
func spanOf(v abi.VAddr, level uint) uint64 {
	if level == topLevel {
		return 0
	}
	return uint64(v) >> spanShift(level)
}

// index is the entry for v in its table of a level.
func index(v abi.VAddr, level uint) int {
	return int(uint64(v)>>(abi.PageShift+tableBits*(level-1))) % tableEntries
}

// newTables lists the tables that m needs and have lacks, in pages from at on,
// higher levels first.
func (m mapping) newTables(have []table, at abi.PFN) []table {
	var made []table
	for level := uint(topLevel); level >= 1; level-- {
		for s := spanOf(m.virt, level); s <= spanOf(m.last(), level); s++ {
			if find(have, level, s) == nil {
				made = append(made, table{level: level, span: s, pfn: at})
				at++
			}
		}
	}
	return made
}

func find(tables []table, level uint, span uint64) *table {
	for i := range tables {
		if tables[i].level == level && tables[i].span == span {
			return &tables[i]
		}
	}
	return nil
}

// writeTables fills all page tables. page gives a table's memory.
func (p *Plan) writeTables(page func(abi.PFN) []byte, frames []abi.MFN) {
	for pfn := p.Tables; pfn < p.Stack; pfn++ {
		clear(page(pfn))
	}
	for pfn := p.P2M + abi.PFN(p.P2MPages); pfn < p.End; pfn++ {
		clear(page(pfn))
	}
	for _, t := range p.tables {
		if t.level == topLevel {
			continue
		}
		addr := abi.VAddr(t.span << spanShift(t.level))
		up := find(p.tables, t.level+1, spanOf(addr, t.level+1))
		putEntry(page(up.pfn), index(addr, t.level+1), frames[t.pfn], tableFlags)
	}
	p.writeLeaves(p.boot, page, frames)
	p.writeLeaves(p.list, page, frames)
}

// writeLeaves enters a mapping's pages. Xen accepts no writable mapping of a
// page table, not even the builder's own.
func (p *Plan) writeLeaves(m mapping, page func(abi.PFN) []byte, frames []abi.MFN) {
	var mem []byte
	for i := range m.pages {
		v, pfn := m.virt+abi.VAddr(i<<abi.PageShift), m.first+abi.PFN(i)
		if at := index(v, 1); mem == nil || at == 0 {
			mem = page(find(p.tables, 1, spanOf(v, 1)).pfn)
		}
		flags := uint64(leafFlags)
		if p.IsTable(pfn) {
			flags &^= abi.PTEWritable
		}
		putEntry(mem, index(v, 1), frames[pfn], flags)
	}
}

func putEntry(mem []byte, i int, frame abi.MFN, flags uint64) {
	binary.LittleEndian.PutUint64(mem[i*8:], frame.Addr()|flags)
}
