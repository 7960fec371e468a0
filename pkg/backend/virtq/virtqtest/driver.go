// SPDX-License-Identifier: Apache-2.0

package virtqtest

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/backend/virtq"
	"github.com/xcontainer/xcontainer/pkg/noxs"
)

const pageSize = noxs.PageSize

// ErrNoSpace says that the section or the ring is full for now.
var ErrNoSpace = errors.New("virtqtest: no space")

// NewPool maps n zeroed pages for the length of the test. They are no Go heap,
// so that the race detector takes both halves' accesses for what they are:
// memory shared with another machine.
func NewPool(t testing.TB, n int) []byte {
	b, err := unix.Mmap(-1, 0, n*pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatalf("map %d pages: %v", n, err)
	}
	t.Cleanup(func() { unix.Munmap(b) })
	return b
}

// Section is a device's part of the pool with its two page allocators.
type Section struct {
	pool    []byte
	out, in pages

	outOff, outLen, inOff, inLen uint64
}

// NewSection returns the section at page off with out and in pages.
func NewSection(pool []byte, off, out, in int) *Section {
	return &Section{
		pool:   pool,
		out:    pages{first: off, used: make([]bool, out)},
		in:     pages{first: off + out, used: make([]bool, in)},
		outOff: uint64(off) * pageSize, outLen: uint64(out) * pageSize,
		inOff: uint64(off+out) * pageSize, inLen: uint64(in) * pageSize,
	}
}

// pages allocates runs of pages, first fit.
type pages struct {
	mu    sync.Mutex
	first int
	used  []bool
}

// alloc returns the byte offset of enough contiguous pages for n bytes.
func (p *pages) alloc(n int) (uint64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	want, run := (n+pageSize-1)/pageSize, 0
	for i, u := range p.used {
		if u {
			run = 0
			continue
		}
		if run++; run == want {
			for j := i - want + 1; j <= i; j++ {
				p.used[j] = true
			}
			return uint64(p.first+i-want+1) * pageSize, true
		}
	}
	return 0, false
}

func (p *pages) free(off uint64, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := int(off/pageSize) - p.first
	for i := range (n + pageSize - 1) / pageSize {
		p.used[first+i] = false
	}
}

type segment struct {
	off  uint64
	size int
	in   bool
}

// Driver is the guest's half of one queue. One goroutine uses it at a time.
type Driver struct {
	sec      *Section
	num      int
	eventIdx bool

	desc, avail, used uint32
	ringLen           int

	freeDesc  []uint16
	chains    map[uint16][]segment // by head
	order     map[uint16][]uint16  // descriptors of a chain, by head
	availIdx  uint16
	kicked    uint16 // availIdx at the last NeedKick
	lastUsed  uint16
	noSignals bool
	fence     uint32
}

// NewDriver lays out a queue of num entries in the section's out pages.
func (s *Section) NewDriver(num int, eventIdx bool) *Driver {
	avail := 16 * num
	used := (avail + 6 + 2*num + 7) &^ 7
	ringLen := used + 6 + 8*num + 2
	off, ok := s.out.alloc(ringLen)
	if !ok {
		panic("virtqtest: no space for rings")
	}
	clear(s.pool[off : off+uint64(ringLen)])
	d := &Driver{
		sec: s, num: num, eventIdx: eventIdx,
		desc: uint32(off), avail: uint32(off) + uint32(avail), used: uint32(off) + uint32(used),
		ringLen: ringLen,
		chains:  map[uint16][]segment{}, order: map[uint16][]uint16{},
	}
	for i := num - 1; i >= 0; i-- {
		d.freeDesc = append(d.freeDesc, uint16(i))
	}
	return d
}

// Config is what the device side is built from.
func (d *Driver) Config() virtq.Config {
	return virtq.Config{
		Num: uint32(d.num), Desc: d.desc, Avail: d.avail, Used: d.used,
		OutOff: d.sec.outOff, OutLen: d.sec.outLen, InOff: d.sec.inOff, InLen: d.sec.inLen,
		EventIdx: d.eventIdx,
	}
}

// Block is what the guest writes into the device page.
func (d *Driver) Block() noxs.QueueBlock {
	return noxs.QueueBlock{Num: uint32(d.num), Ready: 1, Desc: d.desc, Avail: d.avail, Used: d.used}
}

// Add posts one chain: a copy of each element of out, then room for the sizes
// of in. It returns the chain's head, by which Used names it.
func (d *Driver) Add(out [][]byte, in []int) (uint16, error) {
	n := len(out) + len(in)
	if n == 0 {
		panic("virtqtest: empty chain")
	}
	if n > len(d.freeDesc) {
		return 0, ErrNoSpace
	}
	var segs []segment
	for i := range n {
		s := segment{in: i >= len(out)}
		from := &d.sec.out
		if s.in {
			s.size, from = in[i-len(out)], &d.sec.in
		} else {
			s.size = len(out[i])
		}
		var ok bool
		if s.off, ok = from.alloc(s.size); !ok {
			d.release(segs)
			return 0, ErrNoSpace
		}
		segs = append(segs, s)
		if !s.in {
			copy(d.sec.pool[s.off:], out[i])
		}
	}
	ids := append([]uint16(nil), d.freeDesc[len(d.freeDesc)-n:]...)
	d.freeDesc = d.freeDesc[:len(d.freeDesc)-n]
	for i, s := range segs {
		var flags, next uint16
		if s.in {
			flags |= 2
		}
		if i+1 < n {
			flags |= 1
			next = ids[i+1]
		}
		d.WriteDesc(ids[i], s.off, uint32(s.size), flags, next)
	}
	d.chains[ids[0]], d.order[ids[0]] = segs, ids
	d.Publish(ids[0])
	return ids[0], nil
}

// WriteDesc writes descriptor i as it is, right or wrong.
func (d *Driver) WriteDesc(i uint16, addr uint64, size uint32, flags, next uint16) {
	at := d.desc + 16*uint32(i)
	store64(d.sec.pool, at, addr)
	store64(d.sec.pool, at+8, uint64(size)|uint64(flags)<<32|uint64(next)<<48)
}

// Publish puts head into the available ring, right or wrong.
func (d *Driver) Publish(head uint16) {
	store16(d.sec.pool, d.avail+4+2*uint32(d.availIdx)%uint32(2*d.num), head)
	d.SetAvail(d.availIdx + 1)
}

// SetAvail writes the available index, right or wrong.
func (d *Driver) SetAvail(idx uint16) {
	d.availIdx = idx
	var flags uint16
	if d.noSignals {
		flags = 1
	}
	store32(d.sec.pool, d.avail, uint32(flags)|uint32(idx)<<16)
}

// NeedKick says whether the device wants an event for what was added since the
// last call.
func (d *Driver) NeedKick() bool {
	fullFence(&d.fence)
	old := d.kicked
	d.kicked = d.availIdx
	if old == d.availIdx {
		return false
	}
	if !d.eventIdx {
		return load16(d.sec.pool, d.used)&1 == 0
	}
	event := load16(d.sec.pool, d.used+4+8*uint32(d.num))
	return d.availIdx-event-1 < d.availIdx-old
}

// Used takes the next chain that the device has used: its head and a copy of
// the bytes written. It panics when the device names a chain that is not out
// or more bytes than there is room for.
func (d *Driver) Used() (head uint16, data []byte, ok bool) {
	if load16(d.sec.pool, d.used+2) == d.lastUsed {
		return 0, nil, false
	}
	at := d.used + 4 + 8*(uint32(d.lastUsed)%uint32(d.num))
	elem := load32(d.sec.pool, at)
	left := int(load32(d.sec.pool, at+4))
	d.lastUsed++
	head = uint16(elem)
	segs, found := d.chains[head]
	if !found || elem >= uint32(d.num) {
		panic(fmt.Sprintf("virtqtest: device used chain %d, which is not out", elem))
	}
	for _, s := range segs {
		if s.in {
			n := min(left, s.size)
			data = append(data, d.sec.pool[s.off:s.off+uint64(n)]...)
			left -= n
		}
	}
	if left != 0 {
		panic(fmt.Sprintf("virtqtest: device wrote %d bytes too many", left))
	}
	d.release(segs)
	d.freeDesc = append(d.freeDesc, d.order[head]...)
	delete(d.chains, head)
	delete(d.order, head)
	return head, data, true
}

// Arm asks the device for an event at the next used chain, and says whether
// one waits already.
func (d *Driver) Arm() bool {
	d.noSignals = false
	d.wish(d.lastUsed)
	fullFence(&d.fence)
	return load16(d.sec.pool, d.used+2) != d.lastUsed
}

// Disarm asks the device for no events.
func (d *Driver) Disarm() {
	d.noSignals = true
	d.wish(d.lastUsed - 1)
}

func (d *Driver) wish(event uint16) {
	if d.eventIdx {
		store16(d.sec.pool, d.avail+4+2*uint32(d.num), event)
		return
	}
	d.SetAvail(d.availIdx)
}

// Out is the number of chains that the device holds.
func (d *Driver) Out() int { return len(d.chains) }

// Close gives rings and buffers back to the section, as the guest does after
// a reset.
func (d *Driver) Close() {
	for _, segs := range d.chains {
		d.release(segs)
	}
	d.sec.out.free(uint64(d.desc), d.ringLen)
	d.chains, d.order, d.freeDesc = nil, nil, nil
}

func (d *Driver) release(segs []segment) {
	for _, s := range segs {
		if s.in {
			d.sec.in.free(s.off, s.size)
		} else {
			d.sec.out.free(s.off, s.size)
		}
	}
}
