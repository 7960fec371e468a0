// SPDX-License-Identifier: Apache-2.0

package task

import (
	"fmt"
	"math"
	"time"

	v1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	v2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/types/known/anypb"
)

// noLimitV1 is how cgroup v1 writes that memory has no limit.
const noLimitV1 = math.MaxInt64 &^ 0xfff

// processor is the container's CPU time in µs: the domain's, with all that the
// hypervisor has done for it, of which the guest knows the user part.
func (n numbers) processor() (usage, user, system uint64) {
	usage = n.of("usage_usec")
	if n.domain != nil {
		usage = uint64(n.domain.CPUTime / time.Microsecond)
	}
	user = min(n.of("user_usec"), usage)
	return usage, user, usage - user
}

// inGuest are the guest's numbers, all 0 if there are none.
func (n numbers) inGuest() guestNumbers {
	if n.guest == nil {
		return guestNumbers{}
	}
	return *n.guest
}

// of is a number of the guest's cpu.stat.
func (n numbers) of(name string) uint64 { return n.inGuest().cpu[name] }

// memory is the container's memory in bytes, never more than the domain has.
func (n numbers) memory() (usage, peak uint64) {
	limit := uint64(math.MaxUint64)
	if n.domain != nil {
		limit = max(n.domain.MemoryBytes, n.domain.MaxMemoryBytes)
	}
	if n.guest == nil {
		if n.domain == nil {
			return 0, 0
		}
		return n.domain.MemoryBytes, n.domain.MemoryBytes
	}
	usage = min(n.guest.memoryCurrent, limit)
	return usage, min(max(n.guest.memoryPeak, usage), limit)
}

// stat is a number of the guest's memory.stat.
func (n numbers) stat(name string) uint64 { return n.inGuest().memory[name] }

func (n numbers) event(name string) uint64 { return n.inGuest().events[name] }

func (n numbers) pids() uint64 { return n.inGuest().pids }

func orMax(limit uint64) uint64 {
	if limit == 0 {
		return math.MaxUint64
	}
	return limit
}

// metrics are the numbers as a host with that version of cgroups has them, and
// those of system calls (statsapi.Metrics).
func (n numbers) metrics(unified bool) (*anypb.Any, error) {
	var m any = n.v1()
	if unified {
		m = n.v2()
	}
	a, err := typeurl.MarshalAnyToProto(m)
	if err != nil {
		return nil, fmt.Errorf("encode metrics: %w", err)
	}
	return a, addSyscalls(a, n.inGuest().syscalls)
}

// v2 is what containerd expects of a host with cgroup v2.
func (n numbers) v2() *v2.Metrics {
	usage, user, system := n.processor()
	memory, peak := n.memory()
	m := &v2.Metrics{
		Pids: &v2.PidsStat{Current: n.pids(), Limit: orMax(n.pidsLimit)},
		CPU: &v2.CPUStat{
			UsageUsec: usage, UserUsec: user, SystemUsec: system,
			NrPeriods: n.of("nr_periods"), NrThrottled: n.of("nr_throttled"), ThrottledUsec: n.of("throttled_usec"),
			NrBursts: n.of("nr_bursts"), BurstUsec: n.of("burst_usec"),
		},
		Memory: &v2.MemoryStat{
			Anon: n.stat("anon"), File: n.stat("file"), KernelStack: n.stat("kernel_stack"), Slab: n.stat("slab"),
			Sock: n.stat("sock"), Shmem: n.stat("shmem"), FileMapped: n.stat("file_mapped"), FileDirty: n.stat("file_dirty"),
			FileWriteback: n.stat("file_writeback"), AnonThp: n.stat("anon_thp"),
			InactiveAnon: n.stat("inactive_anon"), ActiveAnon: n.stat("active_anon"),
			InactiveFile: n.stat("inactive_file"), ActiveFile: n.stat("active_file"), Unevictable: n.stat("unevictable"),
			SlabReclaimable: n.stat("slab_reclaimable"), SlabUnreclaimable: n.stat("slab_unreclaimable"),
			Pgfault: n.stat("pgfault"), Pgmajfault: n.stat("pgmajfault"),
			WorkingsetRefault: n.stat("workingset_refault"), WorkingsetActivate: n.stat("workingset_activate"),
			WorkingsetNodereclaim: n.stat("workingset_nodereclaim"),
			Pgrefill:              n.stat("pgrefill"), Pgscan: n.stat("pgscan"), Pgsteal: n.stat("pgsteal"),
			Pgactivate: n.stat("pgactivate"), Pgdeactivate: n.stat("pgdeactivate"),
			Pglazyfree: n.stat("pglazyfree"), Pglazyfreed: n.stat("pglazyfreed"),
			ThpFaultAlloc: n.stat("thp_fault_alloc"), ThpCollapseAlloc: n.stat("thp_collapse_alloc"),
			Usage: memory, UsageLimit: orMax(n.memoryLimit), MaxUsage: peak,
		},
		MemoryEvents: &v2.MemoryEvents{
			Low: n.event("low"), High: n.event("high"), Max: n.event("max"),
			Oom: n.event("oom"), OomKill: n.event("oom_kill"), OomGroupKill: n.event("oom_group_kill"),
		},
		Io: &v2.IOStat{},
	}
	if d := n.domain; d != nil {
		// No block device: files have no number there.
		m.Io.Usage = []*v2.IOEntry{{
			Rbytes: d.IO.ReadBytes, Wbytes: d.IO.WriteBytes, Rios: d.IO.ReadOps, Wios: d.IO.WriteOps,
		}}
	}
	return m
}

// v1 is what containerd expects of a host with cgroup v1.
func (n numbers) v1() *v1.Metrics {
	usage, user, system := n.processor()
	memory, peak := n.memory()
	limit := n.memoryLimit
	if limit == 0 {
		limit = noLimitV1
	}
	const ns = 1000 // in a µs
	m := &v1.Metrics{
		Pids: &v1.PidsStat{Current: n.pids(), Limit: n.pidsLimit},
		CPU: &v1.CPUStat{
			Usage:      &v1.CPUUsage{Total: usage * ns, User: user * ns, Kernel: system * ns},
			Throttling: &v1.Throttle{Periods: n.of("nr_periods"), ThrottledPeriods: n.of("nr_throttled"), ThrottledTime: n.of("throttled_usec") * ns},
		},
		Memory: &v1.MemoryStat{
			Usage:     &v1.MemoryEntry{Usage: memory, Max: peak, Limit: limit, Failcnt: n.event("max")},
			Swap:      &v1.MemoryEntry{Usage: memory, Max: peak, Limit: limit}, // memory and swap
			Kernel:    &v1.MemoryEntry{Usage: n.stat("kernel_stack") + n.stat("slab"), Limit: noLimitV1},
			KernelTCP: &v1.MemoryEntry{Usage: n.stat("sock"), Limit: noLimitV1},
		},
		MemoryOomControl: &v1.MemoryOomControl{OomKill: n.event("oom_kill")},
		Blkio:            &v1.BlkIOStat{},
	}
	n.memoryV1(m.Memory)
	if d := n.domain; d != nil {
		m.Blkio.IoServiceBytesRecursive = blkio(d.IO.ReadBytes, d.IO.WriteBytes)
		m.Blkio.IoServicedRecursive = blkio(d.IO.ReadOps, d.IO.WriteOps)
	}
	return m
}

// memoryV1 fills what cgroup v1 has twice: for the cgroup, and with those below.
func (n numbers) memoryV1(m *v1.MemoryStat) {
	for _, f := range []struct {
		own, total *uint64
		value      uint64
	}{
		{&m.Cache, &m.TotalCache, n.stat("file")},
		{&m.RSS, &m.TotalRSS, n.stat("anon")},
		{&m.RSSHuge, &m.TotalRSSHuge, n.stat("anon_thp")},
		{&m.MappedFile, &m.TotalMappedFile, n.stat("file_mapped")},
		{&m.Dirty, &m.TotalDirty, n.stat("file_dirty")},
		{&m.Writeback, &m.TotalWriteback, n.stat("file_writeback")},
		{&m.PgFault, &m.TotalPgFault, n.stat("pgfault")},
		{&m.PgMajFault, &m.TotalPgMajFault, n.stat("pgmajfault")},
		{&m.InactiveAnon, &m.TotalInactiveAnon, n.stat("inactive_anon")},
		{&m.ActiveAnon, &m.TotalActiveAnon, n.stat("active_anon")},
		{&m.InactiveFile, &m.TotalInactiveFile, n.stat("inactive_file")},
		{&m.ActiveFile, &m.TotalActiveFile, n.stat("active_file")},
		{&m.Unevictable, &m.TotalUnevictable, n.stat("unevictable")},
	} {
		*f.own, *f.total = f.value, f.value
	}
	m.HierarchicalMemoryLimit, m.HierarchicalSwapLimit = m.Usage.Limit, m.Usage.Limit
}

func blkio(read, write uint64) []*v1.BlkIOEntry {
	return []*v1.BlkIOEntry{{Op: "Read", Value: read}, {Op: "Write", Value: write}, {Op: "Total", Value: read + write}}
}
