// SPDX-License-Identifier: Apache-2.0

package vsocktest

import (
	"io"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/backend/vsock"
	"github.com/xcontainer/xcontainer/pkg/noxs"
)

// Conn is a stream of the guest.
type Conn struct {
	g   *Guest
	key key

	connecting bool
	err        error
	in         []byte
	fwd, last  uint32
	inEnd      bool // the host sends no more
	outRefused bool // the host receives no more
	outShut    bool

	tx, peerAlloc, peerFwd uint32
}

// GuestPort is the stream's port in the guest.
func (c *Conn) GuestPort() uint32 { return c.key.guest }

// HostPort is the stream's port on the host.
func (c *Conn) HostPort() uint32 { return c.key.host }

func (c *Conn) headerLocked(op uint16, n int, flags uint32) vsock.Header {
	c.last = c.fwd
	return vsock.Header{
		SrcCID: noxs.GuestCID, DstCID: noxs.HostCID, SrcPort: c.key.guest, DstPort: c.key.host,
		Len: uint32(n), Type: vsock.TypeStream, Op: op, Flags: flags, BufAlloc: bufAlloc, FwdCnt: c.fwd,
	}
}

func (c *Conn) packetLocked(h vsock.Header, data []byte) {
	c.peerAlloc, c.peerFwd = h.BufAlloc, h.FwdCnt
	switch h.Op {
	case vsock.OpResponse:
		c.connecting = false
	case vsock.OpReset:
		c.err = ErrReset
		delete(c.g.conns, c.key)
	case vsock.OpShutdown:
		c.inEnd = c.inEnd || h.Flags&vsock.ShutdownSend != 0
		c.outRefused = c.outRefused || h.Flags&vsock.ShutdownReceive != 0
		if c.inEnd && c.outRefused {
			c.g.replies = append(c.g.replies, c.headerLocked(vsock.OpReset, 0, 0))
			delete(c.g.conns, c.key)
		}
	case vsock.OpData:
		if len(c.in)+len(data) > bufAlloc {
			panic("vsocktest: the host exceeds its credit")
		}
		c.in = append(c.in, data...)
	case vsock.OpCreditRequest:
		c.g.replies = append(c.g.replies, c.headerLocked(vsock.OpCreditUpdate, 0, 0))
	}
}

// Read reads what the host sent.
func (c *Conn) Read(p []byte) (int, error) {
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	for len(c.in) == 0 {
		switch {
		case c.inEnd:
			return 0, io.EOF
		case c.err != nil:
			return 0, c.err
		case c.g.down:
			return 0, io.ErrClosedPipe
		}
		c.g.cond.Wait()
	}
	n := copy(p, c.in)
	c.in = c.in[n:]
	c.fwd += uint32(n)
	if bufAlloc-(c.fwd-c.last) < maxPacket && c.err == nil {
		c.g.sendWaitLocked(c.headerLocked(vsock.OpCreditUpdate, 0, 0), nil)
	}
	return n, nil
}

// Write sends p as the host's credit allows.
func (c *Conn) Write(p []byte) (int, error) {
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	done := 0
	for done < len(p) {
		switch {
		case c.err != nil:
			return done, c.err
		case c.outShut || c.outRefused:
			return done, unix.EPIPE
		case c.g.down:
			return done, io.ErrClosedPipe
		}
		n := min(len(p)-done, maxPacket, int(int32(c.peerAlloc-(c.tx-c.peerFwd))))
		if n <= 0 {
			c.g.cond.Wait()
			continue
		}
		c.tx += uint32(n)
		if err := c.g.sendWaitLocked(c.headerLocked(vsock.OpData, n, 0), p[done:done+n]); err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// CloseWrite sends end of stream.
func (c *Conn) CloseWrite() error {
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	c.outShut = true
	return c.g.sendWaitLocked(c.headerLocked(vsock.OpShutdown, 0, vsock.ShutdownSend), nil)
}

// Close shuts both directions down and waits for the host's reset.
func (c *Conn) Close() error {
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	c.outShut = true
	if c.err != nil || c.g.conns[c.key] != c {
		return nil
	}
	err := c.g.sendWaitLocked(c.headerLocked(vsock.OpShutdown, 0, vsock.ShutdownSend|vsock.ShutdownReceive), nil)
	for err == nil && c.g.conns[c.key] == c && !c.g.down {
		c.g.cond.Wait()
	}
	return err
}
