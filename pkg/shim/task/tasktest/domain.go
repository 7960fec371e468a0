// SPDX-License-Identifier: Apache-2.0

package tasktest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/xcontainer/xcontainer/pkg/shim/task"
)

// domain is what the hypervisor knows of a guest.
type domain struct {
	mu     sync.Mutex
	paused chan struct{} // guarded by mu; nil when running, closed by resume
	usage  task.Usage    // guarded by mu
	weight uint16        // guarded by mu
	cap    uint16        // guarded by mu
}

// do does one call of the hypervisor.
func (g *Guest) do(step string, f func(d *domain)) error {
	if err := g.world.fail(step); err != nil {
		return err
	}
	g.mu.Lock()
	ended := g.gone || g.closed
	g.mu.Unlock()
	if ended {
		return fmt.Errorf("domain %d has gone", g.DomID)
	}
	g.dom.mu.Lock()
	defer g.dom.mu.Unlock()
	f(&g.dom)
	return nil
}

// Pause implements task.Guest: the agent answers nothing, and what of a process
// runs is stopped.
func (g *Guest) Pause(context.Context) error {
	return g.do("pause", func(d *domain) {
		if d.paused == nil {
			d.paused = make(chan struct{})
			g.agent.freeze(true)
		}
	})
}

// Resume implements task.Guest.
func (g *Guest) Resume(context.Context) error {
	return g.do("resume", func(d *domain) {
		if d.paused != nil {
			close(d.paused)
			d.paused = nil
			g.agent.freeze(false)
		}
	})
}

// Paused says whether the domain is.
func (g *Guest) Paused() bool { return g.frozen() != nil }

// frozen is closed when a paused guest runs again; nil if it is not paused.
func (g *Guest) frozen() <-chan struct{} {
	g.dom.mu.Lock()
	defer g.dom.mu.Unlock()
	return g.dom.paused
}

// SetMaxMemory implements task.Guest.
func (g *Guest) SetMaxMemory(_ context.Context, bytes uint64) error {
	return g.do("setmaxmemory", func(d *domain) { d.usage.MaxMemoryBytes = bytes })
}

// SetSchedule implements task.Guest.
func (g *Guest) SetSchedule(_ context.Context, weight, cap uint16) error {
	return g.do("setschedule", func(d *domain) { d.weight, d.cap = weight, cap })
}

// Schedule is the scheduler's weight and cap.
func (g *Guest) Schedule() (weight, cap uint16) {
	g.dom.mu.Lock()
	defer g.dom.mu.Unlock()
	return g.dom.weight, g.dom.cap
}

// Usage implements task.Guest. Time goes on by a millisecond with each call.
func (g *Guest) Usage(context.Context) (u task.Usage, err error) {
	err = g.do("usage", func(d *domain) {
		d.usage.CPUTime += time.Millisecond
		u = d.usage
	})
	return u, err
}

// Use adds to what the domain has used.
func (g *Guest) Use(f func(*task.Usage)) {
	g.dom.mu.Lock()
	defer g.dom.mu.Unlock()
	f(&g.dom.usage)
}
