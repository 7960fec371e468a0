// SPDX-License-Identifier: Apache-2.0

package vsocktest

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/xcontainer/xcontainer/pkg/backend/virtq/virtqtest"
	"github.com/xcontainer/xcontainer/pkg/backend/vsock"
	"github.com/xcontainer/xcontainer/pkg/noxs"
)

const (
	bufAlloc  = 256 << 10 // what Linux gives a stream
	maxPacket = 64 << 10
	rxSize    = 4096 + 32
)

// ErrReset is the end of a stream that the host reset.
var ErrReset = errors.New("vsocktest: reset by the host")

type key struct{ guest, host uint32 }

// Guest is one guest's vsock.
type Guest struct {
	// Seen, when set before traffic begins, is called with each packet from
	// the host before it is handled; returning false drops it.
	Seen func(h vsock.Header) bool

	kick   func()
	signal chan struct{}
	stop   chan struct{}
	done   chan struct{}

	mu        sync.Mutex
	cond      sync.Cond
	rx, tx    *virtqtest.Driver
	conns     map[key]*Conn
	listeners map[uint32]func(*Conn)
	replies   []vsock.Header
	nextPort  uint32
	down      bool
}

// New runs a guest on two queues that the device is started with. kick tells
// the host to look at them.
func New(rx, tx *virtqtest.Driver, kick func()) *Guest {
	g := &Guest{
		kick: kick, signal: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
		rx: rx, tx: tx,
		conns: map[key]*Conn{}, listeners: map[uint32]func(*Conn){}, nextPort: 50000,
	}
	g.cond.L = &g.mu
	for g.addRx() == nil {
	}
	kick()
	go g.loop()
	return g
}

// Interrupt is what the host's notification calls. It does not block.
func (g *Guest) Interrupt() {
	select {
	case g.signal <- struct{}{}:
	default:
	}
}

// Close stops the guest; all of its streams fail.
func (g *Guest) Close() {
	close(g.stop)
	<-g.done
	g.mu.Lock()
	defer g.mu.Unlock()
	g.down = true
	g.cond.Broadcast()
}

// Streams is the number of streams that the guest knows of.
func (g *Guest) Streams() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.conns)
}

func (g *Guest) addRx() error {
	_, err := g.rx.Add(nil, []int{rxSize})
	return err
}

func (g *Guest) loop() {
	defer close(g.done)
	for {
		g.mu.Lock()
		for {
			for g.pollLocked() {
			}
			rx, tx := g.rx.Arm(), g.tx.Arm()
			if !rx && !tx {
				break
			}
		}
		kick := g.rx.NeedKick()
		g.mu.Unlock()
		if kick {
			g.kick()
		}
		select {
		case <-g.stop:
			return
		case <-g.signal:
		}
	}
}

// pollLocked does one round of work and says whether there was any.
func (g *Guest) pollLocked() bool {
	work := false
	for _, _, ok := g.tx.Used(); ok; _, _, ok = g.tx.Used() {
		work = true
	}
	if work {
		g.cond.Broadcast()
	}
	g.flushLocked()
	if _, b, ok := g.rx.Used(); ok {
		work = true
		g.addRx()
		if len(b) < vsock.HeaderSize {
			panic("vsocktest: short packet from the device")
		}
		g.packetLocked(vsock.DecodeHeader((*[vsock.HeaderSize]byte)(b)), b[vsock.HeaderSize:])
	}
	return work
}

func (g *Guest) packetLocked(h vsock.Header, data []byte) {
	if g.Seen != nil && !g.Seen(h) {
		return
	}
	if int(h.Len) != len(data) {
		panic(fmt.Sprintf("vsocktest: packet of %d bytes says %d", len(data), h.Len))
	}
	k := key{h.DstPort, h.SrcPort}
	c := g.conns[k]
	switch {
	case c == nil && h.Op == vsock.OpRequest && g.listeners[k.guest] != nil:
		c = g.addLocked(k)
		c.peerAlloc, c.peerFwd = h.BufAlloc, h.FwdCnt
		g.replies = append(g.replies, c.headerLocked(vsock.OpResponse, 0, 0))
		go g.listeners[k.guest](c)
	case c == nil:
		if h.Op != vsock.OpReset {
			g.replies = append(g.replies, vsock.Header{
				SrcCID: noxs.GuestCID, DstCID: noxs.HostCID, SrcPort: k.guest, DstPort: k.host,
				Type: vsock.TypeStream, Op: vsock.OpReset,
			})
		}
	default:
		c.packetLocked(h, data)
	}
	g.cond.Broadcast()
}

func (g *Guest) addLocked(k key) *Conn {
	c := &Conn{g: g, key: k}
	g.conns[k] = c
	return c
}

// Listen has accept called on a goroutine of its own for each stream to port.
func (g *Guest) Listen(port uint32, accept func(*Conn)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.listeners[port] = accept
}

// Dial opens a stream to a port of the host.
func (g *Guest) Dial(port uint32) (*Conn, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.nextPort++
	c := g.addLocked(key{g.nextPort, port})
	c.connecting = true
	if err := g.sendWaitLocked(c.headerLocked(vsock.OpRequest, 0, 0), nil); err != nil {
		return nil, err
	}
	for c.connecting && c.err == nil && !g.down {
		g.cond.Wait()
	}
	if g.down {
		return nil, io.ErrClosedPipe
	}
	return c, c.err
}

// Send sends any packet. It waits for room in the ring.
func (g *Guest) Send(h vsock.Header, data []byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sendWaitLocked(h, data)
}

// flushLocked sends the replies that are due, as far as there is room.
func (g *Guest) flushLocked() bool {
	for len(g.replies) > 0 {
		if g.sendLocked(g.replies[0], nil) != nil {
			return false
		}
		g.replies = g.replies[1:]
	}
	return true
}

func (g *Guest) sendWaitLocked(h vsock.Header, data []byte) error {
	for !g.down {
		if !g.flushLocked() {
			g.cond.Wait()
			continue
		}
		if err := g.sendLocked(h, data); !errors.Is(err, virtqtest.ErrNoSpace) {
			return err
		}
		g.cond.Wait()
	}
	return io.ErrClosedPipe
}

func (g *Guest) sendLocked(h vsock.Header, data []byte) error {
	var b [vsock.HeaderSize]byte
	h.Encode(&b)
	out := [][]byte{b[:]}
	if len(data) > 0 {
		out = append(out, data)
	}
	if _, err := g.tx.Add(out, nil); err != nil {
		return err
	}
	if g.tx.NeedKick() {
		g.kick()
	}
	return nil
}
