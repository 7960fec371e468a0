// SPDX-License-Identifier: Apache-2.0

package pv

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/xcontainer/xcontainer/pkg/xen/abi"
)

// ErrValues is the identity of errors about Values that do not fit the plan.
var ErrValues = errors.New("values do not fit the plan")

// Values are known only once the domain exists.
type Values struct {
	Frames      []abi.MFN // of every page, NrPages long
	SharedInfo  abi.MFN
	ConsolePort abi.Port
	CmdLine     string
	DevicePage  []byte // at most one page
	Initramfs   []byte // InitramfsLen bytes
}

// Image is a plan's pages in memory, as LoadRanges lists them.
type Image struct {
	plan   *Plan
	values Values
	mem    []byte
}

// NewImage checks that v and mem fit the plan. mem holds the pages of LoadRanges
// one after another; it stays the caller's, and its content does not matter.
func (p *Plan) NewImage(mem []byte, v Values) (*Image, error) {
	pages := uint64(0)
	for _, r := range p.LoadRanges() {
		pages += r.Pages
	}
	var what string
	switch {
	case uint64(len(mem)) != pages*abi.PageSize:
		what = fmt.Sprintf("%d bytes of memory, want %d pages", len(mem), pages)
	case uint64(len(v.Frames)) != p.NrPages:
		what = fmt.Sprintf("%d frames for %d pages", len(v.Frames), p.NrPages)
	case uint64(len(v.Initramfs)) != p.InitramfsLen:
		what = fmt.Sprintf("initramfs of %d bytes, planned %d", len(v.Initramfs), p.InitramfsLen)
	case len(v.DevicePage) > abi.PageSize:
		what = fmt.Sprintf("device page of %d bytes", len(v.DevicePage))
	case len(v.CmdLine) > abi.StartInfoMaxCmdLength:
		what = fmt.Sprintf("command line of %d bytes, limit %d", len(v.CmdLine), abi.StartInfoMaxCmdLength)
	default:
		return &Image{plan: p, values: v, mem: mem}, nil
	}
	return nil, fmt.Errorf("fill domain: %w: %s", ErrValues, what)
}

// bytes is the memory of n pages from pfn on, all in one range.
func (i *Image) bytes(pfn abi.PFN, n uint64) []byte {
	skip := uint64(0)
	for _, r := range i.plan.LoadRanges() {
		if pfn >= r.First && uint64(pfn-r.First)+n <= r.Pages {
			at := (skip + uint64(pfn-r.First)) * abi.PageSize
			return i.mem[at : at+n*abi.PageSize : at+n*abi.PageSize]
		}
		skip += r.Pages
	}
	return nil
}

// Load copies kernel and initramfs in, and clears what the kernel expects to be
// zero: memory from Xen may hold anything.
func (i *Image) Load() {
	p := i.plan
	kernel := i.bytes(p.KernelStart, uint64(p.StartInfo-p.KernelStart))
	done := uint64(0)
	for _, s := range p.kernel.Segments {
		at := s.Addr - p.KernelStart.Addr()
		clear(kernel[done:at])
		copy(kernel[at:], s.Data)
		clear(kernel[at+uint64(len(s.Data)) : at+s.Size])
		done = at + s.Size
	}
	clear(kernel[done:])
	if p.InitramfsLen > 0 {
		room := i.bytes(p.Initramfs, abi.PagesOf(p.InitramfsLen))
		clear(room[copy(room, i.values.Initramfs):])
	}
	clear(i.bytes(p.Stack, 1))
}

// Tables writes the page tables and the frame list.
func (i *Image) Tables() {
	p := i.plan
	p.writeTables(func(pfn abi.PFN) []byte { return i.bytes(pfn, 1) }, i.values.Frames)
	list := i.bytes(p.P2M, p.P2MPages)
	for n, f := range i.values.Frames {
		binary.LittleEndian.PutUint64(list[n*8:], uint64(f))
	}
	clear(list[len(i.values.Frames)*8:])
}

// Devices writes start_info, the device page, and clears pool and console.
func (i *Image) Devices() {
	p, v := i.plan, i.values
	clear(i.bytes(p.Console, 1))
	page := i.bytes(p.Device, 1)
	clear(page[copy(page, v.DevicePage):])
	if p.PoolPages > 0 {
		clear(i.bytes(p.Device+1, p.PoolPages))
	}
	si := abi.StartInfo{
		NrPages:     p.NrPages,
		SharedInfo:  v.SharedInfo,
		StoreMFN:    v.Frames[p.Device],
		ConsoleMFN:  v.Frames[p.Console],
		ConsolePort: v.ConsolePort,
		PTBase:      p.VirtAddr(p.Root()),
		NrPTFrames:  p.nrBootPT,
		MFNList:     p.kernel.InitP2M,
		CmdLine:     v.CmdLine,
		FirstP2MPFN: p.P2M,
		NrP2MFrames: uint64(p.End - p.P2M),
	}
	if p.InitramfsLen > 0 {
		si.Flags = abi.StartInfoModStartPFN
		si.ModStart = uint64(p.Initramfs)
		si.ModLen = p.InitramfsLen
	}
	si.Put(i.bytes(p.StartInfo, 1))
}
