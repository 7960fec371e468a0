// SPDX-License-Identifier: Apache-2.0

package vsock

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/backend/virtio"
	"github.com/xcontainer/xcontainer/pkg/backend/virtq"
)

// Bounds on what a guest can make the process hold.
const (
	maxConns      = 1024 // streams, those of the host included
	maxGuestConns = 768  // streams at which the guest can open no more
	maxResets     = 512  // answers to packets without a stream; then its packets wait

	bufLarge    = 128 << 10 // credit of a stream
	bufSmall    = 8 << 10   // credit when all streams together have maxPromised
	maxPromised = 8 << 20
)

// Queues of the device (virtio 1.2, 5.10.2). The names are the guest's.
const (
	queueRx = 0
	queueTx = 1
)

var (
	// ErrDown says that the guest's driver does not run (yet).
	ErrDown = fmt.Errorf("the guest's vsock driver is not running: %w", unix.ENOTCONN)
	// ErrTooMany says that no further stream fits.
	ErrTooMany = fmt.Errorf("too many streams: %w", unix.ENOBUFS)
)

var _ virtio.Device = (*Device)(nil)

// Stats counts since the device was made.
type Stats struct {
	Conns      int    `json:"conns"`
	BytesIn    uint64 `json:"bytesIn"`  // guest to host
	BytesOut   uint64 `json:"bytesOut"` // host to guest
	PacketsIn  uint64 `json:"packetsIn"`
	PacketsOut uint64 `json:"packetsOut"`
}

// Device is the vsock device of one guest. Streams do not outlive a Stop;
// listeners do.
type Device struct {
	work chan struct{} // poke: there may be something to send

	mu        sync.Mutex
	run       *run // nil unless started
	conns     map[key]*Conn
	listeners map[uint32]func(*Conn)
	out       []*Conn  // streams with something to send, in turn
	resets    []Header // for packets that belong to no stream
	live      int      // streams that are not both forgotten and closed
	promised  int      // sum of their credit
	nextPort  uint32
	stats     Stats
}

// run is one life of the device between Start and Stop.
type run struct {
	rx, tx         *virtq.Queue
	env            virtio.Env
	rxKick, txKick chan struct{}
	stop           chan struct{}
	wg             sync.WaitGroup
}

// New returns a device that waits for Start.
func New() *Device {
	return &Device{
		work:      make(chan struct{}, 1),
		conns:     map[key]*Conn{},
		listeners: map[uint32]func(*Conn){},
		nextPort:  1 << 20,
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Start implements virtio.Device.
func (d *Device) Start(queues []*virtq.Queue, _ uint64, env virtio.Env) error {
	if len(queues) <= queueTx || queues[queueRx] == nil || queues[queueTx] == nil {
		return fmt.Errorf("vsock: %w: the driver uses no rx or no tx queue", virtq.ErrGuest)
	}
	r := &run{
		rx: queues[queueRx], tx: queues[queueTx], env: env,
		rxKick: make(chan struct{}, 1), txKick: make(chan struct{}, 1),
		stop: make(chan struct{}),
	}
	d.mu.Lock()
	d.run = r
	d.mu.Unlock()
	r.wg.Add(2)
	go func() { defer r.wg.Done(); d.loop(r, d.sendLoop) }()
	go func() { defer r.wg.Done(); d.loop(r, d.receiveLoop) }()
	return nil
}

// Kick implements virtio.Device.
func (d *Device) Kick() {
	d.mu.Lock()
	r := d.run
	d.mu.Unlock()
	if r != nil {
		poke(r.rxKick)
		poke(r.txKick)
	}
}

// Stop implements virtio.Device. Every stream is reset.
func (d *Device) Stop() {
	d.mu.Lock()
	r := d.run
	d.run = nil
	d.mu.Unlock()
	if r == nil {
		return
	}
	close(r.stop)
	r.wg.Wait()
	d.mu.Lock()
	var calls []func()
	for _, c := range d.conns {
		c.err = ErrReset
		c.connecting = false
		c.cond.Broadcast()
		d.forgetLocked(c)
		calls = append(calls, c.refuseLocked())
	}
	d.out, d.resets = nil, nil
	d.mu.Unlock()
	for _, f := range calls {
		f()
	}
}

// Listen has accept called, on a goroutine of its own, with each stream that
// the guest opens to port. Accept owns the stream. It fails with EADDRINUSE
// for a port that is listened on.
func (d *Device) Listen(port uint32, accept func(*Conn)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.listeners[port] != nil {
		return fmt.Errorf("vsock: listen on port %d: %w", port, unix.EADDRINUSE)
	}
	d.listeners[port] = accept
	return nil
}

// Unlisten refuses further streams to port.
func (d *Device) Unlisten(port uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.listeners, port)
}

// Dial opens a stream to a port of the guest. It waits for the guest's answer:
// ECONNREFUSED when nobody listens there, ErrDown when the driver does not
// run, ErrReset when it stops meanwhile, the context's error when that ends.
func (d *Device) Dial(ctx context.Context, port uint32) (*Conn, error) {
	c, err := d.dial(port)
	if err == nil {
		stop := context.AfterFunc(ctx, func() { c.abort(context.Cause(ctx)) })
		d.mu.Lock()
		for c.connecting {
			c.cond.Wait()
		}
		err = c.err
		d.mu.Unlock()
		if !stop() && err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			c.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("vsock: dial port %d: %w", port, err)
	}
	return c, nil
}

func (d *Device) dial(port uint32) (*Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.run == nil {
		return nil, ErrDown
	}
	if d.live >= maxConns {
		return nil, ErrTooMany
	}
	k := key{d.nextPort, port}
	for d.conns[k] != nil || d.listeners[k.host] != nil {
		k.host++
	}
	d.nextPort = max(k.host+1, 1<<20) // wraps to where it began
	c := d.addLocked(k)
	c.connecting = true
	c.tellLocked(ctlRequest)
	return c, nil
}

// Stats returns the counters.
func (d *Device) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.stats
	s.Conns = d.live
	return s
}

func (d *Device) addLocked(k key) *Conn {
	c := &Conn{d: d, key: k, bufAlloc: bufLarge}
	c.cond.L = &d.mu
	if d.promised+bufLarge > maxPromised {
		c.bufAlloc = bufSmall
	}
	d.promised += int(c.bufAlloc)
	d.live++
	d.conns[k] = c
	return c
}

// forgetLocked takes c out of the device: packets for it have no stream any
// more. Bytes that have arrived stay readable.
func (d *Device) forgetLocked(c *Conn) {
	if c.gone {
		return
	}
	c.gone = true
	c.ctl = 0
	delete(d.conns, c.key)
	d.settleLocked(c)
}

// settleLocked gives up what a stream that is forgotten and closed has counted
// for.
func (d *Device) settleLocked(c *Conn) {
	if c.gone && c.closed && c.bufAlloc > 0 {
		d.promised -= int(c.bufAlloc)
		c.bufAlloc = 0
		d.live--
	}
}

func (d *Device) queueLocked(c *Conn) {
	if c.queued || c.gone {
		return
	}
	c.queued = true
	d.out = append(d.out, c)
	poke(d.work)
}
