// SPDX-License-Identifier: Apache-2.0

package xentest

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/xen/abi"
	"github.com/xcontainer/xcontainer/pkg/xen/foreign"
	"github.com/xcontainer/xcontainer/pkg/xen/hypercall"
)

// Raw is a hypervisor without the toolstack above it.
type Raw interface {
	CreateDomain(abi.CreateDomain) (abi.DomID, error)
	DestroyDomain(abi.DomID) error
	UnpauseDomain(abi.DomID) error
	DomainInfo(abi.DomID) (abi.DomainInfo, error)
	SetMaxMem(dom abi.DomID, kib uint64) error
	SetMaxVCPUs(dom abi.DomID, n uint32) error
	SetCredit2(dom abi.DomID, weight, limit uint16) error
	Credit2(dom abi.DomID) (weight, limit uint16, err error)
	SetTSC(abi.DomID, abi.TSCMode) error
	TSC(abi.DomID) (abi.TSCMode, error)
	SetVCPU(abi.DomID, abi.EntryContext) error
	Claim(dom abi.DomID, pages uint64) error
	Populate(dom abi.DomID, order uint32, pfns []abi.PFN) ([]abi.MFN, error)
	Map(dom abi.DomID, frames []abi.MFN, writable bool) ([]byte, func() error, error)
	PinL4(dom abi.DomID, root abi.MFN) error
	AllocPort(abi.DomID) (abi.Port, error)
}

// refusals are what the twin must refuse because Xen does; they keep the two
// together below the toolstack.
var refusals = []testCase{
	{"refuses bad creation", refusesCreation},
	{"refuses memory past the limit", refusesMemory},
	{"refuses frames of others", refusesFrames},
	{"refuses to pin what is mapped writable", refusesWritablePin},
	{"refuses a page table that the guest can write", refusesWritableTable},
	{"refuses calls about no domain", refusesNoDomain},
}

// shell makes a domain of its own with 64 pages at most.
func (s *suite) shell() abi.DomID {
	s.Helper()
	id, err := s.Raw.CreateDomain(shellConfig())
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		if err := s.Raw.DestroyDomain(id); err != nil && !errors.Is(err, hypercall.ErrNoDomain) {
			s.Error(err)
		}
	})
	if err := s.Raw.SetMaxMem(id, 64*4); err != nil {
		s.Fatal(err)
	}
	return id
}

func shellConfig() abi.CreateDomain {
	return abi.CreateDomain{Handle: abi.UUID{1}, MaxVCPUs: 2, MaxEvtchnPort: 10,
		MaxGrantFrames: -1, MaxMaptrackFrames: -1, MaxGrantTabVersion: 1}
}

// must is for what Xen does not refuse.
func (s *suite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// mustNot is for what it does.
func (s *suite) mustNot(what string, err error) {
	s.Helper()
	if err == nil {
		s.Errorf("%s was not refused", what)
	}
}

func refusesCreation(s *suite) {
	for name, spoil := range map[string]func(*abi.CreateDomain){
		"no grant table version": func(c *abi.CreateDomain) { c.MaxGrantTabVersion = 0 },
		"no virtual CPU":         func(c *abi.CreateDomain) { c.MaxVCPUs = 0 },
	} {
		c := shellConfig()
		spoil(&c)
		id, err := s.Raw.CreateDomain(c)
		s.mustNot(name, err)
		if err == nil {
			s.must(s.Raw.DestroyDomain(id))
		}
	}
	id := s.shell()
	s.mustNot("virtual CPU state without virtual CPUs", s.Raw.SetVCPU(id, abi.EntryContext{}))
	s.mustNot("another number of virtual CPUs", s.Raw.SetMaxVCPUs(id, 3))
	s.must(s.Raw.SetMaxVCPUs(id, 2))
	info, err := s.Raw.DomainInfo(id)
	s.must(err)
	if info.MaxVCPUID != 1 || info.OnlineVCPUs != 0 || info.Flags&abi.DomInfPaused == 0 {
		s.Errorf("%+v", info)
	}
	for range 9 {
		_, err := s.Raw.AllocPort(id)
		s.must(err)
	}
	for range 3 {
		if _, err = s.Raw.AllocPort(id); err != nil {
			break
		}
	}
	s.mustNot("a port past the limit", err)
	s.must(s.Raw.UnpauseDomain(id))
	s.mustNot("unpausing what is not paused", s.Raw.UnpauseDomain(id))
}

// pfnsFrom are n page numbers.
func pfnsFrom(first, n int) []abi.PFN {
	p := make([]abi.PFN, n)
	for i := range p {
		p[i] = abi.PFN(first + i)
	}
	return p
}

func refusesMemory(s *suite) {
	id := s.shell()
	s.mustNot("a claim past the limit", s.Raw.Claim(id, 65))
	s.must(s.Raw.Claim(id, 64))
	got, err := s.Raw.Populate(id, 9, pfnsFrom(0, 1))
	if err != nil || len(got) != 0 {
		s.Errorf("2 MiB for a domain of 256 KiB: %v, %v", got, err)
	}
	got, err = s.Raw.Populate(id, 0, pfnsFrom(0, 70))
	if err != nil || len(got) != 64 {
		s.Errorf("70 pages for a domain of 64: %d, %v", len(got), err)
	}
	if info, err := s.Raw.DomainInfo(id); err != nil || info.TotPages != 64 || info.MaxPages != 64 {
		s.Errorf("%+v, %v", info, err)
	}
	bare, err := s.Raw.CreateDomain(shellConfig())
	s.must(err)
	got, err = s.Raw.Populate(bare, 0, pfnsFrom(0, 1))
	if err != nil || len(got) != 0 {
		s.Errorf("memory without a limit set: %v, %v", got, err)
	}
	s.must(s.Raw.DestroyDomain(bare))
}

func refusesFrames(s *suite) {
	a, b := s.shell(), s.shell()
	frames, err := s.Raw.Populate(a, 0, pfnsFrom(0, 2))
	s.must(err)
	for _, writable := range []bool{false, true} {
		_, unmap, err := s.Raw.Map(b, frames, writable)
		if !errors.Is(err, foreign.ErrFrame) {
			s.Errorf("frames of domain %d mapped as %d's: %v", a, b, err)
		}
		if err == nil {
			s.must(unmap())
		}
	}
	mem, unmap, err := s.Raw.Map(a, frames, true)
	s.must(err)
	mem[0], mem[abi.PageSize] = 1, 2
	again, unmapAgain, err := s.Raw.Map(a, []abi.MFN{frames[1], frames[0]}, false)
	s.must(err)
	if again[0] != 2 || again[abi.PageSize] != 1 {
		s.Error("two mappings differ")
	}
	s.must(unmap())
	s.must(unmapAgain())
}

// tree is a page-table tree of a shell that maps its own level 1 table and
// nothing else.
type tree struct {
	frames []abi.MFN // root, 3, 2, 1
	mem    []byte
	unmap  func() error
}

func (s *suite) plant(id abi.DomID, leafFlags uint64) tree {
	s.Helper()
	frames, err := s.Raw.Populate(id, 0, pfnsFrom(0, 4))
	s.must(err)
	if len(frames) != 4 {
		s.Fatalf("%d frames", len(frames))
	}
	t := tree{frames: frames}
	t.mem, t.unmap, err = s.Raw.Map(id, frames, true)
	s.must(err)
	clear(t.mem)
	for i := range 3 {
		binary.LittleEndian.PutUint64(t.mem[i*abi.PageSize:], frames[i+1].Addr()|abi.PTEPresent|abi.PTEWritable|abi.PTEUser|abi.PTEAccessed)
	}
	binary.LittleEndian.PutUint64(t.mem[3*abi.PageSize:], frames[3].Addr()|leafFlags)
	return t
}

func refusesWritablePin(s *suite) {
	id := s.shell()
	t := s.plant(id, abi.PTEPresent|abi.PTEAccessed)
	s.mustNot("a pin while the tables are mapped writable", s.Raw.PinL4(id, t.frames[0]))
	s.must(t.unmap())
	s.must(s.Raw.PinL4(id, t.frames[0]))
	for i, f := range t.frames {
		_, unmap, err := s.Raw.Map(id, []abi.MFN{f}, true)
		if !errors.Is(err, foreign.ErrFrame) {
			s.Errorf("level %d of a pinned tree was mapped writable: %v", 4-i, err)
		}
		if err == nil {
			s.must(unmap())
		}
		_, unmap, err = s.Raw.Map(id, []abi.MFN{f}, false)
		s.must(err)
		s.must(unmap())
	}
}

func refusesWritableTable(s *suite) {
	id := s.shell()
	t := s.plant(id, abi.PTEPresent|abi.PTEWritable|abi.PTEAccessed)
	s.must(t.unmap())
	s.mustNot("a writable mapping of a page table", s.Raw.PinL4(id, t.frames[0]))
	other := s.shell()
	stranger, err := s.Raw.Populate(other, 0, pfnsFrom(0, 1))
	s.must(err)
	s.mustNot("another domain's frame as page table", s.Raw.PinL4(id, stranger[0]))
}

func refusesNoDomain(s *suite) {
	id := s.shell()
	s.must(s.Raw.DestroyDomain(id))
	_, portErr := s.Raw.AllocPort(id)
	for name, err := range map[string]error{
		"destroy": s.Raw.DestroyDomain(id), "unpause": s.Raw.UnpauseDomain(id), "max_mem": s.Raw.SetMaxMem(id, 4),
		"max_vcpus": s.Raw.SetMaxVCPUs(id, 1), "scheduler": s.Raw.SetCredit2(id, 1, 0),
		"settscinfo":     s.Raw.SetTSC(id, abi.TSCModeNative),
		"setvcpucontext": s.Raw.SetVCPU(id, abi.EntryContext{}), "pin": s.Raw.PinL4(id, firstFrame), "alloc_unbound": portErr,
	} {
		if !errors.Is(err, hypercall.ErrNoDomain) {
			s.Errorf("%s: %v, want %v", name, err, hypercall.ErrNoDomain)
		}
	}
	if err := s.Raw.Claim(id, 1); !errors.Is(err, unix.EINVAL) {
		s.Errorf("claim: %v, want %v", err, unix.EINVAL)
	}
}
