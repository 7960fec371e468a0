// SPDX-License-Identifier: Apache-2.0

package xentest

import (
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/xen"
	"github.com/xcontainer/xcontainer/pkg/xen/abi"
)

// port is a guest's end of an event channel.
type port struct {
	near *Events // who has bound it, nil = nobody
	num  abi.Port
	dead bool   // the domain has been destroyed
	wake func() // what an event from the host does, nil = nothing
}

// Events is a descriptor of the machine's event channel device.
type Events struct {
	m *Machine
	f *os.File

	mu       sync.Mutex
	bound    map[abi.Port]*port
	pending  map[abi.Port]bool
	masked   map[abi.Port]bool
	deadline time.Time
	wake     chan struct{}
	only     abi.DomID
	limited  bool
}

var _ xen.Events = (*Events)(nil)

// AllocPort makes a guest's end.
func (m *Machine) AllocPort(id abi.DomID) (abi.Port, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.find("alloc_unbound", id)
	if err != nil {
		return 0, err
	}
	num := abi.Port(len(d.ports) + 1)
	if uint32(num) > d.limits.MaxEvtchnPort {
		return 0, refuse(unix.ENOSPC, "alloc_unbound: %d ports", len(d.ports))
	}
	d.ports[num] = &port{}
	return num, nil
}

// OpenEvents opens a descriptor.
func (m *Machine) OpenEvents() (xen.Events, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin("open events"); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	e := &Events{m: m, f: f, bound: map[abi.Port]*port{}, pending: map[abi.Port]bool{},
		masked: map[abi.Port]bool{}, wake: make(chan struct{}, 1)}
	m.events[f] = e
	return e, nil
}

// Channels finds the descriptor behind a file of BackendHandles.
func (m *Machine) Channels(f *os.File) *Events {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.events[f]
}

// Bind refuses ports that are bound by an open descriptor.
func (e *Events) Bind(remote abi.DomID, far abi.Port) (abi.Port, error) {
	e.m.mu.Lock()
	defer e.m.mu.Unlock()
	d, err := e.m.find("bind_interdomain", remote)
	if err != nil {
		return 0, err
	}
	if e.limited && e.only != remote {
		return 0, refuse(unix.EACCES, "bind: restricted to domain %d", e.only)
	}
	p, ok := d.ports[far]
	if !ok || p.near.open() {
		return 0, refuse(unix.EINVAL, "bind: port %d is not free", far)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	local := abi.Port(len(e.bound) + 100)
	e.bound[local] = p
	p.near, p.num = e, local
	e.raiseLocked(local)
	return local, nil
}

// open tells whether the descriptor's file is still open.
func (e *Events) open() bool {
	if e == nil {
		return false
	}
	_, err := e.f.Stat()
	return err == nil
}

// Restrict is as evtchn.Channels.
func (e *Events) Restrict(dom abi.DomID) error {
	e.m.mu.Lock()
	defer e.m.mu.Unlock()
	if err := e.m.begin("restrict events"); err != nil {
		return err
	}
	e.only, e.limited = dom, true
	return nil
}

// File is the descriptor.
func (e *Events) File() *os.File { return e.f }

// Close ends all ports.
func (e *Events) Close() error { return e.f.Close() }

// raise makes an event pending.
func (e *Events) raise(local abi.Port) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.raiseLocked(local)
}

func (e *Events) raiseLocked(local abi.Port) {
	e.pending[local] = true
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Notify reaches the guest, if it is still there.
func (e *Events) Notify(local abi.Port) error {
	e.m.mu.Lock()
	defer e.m.mu.Unlock()
	e.mu.Lock()
	p, ok := e.bound[local]
	e.mu.Unlock()
	if !ok {
		return refuse(unix.ENOTCONN, "notify: port %d", local)
	}
	if p.wake != nil && !p.dead {
		p.wake()
	}
	return nil
}

// SetDeadline bounds Pending.
func (e *Events) SetDeadline(t time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.deadline = t
	return nil
}

// Pending waits for events and masks their ports.
func (e *Events) Pending(ports []abi.Port) (int, error) {
	for {
		e.mu.Lock()
		n := 0
		for p := range e.pending {
			if n < len(ports) && !e.masked[p] {
				delete(e.pending, p)
				e.masked[p] = true
				ports[n] = p
				n++
			}
		}
		deadline := e.deadline
		e.mu.Unlock()
		if n > 0 {
			return n, nil
		}
		wait := time.Hour
		if !deadline.IsZero() {
			wait = time.Until(deadline)
		}
		select {
		case <-e.wake:
		case <-time.After(max(wait, 0)):
			return 0, fmt.Errorf("xentest: wait for events: %w", os.ErrDeadlineExceeded)
		}
	}
}

// Unmask lets events through again.
func (e *Events) Unmask(ports ...abi.Port) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range ports {
		delete(e.masked, p)
		if e.pending[p] {
			e.raiseLocked(p)
		}
	}
	return nil
}
