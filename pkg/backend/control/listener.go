// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"fmt"
	"net"
	"sync"
)

// backlog is how many streams of the guest wait for Accept; more are refused.
const backlog = 16

// listener implements net.Listener.
type listener struct {
	c     *Client
	port  uint32
	conns chan *net.UnixConn // only Client.receive sends
	done  chan struct{}
	mu    sync.Mutex
	down  bool
}

// addr is a vsock port of the host.
type addr uint32

func (addr) Network() string  { return "vsock" }
func (a addr) String() string { return fmt.Sprintf("host(2):%d", uint32(a)) }

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return addr(l.port) }

// Accept implements net.Listener. It returns a *net.UnixConn.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	default:
	}
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, fmt.Errorf("control: accept on host port %d: %w", l.port, net.ErrClosed)
	}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.c.forget(l)
	ctx, cancel := context.WithTimeout(context.Background(), sendTimeout)
	defer cancel()
	l.c.call(ctx, message{Op: opUnlisten, Port: l.port}) // fails only with everything else
	return nil
}

// push queues a stream; there is room, since only one goroutine pushes.
func (l *listener) push(c *net.UnixConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		c.Close()
		return
	}
	l.conns <- c
}

func (l *listener) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		return
	}
	l.down = true
	close(l.done)
	for {
		select {
		case c := <-l.conns:
			c.Close()
		default:
			return
		}
	}
}
