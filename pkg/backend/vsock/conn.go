// SPDX-License-Identifier: Apache-2.0

package vsock

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/noxs"
)

// ErrReset is why a stream ended that the guest, or a reset of the device, cut
// off. It matches unix.ECONNRESET.
var ErrReset = fmt.Errorf("vsock: stream reset: %w", unix.ECONNRESET)

// What a stream has to tell the guest, besides data.
const (
	ctlRequest = 1 << iota
	ctlResponse
	ctlShutdown
	ctlReset
	ctlCreditUpdate
	ctlCreditRequest
)

type key struct{ host, guest uint32 }

// Conn is a stream between the host and the guest. Read and Write may run at
// the same time as each other and as everything else. The owner must call
// Close.
//
//	connecting --RESPONSE--> open --both sides shut down, or RST--> gone
//
// All fields but wmu are guarded by Device.mu.
type Conn struct {
	d    *Device
	key  key
	cond sync.Cond  // on Device.mu: state changed
	wmu  sync.Mutex // held by the one writer; taken before Device.mu

	connecting bool
	gone       bool  // the device has forgotten the stream
	closed     bool  // the owner has called Close
	err        error // why the stream was cut off
	queued     bool  // in Device.out
	ctl        uint32
	onRefuse   func() // called once, without lock, when the guest takes no more data

	// guest to host
	in       ring
	bufAlloc uint32
	fwdCnt   uint32
	lastFwd  uint32 // fwdCnt as last told
	inEnd    bool   // the guest sends no more
	inShut   bool   // we read no more

	// host to guest
	pending     []byte // what the writer waits for
	txCnt       uint32
	peerAlloc   uint32
	peerFwd     uint32
	creditAsked bool
	outRefused  bool // the guest receives no more
	outShut     bool // we send no more
}

// HostPort is the stream's port on the host.
func (c *Conn) HostPort() uint32 { return c.key.host }

// GuestPort is the stream's port in the guest.
func (c *Conn) GuestPort() uint32 { return c.key.guest }

// Read reads what the guest sent: io.EOF after its end of stream, ErrReset
// after a reset; both only when all bytes before them are read.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	b, err := c.front()
	if err != nil {
		return 0, err
	}
	n := copy(p, b)
	c.consume(n)
	return n, nil
}

// front waits for data and returns the first bytes of it, which stay valid
// until the same goroutine consumes them.
func (c *Conn) front() ([]byte, error) {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	for {
		switch {
		case c.closed:
			return nil, net.ErrClosed
		case c.in.n > 0:
			return c.in.front(), nil
		case c.inEnd:
			return nil, io.EOF
		case c.err != nil:
			return nil, c.err
		}
		c.cond.Wait()
	}
}

// consume takes n bytes that front returned.
func (c *Conn) consume(n int) {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	if c.inShut {
		return
	}
	c.in.drop(n)
	c.fwdCnt += uint32(n)
	if c.fwdCnt-c.lastFwd >= c.bufAlloc/4 {
		c.tellLocked(ctlCreditUpdate)
	}
}

// Write returns when all of p lies in the guest's buffers, or the stream takes
// no more: EPIPE when the guest has shut down receiving, ErrReset, or
// net.ErrClosed.
func (c *Conn) Write(p []byte) (int, error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	c.pending = p
	if len(p) > 0 {
		c.d.queueLocked(c)
	}
	err := c.writeErrLocked()
	for len(c.pending) > 0 && err == nil {
		c.cond.Wait()
		err = c.writeErrLocked()
	}
	n := len(p) - len(c.pending)
	c.pending = nil
	if n < len(p) || len(p) == 0 {
		return n, err
	}
	return n, nil
}

func (c *Conn) writeErrLocked() error {
	switch {
	case c.closed:
		return net.ErrClosed
	case c.err != nil:
		return c.err
	case c.outShut, c.outRefused:
		return fmt.Errorf("vsock: write: %w", unix.EPIPE)
	}
	return nil
}

// CloseWrite sends end of stream after what was written.
func (c *Conn) CloseWrite() error {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	if err := c.writeErrLocked(); err != nil && !errors.Is(err, unix.EPIPE) {
		return err
	}
	if !c.outShut {
		c.outShut = true
		c.tellLocked(ctlShutdown)
		c.cond.Broadcast()
	}
	return nil
}

// CloseRead drops what is unread and tells the guest to send no more. Read
// returns io.EOF from now on.
func (c *Conn) CloseRead() {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	if c.inShut {
		return
	}
	c.inShut, c.inEnd = true, true
	c.fwdCnt += uint32(c.in.n)
	c.in = ring{}
	c.tellLocked(ctlShutdown)
	c.cond.Broadcast()
}

// Close ends both directions and gives up the stream. What was written before
// is delivered; what is unread is dropped.
func (c *Conn) Close() error {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed, c.outShut, c.inShut = true, true, true
	c.in = ring{}
	c.onRefuse = nil
	if c.connecting {
		c.tellLocked(ctlReset)
	} else {
		c.tellLocked(ctlShutdown)
	}
	c.cond.Broadcast()
	c.d.settleLocked(c)
	return nil
}

// Reset cuts the stream off, also for the guest, and gives it up.
func (c *Conn) Reset() {
	c.abort(ErrReset)
	c.Close()
}

// abort cuts the stream off with err and tells the guest. The owner still has
// to call Close.
func (c *Conn) abort(err error) {
	c.d.mu.Lock()
	c.abortLocked(err)
	f := c.refuseLocked()
	c.d.mu.Unlock()
	f()
}

// abortLocked lets the reset be sent before the stream is forgotten.
func (c *Conn) abortLocked(err error) {
	if c.gone || c.err != nil {
		return
	}
	c.err = err
	c.connecting = false
	c.tellLocked(ctlReset)
	c.cond.Broadcast()
}

// whenRefused has f called once the guest takes no more data, at once if that
// is so already. f must not block.
func (c *Conn) whenRefused(f func()) {
	c.d.mu.Lock()
	c.onRefuse = f
	f = c.refuseLocked()
	c.d.mu.Unlock()
	f()
}

// refuseLocked returns what the caller must call after unlocking.
func (c *Conn) refuseLocked() func() {
	if f := c.onRefuse; f != nil && (c.outRefused || c.err != nil) {
		c.onRefuse = nil
		return f
	}
	return func() {}
}

func (c *Conn) tellLocked(ctl uint32) {
	if c.gone {
		return
	}
	c.ctl |= ctl
	c.d.queueLocked(c)
}

// creditLocked is how many bytes the guest has room for. Counters run modulo
// 2^32; a guest that claims to have consumed what was never sent, or shrinks
// its buffer, only gets nothing.
func (c *Conn) creditLocked() uint32 {
	out := c.txCnt - c.peerFwd
	if out >= c.peerAlloc {
		return 0
	}
	return c.peerAlloc - out
}

// nextLocked makes the stream's next packet with at most room bytes of
// payload, and changes the state as its sending does.
func (c *Conn) nextLocked(room int) (h Header, data []byte, ok bool) {
	switch {
	case c.ctl&ctlReset != 0:
		h.Op = OpReset
		c.d.forgetLocked(c)
	case c.ctl&ctlRequest != 0:
		h.Op = OpRequest
		c.ctl &^= ctlRequest
	case c.ctl&ctlResponse != 0:
		h.Op = OpResponse
		c.ctl &^= ctlResponse
	case c.connecting:
		return h, nil, false
	case len(c.pending) > 0 && c.creditLocked() > 0 && c.writeErrLocked() == nil:
		h.Op = OpData
		n := min(room, len(c.pending), int(c.creditLocked()))
		data = c.pending[:n]
		c.pending = c.pending[n:]
		c.txCnt += uint32(n)
		c.creditAsked = false
		c.d.stats.BytesOut += uint64(n)
		if len(c.pending) == 0 {
			c.cond.Broadcast()
		}
	case c.ctl&ctlShutdown != 0:
		h.Op = OpShutdown
		c.ctl &^= ctlShutdown
		if c.outShut {
			h.Flags |= ShutdownSend
		}
		if c.inShut {
			h.Flags |= ShutdownReceive
		}
		if h.Flags == shutdownBoth {
			c.d.forgetLocked(c)
		}
	case c.ctl&ctlCreditUpdate != 0:
		h.Op = OpCreditUpdate
	case len(c.pending) > 0 && !c.creditAsked:
		h.Op = OpCreditRequest
		c.creditAsked = true
	default:
		return h, nil, false
	}
	c.ctl &^= ctlCreditUpdate // every packet carries the counters
	h.SrcCID, h.DstCID = noxs.HostCID, noxs.GuestCID
	h.SrcPort, h.DstPort = c.key.host, c.key.guest
	h.Type = TypeStream
	h.Len = uint32(len(data))
	h.BufAlloc, h.FwdCnt = c.bufAlloc, c.fwdCnt
	c.lastFwd = c.fwdCnt
	return h, data, true
}
