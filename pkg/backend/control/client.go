// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// drainTimeout bounds Drain.
const drainTimeout = time.Second

// Client is the shim's side. Its methods may be called from several goroutines.
type Client struct {
	w     wire
	done  chan struct{}
	state chan uint32

	mu        sync.Mutex
	err       error
	closed    bool
	nextID    uint64
	pending   map[uint64]chan message
	listeners map[uint32]*listener
}

// NewClient starts a conversation on conn, one end of Pair, and owns it.
func NewClient(conn *net.UnixConn) *Client {
	c := &Client{
		w:         wire{conn: conn},
		done:      make(chan struct{}),
		state:     make(chan uint32, 8),
		pending:   map[uint64]chan message{},
		listeners: map[uint32]*listener{},
	}
	go c.receive()
	return c
}

// Start hands over the configuration and copies of files, at most 16,
// and returns when the back-end has mapped the domain's memory and given up its
// privileges. The caller keeps the files. It comes first and once.
func (c *Client) Start(ctx context.Context, cfg Config, files ...*os.File) error {
	_, err := c.call(ctx, message{Op: opStart, Config: &cfg}, files...)
	return wrap("start the back-end", err)
}

// AddExport lets the guest see a directory or file under a name. It fails with
// EEXIST when the name is taken.
func (c *Client) AddExport(ctx context.Context, e Export) error {
	_, err := c.call(ctx, message{Op: opExport, Name: e.Name, ReadOnly: e.ReadOnly, TTL: e.CacheTTL}, e.Dir)
	return wrap(fmt.Sprintf("add export %q", e.Name), err)
}

// RemoveExport takes an export back. When it returns nil, the back-end holds no
// descriptor of it any more. It fails with ENOENT for an unknown name.
func (c *Client) RemoveExport(ctx context.Context, name string) error {
	_, err := c.call(ctx, message{Op: opUnexport, Name: name})
	return wrap(fmt.Sprintf("remove export %q", name), err)
}

// Dial opens a stream to a port of the guest. It fails with ECONNREFUSED when
// nobody listens there and ENOTCONN when the guest's driver does not run. The
// stream's ends of stream and full closes are the guest's; a stream that the
// guest resets ends as if it were closed. The caller owns the result.
func (c *Client) Dial(ctx context.Context, port uint32) (*net.UnixConn, error) {
	ours, theirs, err := streamPair()
	if err == nil {
		_, err = c.call(ctx, message{Op: opDial, Port: port}, theirs)
		theirs.Close()
		if err != nil {
			ours.Close()
		}
	}
	if err != nil {
		return nil, wrap(fmt.Sprintf("dial guest port %d", port), err)
	}
	return ours, nil
}

// Listen takes the streams that the guest opens to a port of the host. It
// fails with EADDRINUSE for a port in use.
func (c *Client) Listen(port uint32) (net.Listener, error) {
	what := fmt.Sprintf("listen on host port %d", port)
	l := &listener{c: c, port: port, conns: make(chan *net.UnixConn, backlog), done: make(chan struct{})}
	c.mu.Lock()
	if c.listeners[port] != nil {
		c.mu.Unlock()
		return nil, wrap(what, unix.EADDRINUSE)
	}
	c.listeners[port] = l
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), sendTimeout)
	defer cancel()
	if _, err := c.call(ctx, message{Op: opListen, Port: port}); err != nil {
		c.forget(l)
		return nil, wrap(what, err)
	}
	return l, nil
}

// GuestState delivers the values of guest_state (docs/noxs.md 5) that the guest
// writes. They are hints by the guest; a slow reader misses some. It is never
// closed.
func (c *Client) GuestState() <-chan uint32 { return c.state }

// Stats asks the back-end about itself.
func (c *Client) Stats(ctx context.Context) (Stats, error) {
	m, err := c.call(ctx, message{Op: opStats})
	if err != nil || m.Stats == nil {
		return Stats{}, wrap("read statistics", errors.Join(err, ctx.Err()))
	}
	return *m.Stats, nil
}

// Drain returns when the back-end has passed on what the guest's console held,
// at the latest after a second.
func (c *Client) Drain() {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	c.call(ctx, message{Op: opDrain})
}

// Done is closed when the conversation has ended, and with it the back-end's
// service.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err says why the conversation ended: nil before, net.ErrClosed after Close,
// io.ErrUnexpectedEOF when the back-end has gone without a word, ErrProtocol,
// or the back-end's own reason.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the conversation; the back-end process ends by that. Streams that
// were opened stay the owners' to close.
func (c *Client) Close() error {
	c.fail(net.ErrClosed)
	<-c.done
	return nil
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("control: %s: %w", what, err)
}

// call sends a request and waits for its reply.
func (c *Client) call(ctx context.Context, m message, files ...*os.File) (message, error) {
	reply := make(chan message, 1)
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return message{}, c.err
	}
	c.nextID++
	m.ID = c.nextID
	c.pending[m.ID] = reply
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		if _, waiting := c.pending[m.ID]; waiting {
			c.pending[m.ID] = nil // a late reply is no surprise
		}
		c.mu.Unlock()
	}()
	if err := c.w.send(m, files...); err != nil {
		if !errors.Is(err, unix.EMSGSIZE) {
			c.fail(err)
			<-c.done
			err = c.Err()
		}
		return message{}, err
	}
	select {
	case r := <-reply:
		return r, r.err()
	case <-ctx.Done():
		return message{}, context.Cause(ctx)
	case <-c.done:
		return message{}, c.Err()
	}
}

func (c *Client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		c.w.conn.Close()
	}
}

// receive reads until the conversation ends.
func (c *Client) receive() {
	defer close(c.done)
	buf := make([]byte, maxMessage)
	for {
		m, _, err := c.w.receive(buf, false)
		if err == nil {
			err = c.handle(m)
		} else if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			c.fail(fmt.Errorf("control: %w", err))
			break
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.listeners {
		l.close()
	}
}

func (c *Client) handle(m message) error {
	switch m.Op {
	case opReply:
		c.mu.Lock()
		reply, ok := c.pending[m.ID]
		delete(c.pending, m.ID)
		c.mu.Unlock()
		if !ok {
			return fmt.Errorf("%w: reply to request %d, which was not made", ErrProtocol, m.ID)
		}
		if reply != nil {
			reply <- m
		}
	case opState:
		select {
		case c.state <- m.State:
		default:
		}
	case opAccept:
		return c.accept(m)
	case opFailed:
		return fmt.Errorf("back-end failed: %w", m.err())
	default:
		return fmt.Errorf("%w: unknown operation %q", ErrProtocol, printable(m.Op))
	}
	return nil
}

// accept gives a stream that the guest opened a socket, if anybody wants it.
func (c *Client) accept(m message) error {
	c.mu.Lock()
	l := c.listeners[m.Port]
	c.mu.Unlock()
	if l == nil || len(l.conns) == cap(l.conns) {
		return c.w.send(message{Op: opRefuse, Stream: m.Stream})
	}
	ours, theirs, err := streamPair()
	if err != nil {
		return c.w.send(message{Op: opRefuse, Stream: m.Stream})
	}
	defer theirs.Close()
	if err := c.w.send(message{Op: opAttach, Stream: m.Stream}, theirs); err != nil {
		ours.Close()
		return err
	}
	l.push(ours)
	return nil
}

func (c *Client) forget(l *listener) {
	c.mu.Lock()
	if c.listeners[l.port] == l {
		delete(c.listeners, l.port)
	}
	c.mu.Unlock()
	l.close()
}

// streamPair makes a stream socket pair: ours, and an end to send.
func streamPair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "stream")
	ours, err := fileConn(os.NewFile(uintptr(fds[0]), "stream"))
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}
