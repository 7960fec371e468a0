// SPDX-License-Identifier: Apache-2.0

package pv

import (
	"errors"
	"fmt"

	"github.com/xcontainer/xcontainer/pkg/xen/abi"
)

var (
	// ErrTooSmall: the domain's memory does not hold what must be in it.
	ErrTooSmall = errors.New("memory too small")
	// ErrSizes: sizes that no domain can have.
	ErrSizes = errors.New("bad sizes")
)

const (
	// maxPages bounds a domain's memory: 512 GiB, what Linux maps linearly
	// without CONFIG_XEN_512GB off.
	maxPages = 1 << 27
	// maxInitramfs and maxPool bound what a caller may ask to have put in.
	maxInitramfs = 1 << 30
	maxPool      = 65536

	// The initial mapping ends at a multiple of mapAlign with at least
	// mapSlack of free memory in it (xen.h, start-of-day memory layout).
	mapAlign = 4 << 20
	mapSlack = 512 << 10

	// lowestPFN keeps our pages out of the first MiB, which Linux reserves
	// for the BIOS whether or not there is one.
	lowestPFN abi.PFN = 256
)

// Sizes are what a Plan follows from, besides the kernel.
type Sizes struct {
	Pages     uint64 // the domain's memory
	Pool      uint64 // pages of the device pool
	Initramfs uint64 // bytes, 0 = none
}

// Plan says which page of a domain holds what; see the package comment.
type Plan struct {
	NrPages uint64

	KernelStart, KernelEnd abi.PFN
	StartInfo              abi.PFN
	Console                abi.PFN
	Device                 abi.PFN
	PoolPages              uint64
	Tables                 abi.PFN
	Stack                  abi.PFN
	MapEnd                 abi.PFN
	Initramfs              abi.PFN
	InitramfsLen           uint64 // bytes
	P2M                    abi.PFN
	P2MPages               uint64 // of the list itself
	End                    abi.PFN

	kernel   *Kernel
	boot     mapping // the initial mapping
	list     mapping // of the frame list
	tables   []table // all page tables, boot's first
	nrBootPT uint64
}

// NewPlan lays out a domain.
func NewPlan(k *Kernel, s Sizes) (*Plan, error) {
	p, err := newPlan(k, s)
	if err != nil {
		return nil, fmt.Errorf("plan domain of %d pages: %w", s.Pages, err)
	}
	return p, nil
}

func newPlan(k *Kernel, s Sizes) (*Plan, error) {
	if s.Pages == 0 || s.Pages > maxPages {
		return nil, fmt.Errorf("%w: memory not in 1..%d pages", ErrSizes, maxPages)
	}
	if s.Pool > maxPool || s.Initramfs > maxInitramfs {
		return nil, fmt.Errorf("%w: pool of %d pages, initramfs of %d bytes", ErrSizes, s.Pool, s.Initramfs)
	}
	if s.Initramfs > 0 && !k.ModStartPFN {
		return nil, fmt.Errorf("%w: has no MOD_START_PFN note, needed for an initramfs", ErrKernel)
	}
	p := &Plan{NrPages: s.Pages, PoolPages: s.Pool, InitramfsLen: s.Initramfs, kernel: k}
	last := k.Segments[len(k.Segments)-1]
	p.KernelStart = abi.PFN(k.Segments[0].Addr >> abi.PageShift)
	p.KernelEnd = abi.PFN(abi.PagesOf(last.Addr + last.Size))
	p.StartInfo = max(p.KernelEnd, lowestPFN)
	p.Console = p.StartInfo + 1
	p.Device = p.Console + 1
	p.Tables = p.Device + 1 + abi.PFN(s.Pool)
	if err := p.placeTables(); err != nil {
		return nil, err
	}
	p.placeRest()
	if uint64(p.End) > s.Pages {
		return nil, fmt.Errorf("%w: %d KiB, and kernel, initramfs and pool take %d KiB", ErrTooSmall, s.Pages*4, uint64(p.End)*4)
	}
	return p, nil
}

// placeTables finds the end of the initial mapping, which holds its own page
// tables, whose number depends on that end.
func (p *Plan) placeTables() error {
	for n := uint64(0); ; {
		p.Stack = p.Tables + abi.PFN(n)
		end := uint64(p.kernel.VirtBase) + (p.Stack + 1).Addr() + mapSlack
		end = (end + mapAlign - 1) &^ (mapAlign - 1)
		// An end of 0 is the top of the address space.
		if end-1 < uint64(p.kernel.VirtBase) {
			return fmt.Errorf("%w: VIRT_BASE %#x leaves no room", ErrKernel, uint64(p.kernel.VirtBase))
		}
		p.MapEnd = abi.PFN((end - uint64(p.kernel.VirtBase)) >> abi.PageShift)
		p.boot = mapping{virt: p.kernel.VirtBase, first: 0, pages: uint64(p.MapEnd)}
		p.tables = p.boot.newTables(nil, p.Tables)
		p.nrBootPT = uint64(len(p.tables))
		if p.nrBootPT <= n {
			// Never seen to shrink; the loop must end all the same.
			p.nrBootPT = n
			return nil
		}
		n = p.nrBootPT
	}
}

// placeRest places what lies outside of the initial mapping.
func (p *Plan) placeRest() {
	p.Initramfs = p.MapEnd
	p.P2M = p.Initramfs + abi.PFN(abi.PagesOf(p.InitramfsLen))
	p.P2MPages = abi.PagesOf(p.NrPages * 8)
	p.list = mapping{virt: p.kernel.InitP2M, first: p.P2M, pages: p.P2MPages}
	after := p.P2M + abi.PFN(p.P2MPages)
	own := p.list.newTables(p.tables, after)
	p.tables = append(p.tables, own...)
	p.End = after + abi.PFN(len(own))
}

// VirtAddr is where the initial mapping shows a page.
func (p *Plan) VirtAddr(pfn abi.PFN) abi.VAddr { return p.kernel.VirtBase + abi.VAddr(pfn.Addr()) }

// Root is the page of the top-level page table.
func (p *Plan) Root() abi.PFN { return p.Tables }

// IsTable tells whether a page is one of the page tables.
func (p *Plan) IsTable(pfn abi.PFN) bool {
	return pfn >= p.Tables && pfn < p.Stack || pfn >= p.P2M+abi.PFN(p.P2MPages) && pfn < p.End
}

// Range is a run of pages.
type Range struct {
	First abi.PFN
	Pages uint64
}

// LoadRanges are the pages that Load writes, in the order in which it wants them
// in one run of memory. Memory in between is left as the hypervisor gave it.
func (p *Plan) LoadRanges() []Range {
	return []Range{
		{p.KernelStart, uint64(p.Stack + 1 - p.KernelStart)},
		{p.Initramfs, uint64(p.End - p.Initramfs)},
	}
}

// Entry is the state in which the kernel starts.
func (p *Plan) Entry(frames []abi.MFN) abi.EntryContext {
	return abi.EntryContext{
		RIP: p.kernel.Entry,
		RSP: p.VirtAddr(p.Stack + 1),
		RSI: p.VirtAddr(p.StartInfo),
		CR3: frames[p.Root()],
	}
}
