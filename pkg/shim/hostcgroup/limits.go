// SPDX-License-Identifier: Apache-2.0

package hostcgroup

import (
	"math"
	"strconv"
	"strings"

	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// The least that the holder can live with: a Go program of some 5 MB, whose
// threads count as pids.
const (
	MinMemory = 16 << 20 // bytes
	MinPids   = 16
)

// maxPids is the most that a kernel takes as a number, which is as good as no
// limit.
const maxPids = 4 << 20

// raise returns what of r has a meaning for the holder, and nothing below what
// it needs. Devices, block I/O, huge pages and networks are not for a process
// that opens nothing.
func raise(r *specs.LinuxResources) *specs.LinuxResources {
	out := &specs.LinuxResources{}
	if c := r.CPU; c != nil {
		out.CPU = &specs.LinuxCPU{Shares: c.Shares, Quota: c.Quota, Period: c.Period, Cpus: c.Cpus, Mems: c.Mems}
		if c.Shares != nil && *c.Shares == 0 {
			out.CPU.Shares = nil
		}
		if c.Quota != nil && *c.Quota == 0 {
			out.CPU.Quota = nil
		}
		if c.Period != nil && *c.Period == 0 {
			out.CPU.Period = nil
		}
	}
	if m := r.Memory; m != nil {
		out.Memory = &specs.LinuxMemory{
			Limit:       atLeast(m.Limit, MinMemory),
			Reservation: atLeast(m.Reservation, 0),
			Swap:        atLeast(m.Swap, MinMemory),
		}
		if l, s := out.Memory.Limit, out.Memory.Swap; l != nil && s != nil && *s >= 0 && *s < *l {
			out.Memory.Swap = l
		}
	}
	if p := r.Pids; p != nil && p.Limit != nil {
		out.Pids = &specs.LinuxPids{Limit: atLeast(p.Limit, MinPids)}
		if out.Pids.Limit == nil {
			out.Pids = nil
		}
	}
	return out
}

// atLeast is v, but not below the floor. 0 is no setting and negative is no
// limit, which is -1 everywhere.
func atLeast(v *int64, floor int64) *int64 {
	switch {
	case v == nil || *v == 0:
		return nil
	case *v < 0:
		n := int64(-1)
		return &n
	default:
		n := max(*v, floor)
		return &n
	}
}

// toV2 converts limits that raise gave to those files of version 2 that exist.
func toV2(r *specs.LinuxResources, has func(file string) bool) *cgroup2.Resources {
	out := &cgroup2.Resources{}
	if c := r.CPU; c != nil {
		out.CPU = &cgroup2.CPU{}
		if c.Shares != nil && has("cpu.weight") {
			w := cgroup2.ConvertCPUSharesToCgroupV2Value(*c.Shares)
			out.CPU.Weight = &w
		}
		if (c.Quota != nil || c.Period != nil) && has("cpu.max") {
			quota := c.Quota
			if quota != nil && *quota < 0 {
				quota = nil
			}
			out.CPU.Max = cgroup2.NewCPUMax(quota, c.Period)
		}
		if has("cpuset.cpus") {
			out.CPU.Cpus, out.CPU.Mems = c.Cpus, c.Mems
		}
	}
	if m := r.Memory; m != nil {
		out.Memory = &cgroup2.Memory{}
		if has("memory.max") {
			out.Memory.Max = unlimited(m.Limit)
			out.Memory.Low = unlimited(m.Reservation)
		}
		if m.Swap != nil && has("memory.swap.max") {
			// Version 1 counts memory and swap together.
			switch {
			case *m.Swap < 0:
				out.Memory.Swap = unlimited(m.Swap)
			case m.Limit != nil && *m.Limit > 0:
				n := *m.Swap - *m.Limit
				out.Memory.Swap = &n
			}
		}
	}
	if p := r.Pids; p != nil && has("pids.max") {
		out.Pids = &cgroup2.Pids{Max: *p.Limit}
	}
	return out
}

// unlimited writes no limit as a number: the manager has no word for it.
func unlimited(v *int64) *int64 {
	if v == nil || *v >= 0 {
		return v
	}
	n := int64(math.MaxInt64)
	return &n
}

// v1Steps are updates that lead to r, which raise gave. The kernel wants memory
// with swap (memsw, now; 0 = not counted) never below memory alone, so which of
// the two goes first depends on the direction.
func v1Steps(r *specs.LinuxResources, memsw int64) []*specs.LinuxResources {
	if p := r.Pids; p != nil && *p.Limit < 0 {
		n := int64(maxPids)
		r.Pids = &specs.LinuxPids{Limit: &n}
	}
	m := r.Memory
	if m == nil {
		return []*specs.LinuxResources{r}
	}
	if memsw == 0 {
		m.Swap = nil
		return []*specs.LinuxResources{r}
	}
	if m.Swap == nil && m.Limit != nil && (*m.Limit < 0 || *m.Limit > memsw) {
		m.Swap = m.Limit
	}
	if s := m.Swap; s != nil && (*s < 0 || *s > memsw) {
		m.Swap = nil
		return []*specs.LinuxResources{{Memory: &specs.LinuxMemory{Swap: s}}, r}
	}
	return []*specs.LinuxResources{r}
}

// parseLimit reads a limit of version 1, which has no word for none either.
func parseLimit(s string) int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
