// SPDX-License-Identifier: Apache-2.0

package libos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"github.com/containerd/ttrpc"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
	"github.com/xcontainer/xcontainer/pkg/noxs"
	"github.com/xcontainer/xcontainer/pkg/xen"
)

// Stream is one stdio stream of a process in the guest.
type Stream interface {
	net.Conn
	CloseWrite() error
}

// Guest is a running library OS: its domain, its back-end process and the
// connection to its agent. It owns all three; Close ends them.
type Guest struct {
	host    *xen.Host
	dom     *xen.Domain
	backend *backendProcess
	console *console
	hello   net.Conn
	agent   agentapi.AgentService
	rpc     *ttrpc.Client
	streams atomic.Uint64

	dead      chan struct{}
	stopWatch context.CancelFunc
	watchD    chan struct{} // closed when the watcher has returned

	mu      sync.Mutex
	death   error // guarded by mu; set before dead is closed
	closing bool  // guarded by mu: Close has begun, the end is no news

	closeMu sync.Mutex
	closed  bool // guarded by closeMu: nothing is left to close
}

// Agent is the service of the agent in the guest.
func (g *Guest) Agent() agentapi.AgentService { return g.agent }

// DomID is the domain's number on this host.
func (g *Guest) DomID() uint16 { return uint16(g.dom.ID()) }

// BackendPID is the back-end process on this host.
func (g *Guest) BackendPID() int { return g.backend.pid }

// Stream opens one more stdio stream; number is its name in agentapi.Streams.
// The caller owns conn.
func (g *Guest) Stream(ctx context.Context) (number uint64, conn Stream, err error) {
	c, err := g.backend.client.Dial(ctx, agentapi.PortStream)
	if err != nil {
		return 0, nil, fmt.Errorf("open a stdio stream: %w", err)
	}
	number = g.streams.Add(1)
	h := streamHeader(number)
	if _, err := c.Write(h[:]); err != nil {
		c.Close()
		return 0, nil, fmt.Errorf("open a stdio stream: write its header: %w", err)
	}
	return number, c, nil
}

// Dead is closed when the domain or its back-end has gone without Close.
func (g *Guest) Dead() <-chan struct{} { return g.dead }

// Death says how the guest ended. It is nil until Dead is closed; afterwards it
// matches one of ErrCrashed, ErrDestroyed, ErrStopped and ErrBackend.
func (g *Guest) Death() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.death
}

// Close ends the domain and its back-end process. It does not sync: ask the
// agent before. Legal in any state and any number of times; after an error it
// tries again.
func (g *Guest) Close(ctx context.Context) error {
	g.closeMu.Lock()
	defer g.closeMu.Unlock()
	if g.closed {
		return nil
	}
	if err := g.close(ctx); err != nil {
		return err
	}
	g.closed = true
	return g.host.Close()
}

// close works at any stage of a build: what was not made yet is nil.
func (g *Guest) close(ctx context.Context) error {
	g.mu.Lock()
	g.closing = true
	g.mu.Unlock()
	if g.stopWatch != nil {
		g.stopWatch()
		<-g.watchD
	}
	// No more of the guest's doing, then the back-end: a domain whose frames
	// are mapped stays a zombie. Whoever wanted a sync has had it. What is
	// wrong with the domain Destroy will say.
	if g.dom != nil {
		_ = g.dom.Pause()
	}
	if g.rpc != nil {
		g.rpc.Close()
	}
	if g.hello != nil {
		g.hello.Close()
	}
	if g.backend != nil {
		g.backend.stop()
	}
	if g.dom != nil {
		if err := g.dom.Destroy(ctx); err != nil {
			return err
		}
	}
	if g.console != nil {
		<-g.console.done
	}
	return nil
}

// watchDeath waits for the end of the domain or of its back-end, whichever is
// first, records it, and ends what is left, so that no guest runs without
// devices and none stays as a zombie until Close.
func (g *Guest) watchDeath(ctx context.Context) {
	defer close(g.watchD)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-g.backend.done:
			cancel()
		case <-g.backend.client.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	reason, err := g.watchDomain(ctx)
	g.mu.Lock()
	closing := g.closing
	g.mu.Unlock()
	switch {
	case closing:
		return
	case err == nil:
		g.die(g.exitError(reason))
	default:
		g.die(g.backendEnded())
	}
	g.backend.stop()
	destroyCtx, stop := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer stop()
	// Close tries again, and reports.
	_ = g.dom.Destroy(destroyCtx)
}

// watchDomain waits for the domain's end. When the guest says that it ends, it
// looks more often for a while: the hint is the guest's and may be a lie.
func (g *Guest) watchDomain(ctx context.Context) (xen.Reason, error) {
	interval := watchInterval
	for {
		look, cancel := context.WithCancel(ctx)
		if interval == hintInterval {
			look, cancel = context.WithTimeout(ctx, hintTime)
		}
		hinted := make(chan bool, 1)
		go func() { hinted <- g.awaitHint(look); cancel() }()
		reason, err := g.dom.Watch(look, interval)
		over := look.Err() != nil && ctx.Err() == nil
		cancel()
		hint := <-hinted
		if err == nil || !over {
			return reason, err
		}
		interval = watchInterval
		if hint {
			interval = hintInterval
		}
	}
}

// awaitHint reports whether the guest says that it ends before ctx does.
func (g *Guest) awaitHint(ctx context.Context) bool {
	for {
		select {
		case state := <-g.backend.client.GuestState():
			if state >= noxs.GuestPanic {
				return true
			}
		case <-ctx.Done():
			return false
		}
	}
}

func (g *Guest) exitError(r xen.Reason) error {
	switch r {
	case xen.Destroyed:
		return deathError(ErrDestroyed, "", "")
	case xen.Crash:
		return g.crashError(ErrCrashed, "")
	default:
		return g.crashError(ErrStopped, r.String())
	}
}

func (g *Guest) crashError(kind error, detail string) error {
	last := g.lastLine()
	return &CrashError{Err: deathError(kind, detail, last), Console: g.console.Tail()}
}

// lastLine waits until the back-end has passed on the end of the kernel log.
func (g *Guest) lastLine() string {
	g.backend.client.Drain()
	g.backend.stop()
	<-g.console.done
	return g.console.Last()
}

func (g *Guest) die(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closing || g.death != nil {
		return
	}
	g.death = err
	close(g.dead)
}

// backendEnded says which of the two went first: a dying domain can take its
// back-end along.
func (g *Guest) backendEnded() error {
	switch info, err := g.dom.Info(); {
	case errors.Is(err, xen.ErrNotFound) || err == nil && info.State == xen.Dying:
		return g.exitError(xen.Destroyed)
	case err == nil && info.State == xen.Shutdown:
		return g.exitError(info.Reason)
	}
	g.backend.stop()
	return deathError(ErrBackend, g.backend.reason(), "")
}
