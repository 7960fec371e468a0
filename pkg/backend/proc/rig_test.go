// SPDX-License-Identifier: Apache-2.0

package proc_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/xcontainer/xcontainer/pkg/backend/control"
	"github.com/xcontainer/xcontainer/pkg/backend/proc"
	"github.com/xcontainer/xcontainer/pkg/backend/virtq/virtqtest"
	"github.com/xcontainer/xcontainer/pkg/backend/vsock/vsocktest"
	"github.com/xcontainer/xcontainer/pkg/noxs"
)

const (
	vsockDev = 0
	fsDev    = 1
)

// events are the event channels of a domain in memory.
type events struct {
	mu      sync.Mutex
	cond    sync.Cond
	pending map[int]bool // guest to host
	waiting bool         // all that came has been handled
	closed  bool
	toGuest map[int]func()
}

func newEvents() *events {
	e := &events{pending: map[int]bool{}, toGuest: map[int]func(){}}
	e.cond.L = &e.mu
	return e
}

// kick is the guest's event to the host.
func (e *events) kick(source int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pending[source] = true
	e.cond.Broadcast()
}

// handle has f called for the host's events of a source.
func (e *events) handle(source int, f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.toGuest[source] = f
}

func (e *events) Next(buf []int) ([]int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.pending) == 0 && !e.closed {
		e.waiting = true
		e.cond.Wait()
	}
	e.waiting = false
	if e.closed {
		return buf, fmt.Errorf("next: %w", os.ErrClosed)
	}
	for s := range e.pending {
		buf = append(buf, s)
	}
	clear(e.pending)
	return buf, nil
}

// idle says that every event has been handled, or none will be any more.
func (e *events) idle() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.closed || e.waiting && len(e.pending) == 0
}

func (e *events) Notify(source int) error {
	e.mu.Lock()
	f := e.toGuest[source]
	e.mu.Unlock()
	if f != nil {
		f()
	}
	return nil
}

func (e *events) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	e.cond.Broadcast()
	return nil
}

// rig is a whole back-end with a guest in memory and a shim.
type rig struct {
	t       *testing.T
	layout  noxs.Layout
	page    *noxs.Page
	pool    []byte
	console []byte
	ev      *events
	client  *control.Client
	out     *lockedBuffer
	ran     chan error // what Run returned
	mayFail bool       // Run may return an error: the guest breaks rules

	section *virtqtest.Section
	queues  []*virtqtest.Driver // of vsock
	guest   *vsocktest.Guest
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newRig(t *testing.T) *rig { return newRigWith(t, noxs.Standard()) }

// newRigWith has disks, which are the back-end's from then on.
func newRigWith(t *testing.T, l noxs.Layout, disks ...*os.File) *rig {
	t.Helper()
	goroutines := runtime.NumGoroutine()
	l.DoorbellPort = 9
	for i := range l.Devices {
		l.Devices[i].Port = uint32(10 + i)
	}
	raw, err := noxs.Encode(l, [noxs.SeedSize]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	mem := virtqtest.NewPool(t, 2)
	copy(mem, raw)
	r := &rig{
		t: t, layout: l, pool: virtqtest.NewPool(t, int(l.PoolPages)), console: mem[4096:],
		ev: newEvents(), out: &lockedBuffer{}, ran: make(chan error, 1),
	}
	if r.page, err = noxs.NewPage(mem); err != nil {
		t.Fatal(err)
	}
	d := l.Devices[vsockDev]
	r.section = virtqtest.NewSection(r.pool, int(d.SectionOff), int(d.OutPages), int(d.InPages))

	ours, theirs, err := control.Pair()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := control.Inherit(theirs)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		r.ran <- proc.Run(context.Background(), control.NewServer(conn), proc.Options{
			Open: func(cfg control.Config, files []*os.File) (proc.Handles, error) {
				for _, f := range files {
					f.Close()
				}
				return proc.Handles{Page: mem, Pool: r.pool, Console: r.console, Disks: disks, Events: r.ev, ConsoleOut: r.out}, nil
			},
			Logf: t.Logf,
		})
	}()
	r.client = control.NewClient(ours)
	if err := r.client.Start(ctx(t), control.Config{Layout: l}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.client.Close()
		if err := <-r.ran; err != nil && !r.mayFail {
			t.Errorf("run: %v", err)
		}
		if r.guest != nil {
			r.guest.Close()
		}
		waitFor(t, "goroutines to end", func() bool { return runtime.NumGoroutine() <= goroutines })
	})
	return r
}

func ctx(t *testing.T) context.Context {
	c, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return c
}

func waitFor(t *testing.T, what string, f func() bool) {
	t.Helper()
	for range 60000 {
		if f() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("no end of the wait for %s", what)
}

// request asks for a status as the guest's driver does, and returns host_status.
func (r *rig) request(dev int, status uint32) uint32 {
	r.t.Helper()
	seq := r.page.DriverRequest(dev, status)
	r.ev.kick(dev)
	waitFor(r.t, "an answer", func() bool { return r.page.AckSeq(dev) == seq })
	return r.page.HostStatus(dev)
}

// negotiate goes through the driver's steps up to FEATURES_OK.
func (r *rig) negotiate(dev int, features uint64) uint32 {
	r.t.Helper()
	if s := r.request(dev, 0); s != 0 {
		r.t.Fatalf("host_status %d after a reset", s)
	}
	r.page.DriverSetFeatures(dev, features)
	return r.request(dev, noxs.StatusAcknowledge|noxs.StatusDriver|noxs.StatusFeaturesOK)
}

const driverOK = noxs.StatusAcknowledge | noxs.StatusDriver | noxs.StatusFeaturesOK | noxs.StatusDriverOK

// upBare starts vsock without anybody behind it.
func (r *rig) upBare() {
	r.t.Helper()
	if s := r.negotiate(vsockDev, noxs.FeaturesOffered); s != 0 {
		r.t.Fatalf("host_status %d after features", s)
	}
	r.queues = nil
	for q, num := range r.layout.Devices[vsockDev].Queues {
		d := r.section.NewDriver(int(num), true)
		r.queues = append(r.queues, d)
		r.page.DriverSetQueue(vsockDev, q, d.Block())
	}
	if s := r.request(vsockDev, driverOK); s != 0 {
		r.t.Fatalf("host_status %d after start", s)
	}
}

// up starts vsock with a guest behind it.
func (r *rig) up() {
	r.t.Helper()
	r.upBare()
	r.guest = vsocktest.New(r.queues[0], r.queues[1], func() { r.ev.kick(vsockDev) })
	r.ev.handle(vsockDev, r.guest.Interrupt)
	r.guest.Interrupt()
}

// down resets vsock.
func (r *rig) down() {
	r.t.Helper()
	if s := r.request(vsockDev, 0); s != 0 {
		r.t.Fatalf("host_status %d after a reset", s)
	}
	r.ev.handle(vsockDev, nil)
	r.guest.Close()
	r.guest = nil
	for _, q := range r.queues {
		q.Close()
	}
}

func (r *rig) dial(port uint32) *net.UnixConn {
	r.t.Helper()
	c, err := r.client.Dial(ctx(r.t), port)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return c
}

func echo(c *vsocktest.Conn) {
	io.Copy(c, c)
	c.CloseWrite()
	c.Close()
}
