// SPDX-License-Identifier: Apache-2.0

package pv

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xcontainer/xcontainer/pkg/xen/abi"
)

const (
	testVirtBase = 0xffffffff80000000
	testInitP2M  = 0x8000000000
)

// testKernel is like Linux: segments with gaps, and one that is nearly all bss.
func testKernel() *Kernel {
	return &Kernel{
		Entry: testVirtBase + 2<<20, VirtBase: testVirtBase, InitP2M: testInitP2M, ModStartPFN: true,
		Segments: []Segment{
			{Addr: 2 << 20, Size: 5000, Data: []byte("text")},
			{Addr: 2<<20 + 9000, Size: 3 << 20, Data: []byte("data and bss")},
		},
	}
}

// framesOf are distinct frames in no order.
func framesOf(n uint64) []abi.MFN {
	rng := rand.New(rand.NewPCG(1, 2))
	frames := make([]abi.MFN, n)
	for i, p := range rng.Perm(int(n)) {
		frames[i] = abi.MFN(0x100000 + p)
	}
	return frames
}

// built is a domain's memory after the image was written into garbage.
type built struct {
	*Plan
	values Values
	memory map[abi.MFN][]byte
}

func build(t *testing.T, k *Kernel, s Sizes) built {
	t.Helper()
	p, err := NewPlan(k, s)
	if err != nil {
		t.Fatal(err)
	}
	v := Values{
		Frames: framesOf(s.Pages), SharedInfo: 0x42, ConsolePort: 7, CmdLine: "console=hvc0",
		DevicePage: bytes.Repeat([]byte{9}, abi.PageSize), Initramfs: bytes.Repeat([]byte{5}, int(s.Initramfs)),
	}
	pages := uint64(0)
	for _, r := range p.LoadRanges() {
		pages += r.Pages
	}
	mem := bytes.Repeat([]byte{0xee}, int(pages)*abi.PageSize)
	img, err := p.NewImage(mem, v)
	if err != nil {
		t.Fatal(err)
	}
	img.Load()
	img.Tables()
	img.Devices()
	b := built{Plan: p, values: v, memory: map[abi.MFN][]byte{}}
	for _, r := range p.LoadRanges() {
		for i := range r.Pages {
			b.memory[v.Frames[uint64(r.First)+i]] = mem[:abi.PageSize]
			mem = mem[abi.PageSize:]
		}
	}
	return b
}

// page is a page's memory; nil if the image did not write it.
func (b built) page(p abi.PFN) []byte { return b.memory[b.values.Frames[p]] }

// walk finds the page-table entry for an address, from the root down.
func (b built) walk(v uint64) (entry uint64, ok bool) {
	frame := b.values.Frames[b.Root()]
	for shift := 39; shift >= 12; shift -= 9 {
		entry = binary.LittleEndian.Uint64(b.memory[frame][v>>shift&511*8:])
		if entry&abi.PTEPresent == 0 {
			return 0, false
		}
		frame = abi.MFN(entry & (1<<52 - 1) >> abi.PageShift)
	}
	return entry, true
}

func TestTablesMapWhatThePlanSays(t *testing.T) {
	for name, s := range map[string]Sizes{
		"small":          {Pages: 4096, Pool: 8},
		"odd":            {Pages: 5001, Pool: 816, Initramfs: 12345},
		"list over 2MiB": {Pages: 300000, Pool: 816, Initramfs: 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := build(t, testKernel(), s)
			for pfn := abi.PFN(0); pfn < b.MapEnd; pfn++ {
				b.checkEntry(t, testVirtBase+pfn.Addr(), pfn)
			}
			if _, ok := b.walk(testVirtBase + b.MapEnd.Addr()); ok {
				t.Error("mapped past the end of the initial mapping")
			}
			for i := range b.P2MPages {
				b.checkEntry(t, testInitP2M+i*abi.PageSize, b.P2M+abi.PFN(i))
			}
			for i, f := range b.values.Frames {
				page := b.page(b.P2M + abi.PFN(i/512))
				if got := binary.LittleEndian.Uint64(page[i%512*8:]); got != uint64(f) {
					t.Fatalf("frame list %d: %#x, want %#x", i, got, f)
				}
			}
		})
	}
}

func (b built) checkEntry(t *testing.T, v uint64, pfn abi.PFN) {
	t.Helper()
	e, ok := b.walk(v)
	if want := b.values.Frames[pfn]; !ok || abi.MFN(e>>abi.PageShift) != want {
		t.Fatalf("%#x is %#x, want frame %#x", v, e, want)
	}
	if writable := e&abi.PTEWritable != 0; writable == b.IsTable(pfn) {
		t.Fatalf("page %d: writable %v, page table %v", pfn, writable, b.IsTable(pfn))
	}
}

func TestPlanKeepsApart(t *testing.T) {
	s := Sizes{Pages: 8192, Pool: 816, Initramfs: 3<<20 + 1}
	p, err := NewPlan(testKernel(), s)
	if err != nil {
		t.Fatal(err)
	}
	order := []struct {
		name string
		at   abi.PFN
	}{
		{"kernel", p.KernelStart}, {"kernel's end", p.KernelEnd}, {"console", p.Console}, {"device page", p.Device},
		{"tables", p.Tables}, {"stack", p.Stack}, {"end of mapping", p.MapEnd}, {"frame list", p.P2M},
		{"list's tables", p.P2M + abi.PFN(p.P2MPages)}, {"end", p.End}, {"all", abi.PFN(s.Pages) + 1},
	}
	for i := 1; i < len(order); i++ {
		if order[i-1].at >= order[i].at {
			t.Errorf("%s at %d, %s at %d", order[i-1].name, order[i-1].at, order[i].name, order[i].at)
		}
	}
	if p.Tables != p.Device+1+816 || p.Initramfs != p.MapEnd || p.P2M != p.Initramfs+769 {
		t.Errorf("plan %+v", p)
	}
	if p.MapEnd.Addr()%mapAlign != 0 || p.MapEnd.Addr()-(p.Stack+1).Addr() < mapSlack {
		t.Errorf("mapping ends at %#x, stack at %#x", p.MapEnd.Addr(), p.Stack.Addr())
	}
	low := testKernel()
	low.Segments = []Segment{{Addr: 0, Size: 4096, Data: []byte{1}}}
	if p, err := NewPlan(low, s); err != nil || p.StartInfo.Addr() < 1<<20 {
		t.Errorf("with a kernel at 0: %+v, %v", p, err)
	}
}

func TestLoadClearsWhatMustBeZero(t *testing.T) {
	k := testKernel()
	b := build(t, k, Sizes{Pages: 4096, Pool: 4, Initramfs: 5000})
	want := make([]byte, b.KernelEnd.Addr())
	for _, s := range k.Segments {
		copy(want[s.Addr:], s.Data)
	}
	for p := b.KernelStart; p < b.KernelEnd; p++ {
		if !bytes.Equal(b.page(p), want[p.Addr():p.Addr()+abi.PageSize]) {
			t.Fatalf("kernel page %d differs", p)
		}
	}
	zero := make([]byte, abi.PageSize)
	clear := []abi.PFN{b.Console, b.Stack, b.Device + 1, b.Device + 4}
	for _, p := range clear {
		if !bytes.Equal(b.page(p), zero) {
			t.Errorf("page %d is not zero", p)
		}
	}
	if !bytes.Equal(b.page(b.Device), b.values.DevicePage) {
		t.Error("device page differs")
	}
	end := append(bytes.Repeat([]byte{5}, 5000-abi.PageSize), zero[5000-abi.PageSize:]...)
	if !bytes.Equal(b.page(b.Initramfs+1), end) {
		t.Error("initramfs is not followed by zeros")
	}
}

func TestStartInfoAndEntry(t *testing.T) {
	b := build(t, testKernel(), Sizes{Pages: 4096, Pool: 4, Initramfs: 5000})
	si := b.page(b.StartInfo)
	u64 := func(off int) uint64 { return binary.LittleEndian.Uint64(si[off:]) }
	for name, c := range map[string][2]uint64{
		"nr_pages":       {u64(abi.StartInfoNrPages), 4096},
		"shared_info":    {u64(abi.StartInfoSharedInfo), 0x42000},
		"flags":          {u64(abi.StartInfoFlags) & 0xffffffff, abi.StartInfoModStartPFN},
		"store_mfn":      {u64(abi.StartInfoStoreMFN), uint64(b.values.Frames[b.Device])},
		"store_evtchn":   {u64(abi.StartInfoStoreEvtchn) & 0xffffffff, 0},
		"console mfn":    {u64(abi.StartInfoConsMFN), uint64(b.values.Frames[b.Console])},
		"console port":   {u64(abi.StartInfoConsEvtchn) & 0xffffffff, 7},
		"pt_base":        {u64(abi.StartInfoPTBase), testVirtBase + b.Tables.Addr()},
		"nr_pt_frames":   {u64(abi.StartInfoNrPTFrames), uint64(b.Stack - b.Tables)},
		"mfn_list":       {u64(abi.StartInfoMFNList), testInitP2M},
		"mod_start":      {u64(abi.StartInfoModStart), uint64(b.Initramfs)},
		"mod_len":        {u64(abi.StartInfoModLen), 5000},
		"first_p2m_pfn":  {u64(abi.StartInfoFirstP2MPFN), uint64(b.P2M)},
		"nr_p2m_frames":  {u64(abi.StartInfoNrP2MFrames), uint64(b.End - b.P2M)},
		"entry's rip":    {uint64(b.Entry(b.values.Frames).RIP), testVirtBase + 2<<20},
		"entry's rsi":    {uint64(b.Entry(b.values.Frames).RSI), testVirtBase + b.StartInfo.Addr()},
		"entry's rsp":    {uint64(b.Entry(b.values.Frames).RSP), testVirtBase + (b.Stack + 1).Addr()},
		"entry's cr3":    {uint64(b.Entry(b.values.Frames).CR3), uint64(b.values.Frames[b.Tables])},
		"planned pages":  {b.NrPages, 4096},
		"planned tables": {b.nrBootPT, uint64(b.Stack - b.Tables)},
	} {
		if c[0] != c[1] {
			t.Errorf("%s is %#x, want %#x", name, c[0], c[1])
		}
	}
	if line := si[abi.StartInfoCmdLine:]; !bytes.HasPrefix(line, []byte("console=hvc0\x00")) {
		t.Errorf("command line %q", line[:20])
	}
}

func TestPlanRefuses(t *testing.T) {
	plain := func(k *Kernel) {}
	for name, c := range map[string]struct {
		spoil func(*Kernel)
		sizes Sizes
		want  error
		says  string
	}{
		"nothing":         {plain, Sizes{}, ErrSizes, "memory not in"},
		"too much":        {plain, Sizes{Pages: maxPages + 1}, ErrSizes, "memory not in"},
		"too small":       {plain, Sizes{Pages: 1024}, ErrTooSmall, "4096 KiB"},
		"pool":            {plain, Sizes{Pages: 4096, Pool: maxPool + 1}, ErrSizes, "pool"},
		"initramfs":       {plain, Sizes{Pages: 4096, Initramfs: maxInitramfs + 1}, ErrSizes, "initramfs"},
		"big initramfs":   {plain, Sizes{Pages: 4096, Initramfs: 16 << 20}, ErrTooSmall, "initramfs"},
		"no MOD_START":    {func(k *Kernel) { k.ModStartPFN = false }, Sizes{Pages: 4096, Initramfs: 1}, ErrKernel, "MOD_START_PFN"},
		"top of memory":   {func(k *Kernel) { k.VirtBase = 0xffffffffff000000 }, Sizes{Pages: 1 << 16, Pool: maxPool}, ErrKernel, "no room"},
		"end of the list": {plain, Sizes{Pages: 2049 + 700, Pool: 8}, nil, ""},
	} {
		k := testKernel()
		c.spoil(k)
		_, err := NewPlan(k, c.sizes)
		if !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNewImageRefuses(t *testing.T) {
	p, err := NewPlan(testKernel(), Sizes{Pages: 4096, Initramfs: 10})
	if err != nil {
		t.Fatal(err)
	}
	pages := uint64(0)
	for _, r := range p.LoadRanges() {
		pages += r.Pages
	}
	mem := make([]byte, pages*abi.PageSize)
	good := Values{Frames: framesOf(4096), Initramfs: make([]byte, 10), CmdLine: strings.Repeat("x", abi.StartInfoMaxCmdLength)}
	if _, err := p.NewImage(mem, good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Values){
		"frames":    func(v *Values) { v.Frames = v.Frames[1:] },
		"initramfs": func(v *Values) { v.Initramfs = nil },
		"page":      func(v *Values) { v.DevicePage = make([]byte, abi.PageSize+1) },
		"line":      func(v *Values) { v.CmdLine += "x" },
	} {
		v := good
		spoil(&v)
		if _, err := p.NewImage(mem, v); !errors.Is(err, ErrValues) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := p.NewImage(mem[1:], good); !errors.Is(err, ErrValues) {
		t.Errorf("memory: %v", err)
	}
}

func TestOpenKernel(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenKernel(filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{empty, dir} {
		if _, err := OpenKernel(path); !errors.Is(err, ErrKernel) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
