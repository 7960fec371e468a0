// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
	"github.com/xcontainer/xcontainer/pkg/shim/refusal"
)

// Of Xen's credit2 scheduler and of cgroups.
const (
	defaultWeight = 256
	maxWeight     = 65535
	defaultShares = 1024
	defaultPeriod = 100000  // µs
	minPeriod     = 1000    // µs
	maxPeriod     = 1000000 // µs
	minQuota      = 1000    // µs
	maxQuota      = 1 << 43 // µs
)

// minCap is what the guest's kernel and agent need to answer in time, in percent
// of a CPU. The limit of the container's programs is that of the guest's cgroup.
const minCap = 10

// Limits are what a container may use, as config.json and the updates since have
// it. The zero value limits nothing and is not a domain's; Settings has those of
// a new container.
type Limits struct {
	memory int64  // bytes; 0 = none
	low    int64  // bytes that are kept from reclaim
	shares uint64 // 0 = default
	quota  int64  // µs of each period; 0 = none
	period uint64 // µs; 0 = default
	cpus   int    // size of the set of CPUs; 0 = all
	pids   int64  // 0 = none

	vcpus       uint32 // as many as the domain can have
	fixedVCPUs  bool   // limits do not change that
	fixedMemory uint64 // bytes of the whole domain, whatever the limit; 0 = it follows
	room        uint64 // bytes of the whole domain without a limit
	devices     uint64 // bytes for devices on top of that, or of the limit
}

// Size is what of a domain follows its container's limits.
type Size struct {
	MemoryBytes uint64 // whole domain, a multiple of 4096
	VCPUs       uint32
	Weight      uint16 // credit2, 0 = default
	Cap         uint16 // credit2, percent of one CPU, 0 = none
}

// MemoryLimit of the container in bytes, 0 if there is none.
func (l Limits) MemoryLimit() uint64 { return uint64(l.memory) }

// PidsLimit of the container, 0 if there is none.
func (l Limits) PidsLimit() uint64 { return uint64(l.pids) }

// Size of the domain that goes with the limits.
func (l Limits) Size() Size {
	const page = 4096
	s := Size{MemoryBytes: l.room, VCPUs: l.vcpus}
	if l.memory > 0 {
		s.MemoryBytes = max(uint64(l.memory)+OverheadBytes, minMemoryBytes)
	}
	s.MemoryBytes += l.devices
	if l.fixedMemory != 0 {
		s.MemoryBytes = l.fixedMemory
	}
	s.MemoryBytes = (s.MemoryBytes + page - 1) &^ (page - 1)
	if l.shares > 0 && l.shares != defaultShares {
		shares := min(l.shares, maxWeight*defaultShares/defaultWeight)
		s.Weight = uint16(min(max(shares*defaultWeight/defaultShares, 1), maxWeight))
	}
	if l.cpus > 0 && !l.fixedVCPUs {
		s.VCPUs = min(s.VCPUs, uint32(l.cpus))
	}
	if l.quota > 0 {
		quota, period := uint64(l.quota), l.periodOrDefault()
		if whole := quota / period; whole < uint64(s.VCPUs) && !l.fixedVCPUs {
			if quota%period != 0 {
				whole++
			}
			s.VCPUs = uint32(max(whole, 1))
		}
		// A cap of all its virtual CPUs is none.
		if quota/period < uint64(s.VCPUs) {
			s.Cap = uint16(max(quota/period*100+quota%period/(period/100), minCap))
		}
	}
	return s
}

func (l Limits) periodOrDefault() uint64 {
	if l.period == 0 {
		return defaultPeriod
	}
	return l.period
}

// Apply gives the limits after r, and what to tell the guest for it: what r does
// not set stays as it is and is not told. Ignored names settings that have no
// effect, since there is nothing in a domain for them to limit. What cannot be
// had is refused by its name.
func (l Limits) Apply(r *specs.LinuxResources) (next Limits, tell *agentapi.Resources, ignored []string, err error) {
	a := applying{Limits: l, tell: &agentapi.Resources{}}
	if err := a.refuse(r); err != nil {
		return l, nil, nil, err
	}
	for _, step := range []func(*specs.LinuxResources) error{a.memoryOf, a.cpuOf, a.pidsOf, a.unifiedOf} {
		if err := step(r); err != nil {
			return l, nil, nil, err
		}
	}
	if l.memory > 0 && a.memory == 0 {
		// A container that loses its limit keeps the room it has.
		a.room = max(a.room, l.Size().MemoryBytes-l.devices)
	}
	return a.Limits, a.tell, a.ignored, nil
}

// Undo tells the guest what it had before it was told changed. What changed holds
// of unified is not known of before and stays.
func (l Limits) Undo(changed *agentapi.Resources) *agentapi.Resources {
	r := &agentapi.Resources{}
	if changed.MemoryMax != nil {
		r.MemoryMax = proto.Int64(orNone(l.memory))
	}
	if changed.MemoryLow != nil {
		r.MemoryLow = proto.Int64(l.low)
	}
	if changed.CpuWeight != nil {
		r.CpuWeight = proto.Uint64(cgroupWeight(l.shares))
	}
	if changed.CpuQuotaUs != nil || changed.CpuPeriodUs != nil {
		r.CpuQuotaUs = proto.Int64(orNone(l.quota))
		r.CpuPeriodUs = proto.Uint64(l.periodOrDefault())
	}
	if changed.PidsMax != nil {
		r.PidsMax = proto.Int64(orNone(l.pids))
	}
	return r
}

// orNone writes a limit as the guest's agent wants it.
func orNone(limit int64) int64 {
	if limit <= 0 {
		return -1
	}
	return limit
}

// applying is the state of one Apply.
type applying struct {
	Limits
	tell    *agentapi.Resources
	ignored []string
}

// refuse looks for what a domain cannot do, and for what is without meaning in it.
func (a *applying) refuse(r *specs.LinuxResources) error {
	c, m := r.CPU, r.Memory
	if c == nil {
		c = &specs.LinuxCPU{}
	}
	if m == nil {
		m = &specs.LinuxMemory{}
	}
	for _, x := range []struct {
		name string
		set  bool
	}{
		{"blockIO", limitsBlockIO(r.BlockIO)},
		{"network", r.Network != nil && (r.Network.ClassID != nil && *r.Network.ClassID != 0 || len(r.Network.Priorities) > 0)},
		{"rdma", len(r.Rdma) > 0},
		{"cpu.realtimeRuntime", c.RealtimeRuntime != nil && *c.RealtimeRuntime != 0},
		{"cpu.realtimePeriod", c.RealtimePeriod != nil && *c.RealtimePeriod != 0},
		{"cpu.idle", c.Idle != nil && *c.Idle != 0},
		{"memory.disableOOMKiller", m.DisableOOMKiller != nil && *m.DisableOOMKiller},
	} {
		if x.set {
			return unsupported("linux.resources."+x.name, "")
		}
	}
	for _, x := range []struct {
		name string
		set  bool
	}{
		// No huge pages and no swap are in a guest, so these limits hold.
		{"hugepageLimits", len(r.HugepageLimits) > 0},
		{"memory.swappiness", m.Swappiness != nil},
		// Neither has cgroup v2 them.
		{"memory.kernel", m.Kernel != nil && *m.Kernel > 0},          //nolint:staticcheck // deprecated, yet still sent
		{"memory.kernelTCP", m.KernelTCP != nil && *m.KernelTCP > 0}, //nolint:staticcheck // deprecated, yet still sent
		// One memory is all that a guest has.
		{"cpu.mems", c.Mems != ""},
	} {
		if x.set {
			a.ignored = append(a.ignored, "linux.resources."+x.name)
		}
	}
	return nil
}

// limitsBlockIO: some clients send the section with zeros.
func limitsBlockIO(b *specs.LinuxBlockIO) bool {
	if b == nil {
		return false
	}
	return b.Weight != nil && *b.Weight != 0 || b.LeafWeight != nil && *b.LeafWeight != 0 || len(b.WeightDevice) > 0 ||
		len(b.ThrottleReadBpsDevice) > 0 || len(b.ThrottleWriteBpsDevice) > 0 ||
		len(b.ThrottleReadIOPSDevice) > 0 || len(b.ThrottleWriteIOPSDevice) > 0
}

func (a *applying) memoryOf(r *specs.LinuxResources) error {
	m := r.Memory
	if m == nil {
		return nil
	}
	if m.Limit != nil && *m.Limit != 0 {
		if err := a.setMemory(*m.Limit); err != nil {
			return err
		}
	}
	if m.Reservation != nil && *m.Reservation != 0 {
		a.setLow(*m.Reservation)
	}
	return nil
}

// setMemory: negative is no limit; so is, from Docker and cgroups, the largest
// multiple of a page.
func (a *applying) setMemory(limit int64) error {
	switch {
	case limit < 0 || limit >= math.MaxInt64&^0xffff:
		limit = 0
	case limit > maxMemoryBytes-OverheadBytes:
		return badLimit("memory limit %d is more than %d, which is what a domain can have", limit, maxMemoryBytes-OverheadBytes)
	}
	a.memory = limit
	a.tell.MemoryMax = proto.Int64(orNone(limit))
	return nil
}

func (a *applying) setLow(low int64) {
	a.low = max(low, 0)
	a.tell.MemoryLow = proto.Int64(a.low)
}

func (a *applying) cpuOf(r *specs.LinuxResources) error {
	c := r.CPU
	if c == nil {
		return nil
	}
	if c.Shares != nil && *c.Shares != 0 {
		a.shares = *c.Shares
		a.tell.CpuWeight = proto.Uint64(cgroupWeight(a.shares))
	}
	if c.Period != nil && *c.Period != 0 {
		if err := a.setPeriod(*c.Period); err != nil {
			return err
		}
	}
	if c.Quota != nil && *c.Quota != 0 {
		if err := a.setQuota(*c.Quota); err != nil {
			return err
		}
	}
	if c.Burst != nil && *c.Burst != 0 {
		a.unified("cpu.max.burst", strconv.FormatUint(*c.Burst, 10))
	}
	if c.Cpus != "" {
		return a.setCpus(c.Cpus)
	}
	return nil
}

func (a *applying) setPeriod(period uint64) error {
	if period < minPeriod || period > maxPeriod {
		return badLimit("CPU period %d µs is not between %d and %d", period, minPeriod, maxPeriod)
	}
	a.period = period
	a.tell.CpuPeriodUs = proto.Uint64(period)
	return nil
}

func (a *applying) setQuota(quota int64) error {
	if quota > 0 && (quota < minQuota || quota > maxQuota) {
		return badLimit("CPU quota %d µs is not between %d and %d", quota, minQuota, int64(maxQuota))
	}
	a.quota = max(quota, 0)
	a.tell.CpuQuotaUs = proto.Int64(orNone(quota))
	return nil
}

// setCpus: which of the host's CPUs a set names means nothing in a domain, but it
// gets no more virtual CPUs than the set has members.
func (a *applying) setCpus(set string) error {
	n, err := countCPUs(set)
	if err != nil {
		return err
	}
	a.cpus = n
	return nil
}

// countCPUs counts the members of a set like "0-2,4".
func countCPUs(set string) (int, error) {
	const most, longest = 8192, 4096
	seen := map[uint64]bool{}
	if len(set) > longest {
		return 0, badLimit("set of CPUs of %d characters is too long", len(set))
	}
	for part := range strings.SplitSeq(strings.TrimSpace(set), ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		first, err1 := strconv.ParseUint(from, 10, 16)
		last, err2 := strconv.ParseUint(to, 10, 16)
		if err1 != nil || err2 != nil || last < first || last >= most {
			return 0, badLimit("set of CPUs %q is not a list like 0-2,4", set)
		}
		for i := first; i <= last; i++ {
			seen[i] = true
		}
	}
	return len(seen), nil
}

func (a *applying) pidsOf(r *specs.LinuxResources) error {
	if r.Pids != nil && r.Pids.Limit != nil && *r.Pids.Limit != 0 {
		a.setPids(*r.Pids.Limit)
	}
	return nil
}

func (a *applying) setPids(limit int64) {
	a.pids = max(limit, 0)
	a.tell.PidsMax = proto.Int64(orNone(limit))
}

// unifiedOf takes files of cgroup v2. Those that have a field of their own are
// that field, so that the domain follows.
func (a *applying) unifiedOf(r *specs.LinuxResources) error {
	for _, name := range slices.Sorted(maps.Keys(r.Unified)) {
		value := strings.TrimSpace(r.Unified[name])
		controller, _, ok := strings.Cut(name, ".")
		if !ok || controller == "cgroup" || strings.ContainsFunc(name, notInFileName) {
			return badLimit("unified: %q is not a file of a cgroup v2 controller", name)
		}
		var err error
		switch name {
		case "memory.max":
			err = a.number(name, value, a.setMemory)
		case "memory.low":
			err = a.number(name, value, func(n int64) error { a.setLow(n); return nil })
		case "pids.max":
			err = a.number(name, value, func(n int64) error { a.setPids(n); return nil })
		case "cpu.max":
			err = a.cpuMax(value)
		case "cpuset.cpus":
			err = a.setCpus(value)
		case "cpuset.mems", "memory.swap.max", "memory.swap.high":
			a.ignored = append(a.ignored, "linux.resources.unified."+name)
		default:
			a.unified(name, value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *applying) unified(name, value string) {
	if a.tell.Unified == nil {
		a.tell.Unified = map[string]string{}
	}
	a.tell.Unified[name] = value
}

func (a *applying) number(name, value string, set func(int64) error) error {
	if value == "max" {
		return set(-1)
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n <= 0 {
		return badLimit("unified: %q is not a value for %s", value, name)
	}
	return set(n)
}

// cpuMax is "quota [period]".
func (a *applying) cpuMax(value string) error {
	f := strings.Fields(value)
	if len(f) == 2 {
		period, err := strconv.ParseUint(f[1], 10, 64)
		if err != nil {
			return badLimit("unified: %q is not a value for cpu.max", value)
		}
		if err := a.setPeriod(period); err != nil {
			return err
		}
		f = f[:1]
	}
	if len(f) != 1 {
		return badLimit("unified: %q is not a value for cpu.max", value)
	}
	return a.number("cpu.max", f[0], a.setQuota)
}

func notInFileName(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' && r != '.'
}

// cgroupWeight is cpu.weight for the shares of cgroup v1: as newer runc has it, so
// that the default of one is that of the other.
func cgroupWeight(shares uint64) uint64 {
	return cgroup2.ConvertCPUSharesToCgroupV2Value(cmp.Or(shares, defaultShares))
}

func badLimit(format string, args ...any) error {
	return refusal.New(ErrInvalid, fmt.Sprintf(format, args...))
}
