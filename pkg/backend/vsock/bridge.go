// SPDX-License-Identifier: Apache-2.0

package vsock

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Buffers of a bridge's host-to-guest half: the small one is kept while idle.
const (
	pumpSmall = 2 << 10
	pumpLarge = 32 << 10
)

// Bridge joins a stream to a unix stream socket until both directions have
// ended, and closes both. Ends of stream pass through, and so does either
// side's closing altogether. A reset of the stream closes the socket: its peer
// reads what arrived before, then end of stream; a unix socket can say
// ECONNRESET only when it is closed with bytes unread.
func Bridge(c *Conn, s *net.UnixConn) {
	var wg sync.WaitGroup
	wg.Add(1)
	c.whenRefused(func() { s.CloseRead() })
	go func() {
		defer wg.Done()
		pumpIn(c, s)
	}()
	pumpOut(c, s)
	wg.Wait()
	c.Close()
	s.Close()
}

// pumpIn copies from the guest to the socket.
func pumpIn(c *Conn, s *net.UnixConn) {
	for {
		b, err := c.front()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				s.CloseRead()
			}
			s.CloseWrite()
			return
		}
		n, err := s.Write(b)
		c.consume(n)
		if err != nil {
			c.CloseRead()
			return
		}
	}
}

// pumpOut copies from the socket to the guest. It ends when the socket is shut
// down both ways, whoever did it.
func pumpOut(c *Conn, s *net.UnixConn) {
	defer c.Close()
	raw, err := s.SyscallConn()
	if err != nil {
		return
	}
	p := pump{buf: make([]byte, pumpSmall)}
	for {
		err := raw.Read(p.read)
		if err != nil || p.err != nil {
			return
		}
		if p.n == 0 {
			break
		}
		if _, err := c.Write(p.buf[:p.n]); err != nil {
			s.CloseRead() // the peer's writes fail from now on
			break
		}
		if p.n == pumpSmall && len(p.buf) == pumpSmall {
			p.buf = make([]byte, pumpLarge)
		}
	}
	c.CloseWrite()
	p.buf = nil
	raw.Read(hungUp)
}

// pump is the state of pumpOut that its read function needs.
type pump struct {
	buf []byte
	n   int
	err error
}

// read makes one attempt to read, and returns false to wait for more. At end
// of stream it sets n to 0.
func (p *pump) read(fd uintptr) bool {
	for {
		p.n, p.err = unix.Read(int(fd), p.buf)
		switch {
		case errors.Is(p.err, syscall.EINTR):
		case errors.Is(p.err, syscall.EAGAIN):
			if len(p.buf) > pumpSmall {
				p.buf = make([]byte, pumpSmall)
			}
			return false
		default:
			return true
		}
	}
}

// hungUp says whether the socket is shut down both ways. The poller wakes a
// waiter at each change of that.
func hungUp(fd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(fds, 0)
	if errors.Is(err, syscall.EINTR) {
		return hungUp(fd)
	}
	return err != nil || n > 0 && fds[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
}
