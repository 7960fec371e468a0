// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"sync"
	"time"
)

// gateState is whether calls reach the guest.
//
//	open ──Pause──> pausing ──> paused ──Resume──> resuming ──> open
//	  ^                │           └──init is to end──^
//	  └─ a call fails ─┘
type gateState int

const (
	gateOpen gateState = iota
	gatePausing
	gatePaused
	gateResuming
)

// gate keeps calls of the agent and pauses of its domain apart. While it is open
// calls go through; a pause closes it and waits for those under way; a call that
// comes to a closed gate is refused, or kept until it opens.
type gate struct {
	mu      sync.Mutex
	state   gateState     // guarded by mu
	over    bool          // guarded by mu: init has ended or is to end, so no more pauses
	calls   int           // guarded by mu: under way
	kept    []kept        // guarded by mu
	changed chan struct{} // guarded by mu; closed and renewed when state, over, or calls to 0 changed
}

// kept is a call for later. key says what it is about.
type kept struct {
	key string
	do  func()
}

func newGate() *gate { return &gate{changed: make(chan struct{})} }

// change tells those that wait. The caller holds mu.
func (g *gate) change() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// look returns the state and a channel that is closed when it changes.
func (g *gate) look() (gateState, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.state, g.changed
}

// enter begins a call of the agent. With ok the caller calls leave after it.
func (g *gate) enter() (leave func(), ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.enterLocked()
}

func (g *gate) enterLocked() (leave func(), ok bool) {
	if g.state != gateOpen {
		return nil, false
	}
	g.calls++
	return sync.OnceFunc(g.leave), true
}

// enterOrKeep is enter, and if that does not go, keeps do until it does. Of
// several kept calls with one key the last is done.
func (g *gate) enterOrKeep(key string, do func()) (leave func(), ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if leave, ok := g.enterLocked(); ok {
		return leave, true
	}
	for i := range g.kept {
		if g.kept[i].key == key {
			g.kept[i].do = do
			return nil, false
		}
	}
	g.kept = append(g.kept, kept{key, do})
	return nil, false
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls--
	if g.calls == 0 {
		g.change()
	}
}

// flush does the calls that were kept, as long as the gate is open.
func (g *gate) flush() {
	for {
		g.mu.Lock()
		if g.state != gateOpen || len(g.kept) == 0 {
			g.mu.Unlock()
			return
		}
		k := g.kept[0]
		g.kept = g.kept[1:]
		g.calls++
		g.mu.Unlock()
		k.do()
		g.leave()
	}
}

// idle returns when no call is under way, ctx has ended, or the gate is over.
func (g *gate) idle(ctx context.Context) {
	for {
		g.mu.Lock()
		done, changed := g.calls == 0 || g.over, g.changed
		g.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// move goes from one state to the next; it is not ok if the gate is not at the
// first. It says whether the gate is over.
func (g *gate) move(from, to gateState) (over, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state != from {
		return g.over, false
	}
	g.state = to
	g.change()
	return g.over, true
}

// shut ends a pause that has succeeded, unless the gate is over by now. published
// is called before anybody can see an exit.
func (g *gate) shut(published func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.over {
		return false
	}
	g.state = gatePaused
	published()
	g.change()
	return true
}

// finish makes the gate over: there are no more pauses, and what was kept is of
// no use. It returns when the guest runs, which it has resume see to.
func (g *gate) finish(resume func() error) error {
	for {
		g.mu.Lock()
		if !g.over {
			g.over = true
			g.change()
		}
		g.kept = nil
		changed := g.changed
		switch g.state {
		case gateOpen:
			g.mu.Unlock()
			return nil
		case gatePaused:
			g.state = gateResuming
			g.change()
			g.mu.Unlock()
			err := resume()
			// A guest that cannot run on has ended, or the caller ends it.
			g.move(gateResuming, gateOpen)
			return err
		}
		g.mu.Unlock()
		<-changed // a pause gives up, or a resume comes through: both are quick
	}
}

// settle returns when no resume is half done: its event comes before what the
// guest's processes do next.
func (g *gate) settle() {
	for {
		state, changed := g.look()
		if state != gateResuming {
			return
		}
		<-changed
	}
}

// timeout is context.WithTimeout, but the time in which the guest is paused does
// not count.
func (g *gate) timeout(parent context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	go func() {
		for {
			state, changed := g.look()
			begin := time.Now()
			timer := time.NewTimer(d)
			expired := timer.C
			if state == gatePaused {
				expired = nil
			}
			select {
			case <-ctx.Done():
				timer.Stop()
				return
			case <-expired:
				cancel(context.DeadlineExceeded)
				return
			case <-changed:
				timer.Stop()
				if state != gatePaused {
					d -= time.Since(begin)
				}
			}
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}
