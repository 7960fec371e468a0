// SPDX-License-Identifier: Apache-2.0

package vsock

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/backend/iovec"
	"github.com/xcontainer/xcontainer/pkg/backend/virtio"
	"github.com/xcontainer/xcontainer/pkg/backend/virtq"
	"github.com/xcontainer/xcontainer/pkg/noxs"
)

// signalEvery is how many buffers are used before the guest hears of them
// while there are more: it shall work at the same time.
const signalEvery = 8

func (d *Device) loop(r *run, f func(*run) error) {
	if err := virtio.Guard(func() error { return f(r) }); err != nil && !errors.Is(err, virtq.ErrStopped) {
		r.env.Fail(fmt.Errorf("vsock: %w", err))
	}
}

// wait returns false when the run ends.
func (r *run) wait(c chan struct{}) bool {
	select {
	case <-r.stop:
		return false
	case <-c:
		return true
	}
}

func (r *run) signal(q *virtq.Queue) {
	if q.NeedSignal() {
		r.env.Notify()
	}
}

// sendLoop fills the guest's receive buffers.
func (d *Device) sendLoop(r *run) error {
	for n := 1; ; n++ {
		c, err := r.rx.Pop()
		if err != nil {
			return err
		}
		if c == nil {
			r.signal(r.rx)
			if !r.rx.Arm() && !r.wait(r.rxKick) {
				return nil
			}
			continue
		}
		room := c.WriteLen()
		if room <= HeaderSize {
			return fmt.Errorf("%w: receive buffer of %d bytes", virtq.ErrGuest, room)
		}
		used := d.fill(r, c, int(room-HeaderSize))
		for used == 0 {
			r.signal(r.rx)
			if !r.wait(d.work) {
				return nil
			}
			used = d.fill(r, c, int(room-HeaderSize))
		}
		if err := r.rx.Push(c, used); err != nil {
			return err
		}
		if n%signalEvery == 0 {
			r.signal(r.rx)
		}
	}
}

// fill writes the next packet into c and returns its length, 0 if there is
// none.
func (d *Device) fill(r *run, c *virtq.Chain, room int) uint32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := len(d.resets); n > 0 {
		h := d.resets[n-1]
		d.resets = d.resets[:n-1]
		poke(r.txKick) // it may wait for this
		return d.putLocked(c, h, nil)
	}
	for len(d.out) > 0 {
		conn := d.out[0]
		d.out = slices.Delete(d.out, 0, 1)
		conn.queued = false
		h, data, ok := conn.nextLocked(room)
		if !ok {
			continue
		}
		if conn.ctl != 0 || len(conn.pending) > 0 {
			d.queueLocked(conn)
		}
		return d.putLocked(c, h, data)
	}
	return 0
}

// putLocked writes a packet into c, in which there is room for it.
func (d *Device) putLocked(c *virtq.Chain, h Header, data []byte) uint32 {
	var b [HeaderSize]byte
	h.Encode(&b)
	iovec.Scatter(c.Writable, b[:])
	iovec.Scatter(iovec.Skip(c.Writable, HeaderSize), data)
	d.stats.PacketsOut++
	return uint32(HeaderSize + len(data))
}

// receiveLoop takes the guest's packets.
func (d *Device) receiveLoop(r *run) error {
	for n := 1; ; n++ {
		if d.backlog() {
			r.signal(r.tx)
			if !r.wait(r.txKick) {
				return nil
			}
			continue
		}
		c, err := r.tx.Pop()
		if err != nil {
			return err
		}
		if c == nil {
			r.signal(r.tx)
			if !r.tx.Arm() && !r.wait(r.txKick) {
				return nil
			}
			continue
		}
		if err := d.receive(c.Readable); err != nil {
			return err
		}
		if err := r.tx.Push(c, 0); err != nil {
			return err
		}
		if n%signalEvery == 0 {
			r.signal(r.tx)
		}
	}
}

// backlog says that the guest must take answers before it is heard again.
func (d *Device) backlog() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.resets) >= maxResets
}

// receive handles one packet. An error means that it is none.
func (d *Device) receive(bufs [][]byte) error {
	var b [HeaderSize]byte
	if got := iovec.Gather(b[:], bufs); got < HeaderSize {
		return fmt.Errorf("%w: packet of %d bytes", virtq.ErrGuest, got)
	}
	h := DecodeHeader(&b)
	d.mu.Lock()
	f := d.receiveLocked(h, iovec.Skip(bufs, HeaderSize))
	d.mu.Unlock()
	f()
	return nil
}

func nothing() {}

// receiveLocked returns what must be called after unlocking.
func (d *Device) receiveLocked(h Header, bufs [][]byte) func() {
	d.stats.PacketsIn++
	if h.SrcCID != noxs.GuestCID || h.DstCID != noxs.HostCID {
		return nothing // nobody to answer
	}
	c := d.conns[key{h.DstPort, h.SrcPort}]
	switch {
	case h.Type != TypeStream:
		d.resetLocked(h)
	case c == nil && h.Op == OpRequest:
		d.requestLocked(h)
	case c == nil:
		d.resetLocked(h)
	case c.err != nil:
		// its reset is on the way
	default:
		c.peerAlloc, c.peerFwd = h.BufAlloc, h.FwdCnt
		c.packetLocked(h, bufs)
		if len(c.pending) > 0 {
			d.queueLocked(c)
		}
		return c.refuseLocked()
	}
	return nothing
}

// resetLocked answers a packet that belongs to no stream; never a reset.
func (d *Device) resetLocked(h Header) {
	if h.Op == OpReset {
		return
	}
	d.resets = append(d.resets, Header{
		SrcCID: noxs.HostCID, DstCID: noxs.GuestCID, SrcPort: h.DstPort, DstPort: h.SrcPort,
		Type: h.Type, Op: OpReset,
	})
	poke(d.work)
}

// requestLocked opens a stream that the guest asks for.
func (d *Device) requestLocked(h Header) {
	accept := d.listeners[h.DstPort]
	if accept == nil || d.live >= maxGuestConns {
		d.resetLocked(h)
		return
	}
	c := d.addLocked(key{h.DstPort, h.SrcPort})
	c.peerAlloc, c.peerFwd = h.BufAlloc, h.FwdCnt
	c.tellLocked(ctlResponse)
	go accept(c)
}

// packetLocked handles a packet of an existing stream.
func (c *Conn) packetLocked(h Header, bufs [][]byte) {
	if c.connecting && h.Op != OpResponse && h.Op != OpReset {
		c.abortLocked(fmt.Errorf("vsock: packet %d before a response: %w", h.Op, unix.EPROTO))
		return
	}
	switch h.Op {
	case OpResponse:
		if !c.connecting {
			c.abortLocked(fmt.Errorf("vsock: second response: %w", unix.EPROTO))
		}
		c.connecting = false
	case OpReset:
		c.err = ErrReset
		if c.connecting {
			c.err = unix.ECONNREFUSED
		}
		c.connecting = false
		c.d.forgetLocked(c)
	case OpShutdown:
		c.inEnd = c.inEnd || h.Flags&ShutdownSend != 0
		c.outRefused = c.outRefused || h.Flags&ShutdownReceive != 0
		if c.inEnd && c.outRefused {
			// The guest waits for this before it frees its end.
			c.ctl = 0
			c.d.resetLocked(h)
			c.d.forgetLocked(c)
		}
	case OpData:
		c.dataLocked(h.Len, bufs)
	case OpCreditUpdate:
	case OpCreditRequest:
		c.tellLocked(ctlCreditUpdate)
	default:
		c.abortLocked(fmt.Errorf("vsock: packet of type %d: %w", h.Op, unix.EPROTO))
	}
	c.cond.Broadcast()
}

// dataLocked stores n bytes of bufs for the reader.
func (c *Conn) dataLocked(n uint32, bufs [][]byte) {
	switch {
	case c.inShut: // crossed our shutdown
		c.fwdCnt += n
		return
	case c.inEnd:
		c.abortLocked(fmt.Errorf("vsock: data after the end of stream: %w", unix.EPROTO))
		return
	case uint64(n) > uint64(c.bufAlloc)-uint64(c.in.n):
		c.abortLocked(fmt.Errorf("vsock: %d bytes with %d unread exceed the credit: %w", n, c.in.n, unix.EPROTO))
		return
	}
	left := int(n)
	for len(bufs) > 0 && left > 0 {
		p := bufs[0][:min(left, len(bufs[0]))]
		c.in.write(p)
		left -= len(p)
		bufs = bufs[1:]
	}
	c.d.stats.BytesIn += uint64(n) - uint64(left)
	if left > 0 {
		c.abortLocked(fmt.Errorf("vsock: packet of %d bytes lacks %d: %w", n, left, unix.EPROTO))
	}
}
