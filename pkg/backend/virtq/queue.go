// SPDX-License-Identifier: Apache-2.0

package virtq

import (
	"errors"
	"fmt"
	"sync"

	"github.com/xcontainer/xcontainer/pkg/backend/iovec"
)

var (
	// ErrGuest is the identity of every error that the guest caused by
	// breaking the rules of the rings. The queue is of no use afterwards.
	ErrGuest = errors.New("virtqueue rules broken by the guest")
	// ErrStopped is returned after Stop.
	ErrStopped = errors.New("virtqueue stopped")
)

// Numbers of the split virtqueue, virtio 1.2, 2.7.
const (
	descNext     = 1
	descWrite    = 2
	descIndirect = 4

	availNoInterrupt = 1
	usedNoNotify     = 1

	maxNum = 32768
)

// Config says where a queue lies. All offsets and lengths are bytes from the
// start of the pool.
type Config struct {
	Num               uint32 // entries, a power of two
	Desc, Avail, Used uint32 // rings, within the out part

	OutOff, OutLen uint64 // where device-readable buffers may lie
	InOff, InLen   uint64 // where device-writable buffers may lie

	EventIdx bool // VIRTIO_RING_F_EVENT_IDX was chosen
}

// Queue is one virtqueue. Its methods may be called from several goroutines.
type Queue struct {
	pool []byte
	cfg  Config
	mask uint16

	mu        sync.Mutex
	err       error    // why the queue no longer works
	lastAvail uint16   // next entry of the available ring to take
	usedIdx   uint16   // next entry of the used ring to fill
	signalled uint16   // usedIdx at the last NeedSignal
	inFlight  []bool   // by head: popped and not yet pushed
	busy      uint32   // number of heads in flight
	free      []*Chain // chains to use again
	fence     uint32
}

// Chain is one buffer of the guest: what the device reads, then what it may
// write. The slices alias guest memory, are never empty, and belong to the
// caller, who may cut them down, until it pushes the chain; after that neither
// may be touched.
type Chain struct {
	Readable [][]byte
	Writable [][]byte

	head     uint16
	writeLen uint64
}

// ReadLen is the sum of the lengths of Readable. Buffers may overlap, so it can
// exceed the section's size.
func (c *Chain) ReadLen() uint64 { return iovec.Len(c.Readable) }

// WriteLen is the sum of the lengths that Writable had when the chain was
// popped; see ReadLen.
func (c *Chain) WriteLen() uint64 { return c.writeLen }

// New checks cfg against the pool and returns its queue. Pool must be 8-aligned
// and stay mapped until nobody uses the queue or a chain of it. The fields of
// cfg that the guest chose are taken for hostile: their errors match ErrGuest.
func New(pool []byte, cfg Config) (*Queue, error) {
	size := uint64(len(pool))
	if !aligned8(pool) || size%8 != 0 {
		return nil, fmt.Errorf("virtq: pool of %d bytes is not aligned", size)
	}
	if !within(cfg.OutOff, cfg.OutLen, 0, size) || !within(cfg.InOff, cfg.InLen, 0, size) {
		return nil, fmt.Errorf("virtq: section out %d+%d, in %d+%d exceeds a pool of %d bytes",
			cfg.OutOff, cfg.OutLen, cfg.InOff, cfg.InLen, size)
	}
	if cfg.Num == 0 || cfg.Num > maxNum || cfg.Num&(cfg.Num-1) != 0 {
		return nil, fmt.Errorf("virtq: %w: size %d", ErrGuest, cfg.Num)
	}
	num := uint64(cfg.Num)
	for _, r := range []struct {
		name  string
		off   uint32
		size  uint64
		align uint32
	}{
		{"descriptor table", cfg.Desc, 16 * num, 16},
		{"available ring", cfg.Avail, 6 + 2*num, 2},
		{"used ring", cfg.Used, 6 + 8*num, 4},
	} {
		if r.off%r.align != 0 || !within(uint64(r.off), r.size, cfg.OutOff, cfg.OutLen) {
			return nil, fmt.Errorf("virtq: %w: %s of %d bytes at %#x", ErrGuest, r.name, r.size, r.off)
		}
	}
	return &Queue{
		pool:     pool,
		cfg:      cfg,
		mask:     uint16(num - 1),
		inFlight: make([]bool, num),
	}, nil
}

// within says whether [off, off+n) lies in [base, base+size).
func within(off, n, base, size uint64) bool {
	return off >= base && n <= size && off-base <= size-n
}

// Pop takes the next buffer. It returns nil and no error when there is none.
func (q *Queue) Pop() (*Chain, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, err := q.pendingLocked()
	if n == 0 || err != nil {
		return nil, err
	}
	head := load16(q.pool, q.cfg.Avail+4+2*uint32(q.lastAvail&q.mask))
	if uint32(head) >= q.cfg.Num {
		return nil, q.failLocked("head %d of %d descriptors", head, q.cfg.Num)
	}
	if q.inFlight[head] {
		return nil, q.failLocked("head %d is in use already", head)
	}
	c := q.chainLocked()
	if err := q.walkLocked(c, head); err != nil {
		return nil, err
	}
	q.lastAvail++
	q.inFlight[head] = true
	q.busy++
	return c, nil
}

// pendingLocked returns how many buffers wait in the available ring.
func (q *Queue) pendingLocked() (uint32, error) {
	if q.err != nil {
		return 0, q.err
	}
	n := uint32(load16(q.pool, q.cfg.Avail+2) - q.lastAvail)
	if n+q.busy > q.cfg.Num {
		return 0, q.failLocked("%d buffers waiting and %d in use, of %d", n, q.busy, q.cfg.Num)
	}
	return n, nil
}

// walkLocked collects the buffers of the chain that starts at head.
func (q *Queue) walkLocked(c *Chain, head uint16) error {
	c.head, c.writeLen = head, 0
	i := head
	for n := uint32(0); ; n++ {
		if n == q.cfg.Num {
			return q.failLocked("chain at %d loops", head)
		}
		at := q.cfg.Desc + 16*uint32(i)
		addr, rest := load64(q.pool, at), load64(q.pool, at+8)
		size, flags, next := rest&0xffffffff, uint16(rest>>32), uint16(rest>>48)
		if flags&descIndirect != 0 {
			return q.failLocked("descriptor %d is indirect", i)
		}
		base, limit := q.cfg.OutOff, q.cfg.OutLen
		if flags&descWrite != 0 {
			base, limit = q.cfg.InOff, q.cfg.InLen
		}
		if size == 0 || !within(addr, size, base, limit) {
			return q.failLocked("descriptor %d: %d bytes at %#x, flags %#x", i, size, addr, flags)
		}
		buf := q.pool[addr : addr+size : addr+size]
		switch {
		case flags&descWrite != 0:
			c.Writable = append(c.Writable, buf)
			c.writeLen += size
		case len(c.Writable) != 0:
			return q.failLocked("descriptor %d is readable and follows a writable one", i)
		default:
			c.Readable = append(c.Readable, buf)
		}
		if flags&descNext == 0 {
			return nil
		}
		if uint32(next) >= q.cfg.Num {
			return q.failLocked("descriptor %d: next is %d of %d", i, next, q.cfg.Num)
		}
		i = next
	}
}

// Push gives c back to the guest with n bytes written, and takes ownership of
// c. It fails only after Stop or an error of the queue, when nothing is
// written. NeedSignal says whether the guest wants to hear of it.
func (q *Queue) Push(c *Chain, n uint32) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return q.err
	}
	head := c.head
	if !q.inFlight[head] {
		return fmt.Errorf("virtq: chain %d pushed twice", head)
	}
	n = uint32(min(uint64(n), c.writeLen))
	at := q.cfg.Used + 4 + 8*uint32(q.usedIdx&q.mask)
	store32(q.pool, at, uint32(head))
	store32(q.pool, at+4, n)
	q.usedIdx++
	store16(q.pool, q.cfg.Used+2, q.usedIdx)
	q.inFlight[head] = false
	q.busy--
	q.free = append(q.free, c)
	return nil
}

// NeedSignal says whether the guest wants an event for what was pushed since
// the last call.
func (q *Queue) NeedSignal() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil || q.usedIdx == q.signalled {
		return false
	}
	fullFence(&q.fence) // the used index must be seen before the guest's wish is read
	old := q.signalled
	q.signalled = q.usedIdx
	if !q.cfg.EventIdx {
		return load16(q.pool, q.cfg.Avail)&availNoInterrupt == 0
	}
	event := load16(q.pool, q.cfg.Avail+4+2*q.cfg.Num)
	return q.usedIdx-event-1 < q.usedIdx-old
}

// Arm asks the guest for an event at the next buffer. It returns true when
// buffers wait already (the caller pops on), and true with an error queue, so
// that the next Pop reports it.
func (q *Queue) Arm() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return true
	}
	if q.cfg.EventIdx {
		store16(q.pool, q.cfg.Used+4+8*q.cfg.Num, q.lastAvail)
	} else {
		store16(q.pool, q.cfg.Used, 0)
	}
	fullFence(&q.fence) // the wish must be seen before the index is read again
	n, err := q.pendingLocked()
	return n != 0 || err != nil
}

// Disarm asks the guest to make no events while the caller polls. It is a hint.
func (q *Queue) Disarm() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err == nil && !q.cfg.EventIdx {
		store16(q.pool, q.cfg.Used, usedNoNotify)
	}
}

// Stop makes every further call fail with ErrStopped. When it has returned the
// queue touches no ring any more. Chains still out stay valid memory, but the
// user must stop using them before the guest is told that the queue is reset.
func (q *Queue) Stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err == nil {
		q.err = fmt.Errorf("virtq: %w", ErrStopped)
	}
}

// Err returns why the queue no longer works, or nil.
func (q *Queue) Err() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.err
}

func (q *Queue) failLocked(format string, args ...any) error {
	q.err = fmt.Errorf("virtq: %w: %s", ErrGuest, fmt.Sprintf(format, args...))
	return q.err
}

// chainLocked returns an empty chain. Their number is bounded by the heads in
// flight, so by Num.
func (q *Queue) chainLocked() *Chain {
	n := len(q.free)
	if n == 0 {
		return &Chain{}
	}
	c := q.free[n-1]
	q.free = q.free[:n-1]
	c.Readable, c.Writable = c.Readable[:0], c.Writable[:0]
	return c
}
