// SPDX-License-Identifier: Apache-2.0

package console

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// Layout of struct xencons_interface, xen/include/public/io/console.h.
const (
	offOut     = 1024
	outSize    = 2048
	offOutCons = 3080
	offOutProd = 3084
	ifaceSize  = 3088
)

// bufferSize is how much waits for the reader, a power of two.
const bufferSize = 64 << 10

// closeTimeout bounds the wait for the reader in Close.
const closeTimeout = time.Second

// Console drains one ring.
type Console struct {
	page []byte
	w    io.Writer
	done chan struct{} // the writer has ended

	mu      sync.Mutex
	cond    sync.Cond
	cons    uint32 // next byte of the ring to take
	buf     []byte // what waits for the writer: n bytes from r on
	r, n    int
	gap     uint64 // bytes dropped right before buf
	writing bool
	closed  bool
	err     error // of the writer; nothing is passed on any more
	total   uint64
	dropped uint64
}

// New drains the ring in page, a mapping that stays until Close has returned,
// to w, from a goroutine of its own that may block in w.Write.
func New(page []byte, w io.Writer) (*Console, error) {
	if len(page) < ifaceSize || !aligned4(page) {
		return nil, fmt.Errorf("console: ring page of %d bytes, or not aligned", len(page))
	}
	c := &Console{
		page: page, w: w, done: make(chan struct{}),
		cons: load32(page, offOutCons), buf: make([]byte, bufferSize),
	}
	c.cond.L = &c.mu
	go c.write()
	return c, nil
}

// Drain takes what the ring holds. It never blocks. It returns true when the
// ring had been half full, so that the guest may be waiting for an event.
func (c *Console) Drain() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	most := uint32(0)
	// Bounded, since a guest can print as fast as this reads; its next event
	// or the caller's next round goes on.
	for range 64 {
		n := load32(c.page, offOutProd) - c.cons
		if n == 0 {
			break
		}
		if n > outSize {
			// Not an index that any writer gets to. Start afresh there.
			c.cons += n
			store32(c.page, offOutCons, c.cons)
			break
		}
		most = max(most, n)
		for at := c.cons; at != c.cons+n; {
			i := at % outSize
			run := min(outSize-i, c.cons+n-at)
			c.putLocked(c.page[offOut+i : offOut+i+run])
			at += run
		}
		c.cons += n
		c.total += uint64(n)
		store32(c.page, offOutCons, c.cons)
	}
	if most > 0 {
		c.cond.Broadcast()
	}
	return most >= outSize/2
}

// putLocked appends p, at most outSize bytes, and drops the oldest to make room.
func (c *Console) putLocked(p []byte) {
	if c.err != nil {
		c.dropped += uint64(len(p))
		return
	}
	if over := c.n + len(p) - len(c.buf); over > 0 {
		c.r = (c.r + over) % len(c.buf)
		c.n -= over
		c.gap += uint64(over)
		c.dropped += uint64(over)
	}
	at := (c.r + c.n) % len(c.buf)
	copy(c.buf, p[copy(c.buf[at:], p):])
	c.n += len(p)
}

// write passes bytes on until the console is closed and empty.
func (c *Console) write() {
	defer close(c.done)
	var chunk [4 << 10]byte
	for {
		c.mu.Lock()
		for c.n == 0 && !c.closed && c.err == nil {
			c.cond.Wait()
		}
		if c.n == 0 || c.err != nil {
			c.mu.Unlock()
			return
		}
		var out []byte
		if c.gap > 0 {
			out = fmt.Appendf(chunk[:0], "\n[%d bytes of the console were dropped]\n", c.gap)
			c.gap = 0
		} else {
			n := copy(chunk[:], c.buf[c.r:min(c.r+c.n, len(c.buf))])
			c.r = (c.r + n) % len(c.buf)
			c.n -= n
			out = chunk[:n]
		}
		c.writing = true
		c.mu.Unlock()
		_, err := c.w.Write(out)
		c.mu.Lock()
		c.writing = false
		if err != nil {
			c.err = err
			c.n = 0
		}
		c.cond.Broadcast()
		c.mu.Unlock()
	}
}

// Flush waits until everything drained is written, or for d. It returns whether
// it is.
func (c *Console) Flush(d time.Duration) bool {
	late := false
	t := time.AfterFunc(d, func() {
		c.mu.Lock()
		late = true
		c.cond.Broadcast()
		c.mu.Unlock()
	})
	defer t.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for (c.n > 0 || c.writing) && c.err == nil && !late {
		c.cond.Wait()
	}
	return c.n == 0 && !c.writing && c.err == nil
}

// Counts returns the bytes taken from the ring, and how many of them nobody
// will see.
func (c *Console) Counts() (total, dropped uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total, c.dropped
}

// Close drains the ring once more, waits at most a second for the reader, and
// gives up the page and the writer. It returns the writer's error, if any.
func (c *Console) Close() error {
	c.Drain()
	c.mu.Lock()
	c.closed = true
	c.cond.Broadcast()
	c.mu.Unlock()
	if d, ok := c.w.(interface{ SetWriteDeadline(time.Time) error }); ok {
		d.SetWriteDeadline(time.Now().Add(closeTimeout)) // ends a Write that waits
	}
	select {
	case <-c.done:
	case <-time.After(closeTimeout + closeTimeout/10):
		return errors.New("console: the reader does not read")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return fmt.Errorf("console: pass on: %w", c.err)
	}
	return nil
}
