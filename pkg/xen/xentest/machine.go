// SPDX-License-Identifier: Apache-2.0

package xentest

import (
	"fmt"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/xen"
	"github.com/xcontainer/xcontainer/pkg/xen/abi"
	"github.com/xcontainer/xcontainer/pkg/xen/hypercall"
)

// Options describe a Machine.
type Options struct {
	// Frames is how many pages of memory there are for domains.
	Frames int
	// Fragmented makes every second request for 2 MiB fail for want of a
	// piece of that size.
	Fragmented bool
	// Fail, if set, is asked at every call, by its number from 1 and its
	// name; an error is the call's, which then does nothing.
	Fail func(call int, name string) error
}

// DefaultFrames is memory for a handful of small domains: 64 MiB.
const DefaultFrames = 16384

// Machine is a hypervisor in memory. Its methods may be used from several
// goroutines.
type Machine struct {
	options Options

	mu      sync.Mutex
	file    *os.File // the memory of all domains
	mem     []byte   // the same, mapped
	owner   []*domain
	domains map[abi.DomID]*domain
	nextID  abi.DomID
	calls   int
	bigs    int
	maps    map[int]*domain // live mappings by serial number
	nextMap int
	events  map[*os.File]*Events
	privs   map[*os.File]abi.DomID
}

var _ xen.Hypervisor = (*Machine)(nil)

// domain is the Machine's view of one.
type domain struct {
	info     abi.DomainInfo
	limits   abi.CreateDomain
	vcpus    uint32
	claimed  uint64
	pauses   int
	credit2  [2]uint16
	tsc      abi.TSCMode
	pinned   abi.MFN
	entry    *abi.EntryContext
	writable map[abi.MFN]int // foreign writable mappings by frame
	mapped   int             // live foreign mappings
	ports    map[abi.Port]*port
	ran      bool
	pfns     map[abi.MFN]abi.PFN
}

// NewMachine makes a Machine; Close releases it.
func NewMachine(o Options) (*Machine, error) {
	if o.Frames == 0 {
		o.Frames = DefaultFrames
	}
	fd, err := unix.MemfdCreate("xentest", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	m := &Machine{
		options: o,
		file:    os.NewFile(uintptr(fd), "xentest"),
		owner:   make([]*domain, o.Frames),
		domains: map[abi.DomID]*domain{},
		nextID:  1,
		maps:    map[int]*domain{},
		events:  map[*os.File]*Events{},
		privs:   map[*os.File]abi.DomID{},
	}
	size := o.Frames * abi.PageSize
	if err = m.file.Truncate(int64(size)); err == nil {
		m.mem, err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err != nil {
		m.file.Close()
		return nil, err
	}
	m.domains[0] = &domain{info: abi.DomainInfo{Flags: abi.DomInfRunning, OnlineVCPUs: 1, TotPages: 1}}
	return m, nil
}

// Close releases the memory of the machine. It may be called once.
func (m *Machine) Close() error {
	if err := unix.Munmap(m.mem); err != nil {
		return err
	}
	return m.file.Close()
}

// Leaks names everything that is left besides dom0, or is "".
func (m *Machine) Leaks() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var left []string
	for id := range m.domains {
		if id != 0 {
			left = append(left, fmt.Sprintf("domain %d", id))
		}
	}
	frames := 0
	for _, d := range m.owner {
		if d != nil {
			frames++
		}
	}
	if frames > 0 {
		left = append(left, fmt.Sprintf("%d frames", frames))
	}
	if n := len(m.maps); n > 0 {
		left = append(left, fmt.Sprintf("%d mappings", n))
	}
	if n := openFiles(m.events) + openFiles(m.privs); n > 0 {
		left = append(left, fmt.Sprintf("%d open files", n))
	}
	sort.Strings(left)
	return strings.Join(left, ", ")
}

// openFiles counts the files that nobody has closed yet.
func openFiles[V any](files map[*os.File]V) int {
	n := 0
	for f := range files {
		if _, err := f.Stat(); err == nil {
			n++
		}
	}
	return n
}

// Calls is how many calls there have been.
func (m *Machine) Calls() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls
}

// begin counts a call and lets it fail. The caller holds mu.
func (m *Machine) begin(name string) error {
	m.calls++
	if m.options.Fail != nil {
		return m.options.Fail(m.calls, name)
	}
	return nil
}

// find is begin for a call about a domain.
func (m *Machine) find(name string, id abi.DomID) (*domain, error) {
	if err := m.begin(name); err != nil {
		return nil, err
	}
	d, ok := m.domains[id]
	if !ok || id == 0 {
		return nil, fmt.Errorf("xentest: %s domain %d: %w", name, id, hypercall.ErrNoDomain)
	}
	return d, nil
}

// refuse is an error as Xen would give it, with the reason that Xen keeps quiet.
func refuse(errno unix.Errno, why string, args ...any) error {
	return fmt.Errorf("xentest: %s: %w", fmt.Sprintf(why, args...), errno)
}

// Version is that of a release that the toolstack knows.
func (m *Machine) Version() hypercall.Version {
	return hypercall.Version{Major: 4, Minor: 17, Extra: ".twin", Domctl: 0x15}
}

// CreateDomain is documented at hypercall.Door, as are all methods of the same
// name.
func (m *Machine) CreateDomain(c abi.CreateDomain) (abi.DomID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin("create"); err != nil {
		return 0, err
	}
	switch {
	case c.MaxGrantTabVersion < 1 || c.MaxGrantTabVersion > 2:
		return 0, refuse(unix.EINVAL, "grant table version %d", c.MaxGrantTabVersion)
	case c.MaxVCPUs < 1 || c.MaxVCPUs > 512:
		return 0, refuse(unix.EINVAL, "%d virtual CPUs", c.MaxVCPUs)
	}
	id := m.nextID
	m.nextID++
	d := &domain{limits: c, pauses: 1, credit2: [2]uint16{abi.Credit2WeightNormal, 0}, writable: map[abi.MFN]int{}, ports: map[abi.Port]*port{}, pfns: map[abi.MFN]abi.PFN{}}
	d.info = abi.DomainInfo{Domain: id, Handle: c.Handle, MaxVCPUID: ^uint32(0), Flags: abi.DomInfPaused}
	frame, ok := m.takeFrame(d)
	if !ok {
		return 0, fmt.Errorf("xentest: shared page: %w", hypercall.ErrNoMemory)
	}
	d.info.SharedInfo = frame
	m.domains[id] = d
	return id, nil
}

// DestroyDomain keeps the domain as long as anybody maps its memory.
func (m *Machine) DestroyDomain(id abi.DomID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.find("destroy", id)
	if err != nil {
		return err
	}
	d.info.Flags |= abi.DomInfDying
	for _, p := range d.ports {
		p.dead = true
	}
	m.reap(d)
	return nil
}

// reap frees a dying domain that nobody maps.
func (m *Machine) reap(d *domain) {
	if d.info.Flags&abi.DomInfDying == 0 || d.mapped > 0 {
		return
	}
	for i, o := range m.owner {
		if o == d {
			m.owner[i] = nil
		}
	}
	delete(m.domains, d.info.Domain)
}

// PauseDomain counts.
func (m *Machine) PauseDomain(id abi.DomID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.find("pause", id)
	if err != nil {
		return err
	}
	d.pauses++
	d.info.Flags |= abi.DomInfPaused
	return nil
}

// UnpauseDomain runs the guest when the count gets to zero.
func (m *Machine) UnpauseDomain(id abi.DomID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.find("unpause", id)
	if err != nil {
		return err
	}
	if d.pauses == 0 {
		return refuse(unix.EINVAL, "unpause: not paused")
	}
	if d.pauses--; d.pauses > 0 {
		return nil
	}
	d.info.Flags &^= abi.DomInfPaused
	d.info.CPUTime += time.Millisecond
	// Without a state the virtual CPU stays down.
	if !d.ran && d.entry != nil {
		d.ran = true
		m.run(d)
	}
	return nil
}

// DomainInfo is ErrNoDomain for an id that is free.
func (m *Machine) DomainInfo(id abi.DomID) (abi.DomainInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.find("look at", id)
	if err != nil {
		return abi.DomainInfo{}, err
	}
	return d.info, nil
}

// DomainInfos lists dom0 as well.
func (m *Machine) DomainInfos() ([]abi.DomainInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin("list"); err != nil {
		return nil, err
	}
	infos := make([]abi.DomainInfo, 0, len(m.domains))
	for _, d := range m.domains {
		infos = append(infos, d.info)
	}
	sort.Slice(infos, func(i, j int) bool { return infos[i].Domain < infos[j].Domain })
	return infos, nil
}

// HostInfo counts the memory for domains.
func (m *Machine) HostInfo() (abi.HostInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin("describe the machine"); err != nil {
		return abi.HostInfo{}, err
	}
	info := abi.HostInfo{CPUs: 1, TotalPages: uint64(len(m.owner)), Scheduler: abi.SchedulerCredit2}
	for _, d := range m.owner {
		if d == nil {
			info.FreePages++
		}
	}
	for _, d := range m.domains {
		info.ClaimedPages += d.claimed
	}
	return info, nil
}

// SetMaxMem bounds what Populate gives.
func (m *Machine) SetMaxMem(id abi.DomID, kib uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.find("max_mem", id)
	if err != nil {
		return err
	}
	d.info.MaxPages = kib / 4
	return nil
}

// SetMaxVCPUs takes the number that CreateDomain was told only.
func (m *Machine) SetMaxVCPUs(id abi.DomID, n uint32) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.find("max_vcpus", id)
	if err != nil {
		return err
	}
	if n != d.limits.MaxVCPUs {
		return refuse(unix.EINVAL, "max_vcpus %d, created with %d", n, d.limits.MaxVCPUs)
	}
	d.vcpus = n
	d.info.MaxVCPUID = n - 1
	return nil
}

// SetCredit2 refuses a weight of 0 and a cap above all virtual CPUs.
func (m *Machine) SetCredit2(id abi.DomID, weight, limit uint16) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.find("scheduler", id)
	if err != nil {
		return err
	}
	if weight == 0 {
		return refuse(unix.EINVAL, "weight 0")
	}
	if uint32(limit) > 100*d.vcpus {
		return refuse(unix.EINVAL, "cap of %d with %d virtual CPUs", limit, d.vcpus)
	}
	d.credit2 = [2]uint16{weight, limit}
	return nil
}

// Credit2 is what SetCredit2 has set, or Xen's default.
func (m *Machine) Credit2(id abi.DomID) (weight, limit uint16, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.find("scheduler", id)
	if err != nil {
		return 0, 0, err
	}
	return d.credit2[0], d.credit2[1], nil
}

// SetTSC makes no difference to a domain that has no counter.
func (m *Machine) SetTSC(id abi.DomID, mode abi.TSCMode) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.find("settscinfo", id)
	if err != nil {
		return err
	}
	d.tsc = mode
	return nil
}

// TSC is what SetTSC has set, or Xen's default.
func (m *Machine) TSC(id abi.DomID) (abi.TSCMode, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.find("gettscinfo", id)
	if err != nil {
		return 0, err
	}
	return d.tsc, nil
}

// SetVCPU wants virtual CPUs, a pinned page table, and addresses in it.
func (m *Machine) SetVCPU(id abi.DomID, c abi.EntryContext) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.find("setvcpucontext", id)
	if err != nil {
		return err
	}
	switch {
	case d.vcpus == 0:
		return refuse(unix.EINVAL, "setvcpucontext: no virtual CPUs")
	case d.pinned == 0 || c.CR3 != d.pinned:
		return refuse(unix.EINVAL, "setvcpucontext: cr3 is no pinned page table")
	}
	d.entry = &c
	d.info.OnlineVCPUs = 1
	return nil
}
