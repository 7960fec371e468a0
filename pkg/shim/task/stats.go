// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"sync"
	"time"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/log"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
	"github.com/xcontainer/xcontainer/pkg/shim/statsapi"
)

const (
	// statsTimeout bounds how long Stats waits for the agent; after it the last
	// numbers count. fetchTimeout ends the call itself.
	statsTimeout = 2 * time.Second
	fetchTimeout = 10 * time.Second
	usageTimeout = 2 * time.Second
)

// numbers are a container's at one moment: the guest's, which may be wrong, and
// the domain's, which are not.
type numbers struct {
	guest  *guestNumbers // nil if the agent never answered
	domain *Usage        // nil if the hypervisor never answered

	memoryLimit uint64 // bytes; 0 = none
	pidsLimit   uint64 // 0 = none
}

// guestNumbers is what is taken of the agent's answer.
type guestNumbers struct {
	cpu, memory, events map[string]uint64 // known names only

	memoryCurrent, memoryPeak, pids uint64

	syscalls *statsapi.Syscalls // nil if the agent does not tell
}

// Names of cgroup v2 files that metrics have a place for.
var (
	cpuNames    = []string{"usage_usec", "user_usec", "system_usec", "nr_periods", "nr_throttled", "throttled_usec", "nr_bursts", "burst_usec"}
	eventNames  = []string{"low", "high", "max", "oom", "oom_kill", "oom_group_kill"}
	memoryBytes = []string{"anon", "file", "kernel_stack", "slab", "sock", "shmem", "file_mapped", "file_dirty", "file_writeback", "anon_thp",
		"inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable", "slab_reclaimable", "slab_unreclaimable"}
	memoryCounts = []string{"pgfault", "pgmajfault", "workingset_refault", "workingset_activate", "workingset_nodereclaim",
		"pgrefill", "pgscan", "pgsteal", "pgactivate", "pgdeactivate", "pglazyfree", "pglazyfreed", "thp_fault_alloc", "thp_collapse_alloc"}
)

// takeNumbers copies what is of use. No part of a memory is larger than the
// whole.
func takeNumbers(r *agentapi.ContainerStatsResponse) *guestNumbers {
	n := &guestNumbers{
		cpu:           pick(r.Cpu, cpuNames),
		memory:        pick(r.Memory, memoryCounts),
		events:        pick(r.MemoryEvents, eventNames),
		memoryCurrent: r.MemoryCurrent,
		memoryPeak:    r.MemoryPeak,
		pids:          r.PidsCurrent,
		syscalls:      takeSyscalls(r.Syscalls),
	}
	for name, v := range pick(r.Memory, memoryBytes) {
		n.memory[name] = min(v, n.memoryCurrent)
	}
	return n
}

func pick(m map[string]uint64, names []string) map[string]uint64 {
	out := make(map[string]uint64, len(names))
	for _, name := range names {
		if v, ok := m[name]; ok {
			out[name] = v
		}
	}
	return out
}

// statsCache has the last numbers for when there are no new ones: the guest is
// paused, has ended, or does not answer.
type statsCache struct {
	mu       sync.Mutex
	guest    *guestNumbers // guarded by mu
	domain   *Usage        // guarded by mu
	fetching chan struct{} // guarded by mu; nil, or closed when the call under way ends
}

// stats are the container's numbers, in bounded time.
func (c *container) stats(ctx context.Context) (*anypb.Any, error) {
	c.fetchGuest(ctx)
	c.fetchDomain(ctx)
	limits := c.currentLimits()
	n := numbers{memoryLimit: limits.MemoryLimit(), pidsLimit: limits.PidsLimit()}
	c.numbers.mu.Lock()
	n.guest, n.domain = c.numbers.guest, c.numbers.domain
	c.numbers.mu.Unlock()
	if n.guest == nil && n.domain == nil {
		return nil, notFound("container %s has no numbers", c.id)
	}
	return n.metrics(cgroups.Mode() == cgroups.Unified) // what clients of this host expect
}

// fetchGuest asks the agent, once however many want to know.
func (c *container) fetchGuest(ctx context.Context) {
	s := &c.numbers
	s.mu.Lock()
	done := s.fetching
	if done == nil {
		if leave, ok := c.gate.enter(); ok {
			done = make(chan struct{})
			s.fetching = done
			go c.fetch(done, leave)
		}
	}
	s.mu.Unlock()
	if done == nil {
		return
	}
	timeout := time.NewTimer(statsTimeout)
	defer timeout.Stop()
	select {
	case <-done:
	case <-timeout.C:
	case <-ctx.Done():
	}
}

func (c *container) fetch(done chan struct{}, leave func()) {
	defer leave()
	ctx, cancel := context.WithTimeout(c.init.waitCtx, fetchTimeout)
	defer cancel()
	r, err := c.guest.Agent().ContainerStats(ctx, &agentapi.ContainerStatsRequest{Id: c.id})
	c.numbers.mu.Lock()
	defer c.numbers.mu.Unlock()
	if err == nil {
		c.numbers.guest = takeNumbers(r)
	} else if c.init.waitCtx.Err() == nil {
		log.L.WithError(fromAgent(err)).WithField("id", c.id).Warn("no numbers from the agent")
	}
	c.numbers.fetching = nil
	close(done)
}

// fetchDomain asks the hypervisor, unless the domain has gone.
func (c *container) fetchDomain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, usageTimeout)
	defer cancel()
	u, err := c.guest.Usage(ctx)
	if err != nil {
		if st, _ := c.init.current(); st != stopped {
			log.G(ctx).WithError(err).WithField("id", c.id).Warn("no numbers of the domain")
		}
		return
	}
	c.numbers.mu.Lock()
	defer c.numbers.mu.Unlock()
	c.numbers.domain = &u
}
