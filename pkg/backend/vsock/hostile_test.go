// SPDX-License-Identifier: Apache-2.0

package vsock_test

import (
	"errors"
	"io"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/backend/virtio"
	"github.com/xcontainer/xcontainer/pkg/backend/virtq"
	"github.com/xcontainer/xcontainer/pkg/backend/virtq/virtqtest"
	"github.com/xcontainer/xcontainer/pkg/backend/vsock"
	"github.com/xcontainer/xcontainer/pkg/backend/vsock/vsocktest"
	"github.com/xcontainer/xcontainer/pkg/noxs"
)

// packet is a header from the guest, fit but for what the test changes.
func packet(op uint16, guest, host uint32) vsock.Header {
	return vsock.Header{
		SrcCID: noxs.GuestCID, DstCID: noxs.HostCID, SrcPort: guest, DstPort: host,
		Type: vsock.TypeStream, Op: op, BufAlloc: 64 << 10,
	}
}

// TestReset sends packets that the device must answer with a reset, or not at
// all.
func TestReset(t *testing.T) {
	for name, c := range map[string]struct {
		h      vsock.Header
		change func(h *vsock.Header)
		answer bool
	}{
		"data without stream":     {packet(vsock.OpData, 9, 9), nil, true},
		"shutdown without stream": {packet(vsock.OpShutdown, 9, 9), nil, true},
		"response without stream": {packet(vsock.OpResponse, 9, 9), nil, true},
		"unknown operation":       {packet(99, 9, 9), nil, true},
		"request to nobody":       {packet(vsock.OpRequest, 9, 9), nil, true},
		"datagram":                {packet(vsock.OpRequest, 9, 1), func(h *vsock.Header) { h.Type = 3 }, true},
		"reset without stream":    {packet(vsock.OpReset, 9, 9), nil, false},
		"another guest's cid":     {packet(vsock.OpRequest, 9, 1), func(h *vsock.Header) { h.SrcCID = 4 }, false},
		"cid above 32 bits":       {packet(vsock.OpRequest, 9, 1), func(h *vsock.Header) { h.SrcCID |= 1 << 32 }, false},
		"to another host":         {packet(vsock.OpRequest, 9, 1), func(h *vsock.Header) { h.DstCID = 1 }, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.d.Listen(1, func(c *vsock.Conn) {
				t.Error("a stream was opened")
				c.Close()
			})
			r.start(false)
			seen := make(chan vsock.Header, 4)
			r.g.Seen = func(h vsock.Header) bool { seen <- h; return false }
			if c.change != nil {
				c.change(&c.h)
			}
			if err := r.g.Send(c.h, nil); err != nil {
				t.Fatal(err)
			}
			// The device works in order: the answer to this comes next.
			last := packet(vsock.OpData, 77, 77)
			if err := r.g.Send(last, nil); err != nil {
				t.Fatal(err)
			}
			if c.answer {
				h := <-seen
				if h.SrcPort == 77 {
					h = <-seen // resets of one batch come last first
				}
				if h.Op != vsock.OpReset || h.DstPort != c.h.SrcPort || h.SrcPort != c.h.DstPort || h.Type != c.h.Type {
					t.Errorf("answer %+v", h)
				}
			} else if h := <-seen; h.Op != vsock.OpReset || h.DstPort != 77 {
				t.Errorf("answer %+v", h)
			}
		})
	}
}

// TestAbort opens a stream and breaks its rules; the host's reader gets what
// was right before, then an error, and the guest a reset.
func TestAbort(t *testing.T) {
	for name, f := range map[string]func(g *vsocktest.Guest, h vsock.Header){
		"more than the credit": func(g *vsocktest.Guest, h vsock.Header) {
			h.Op = vsock.OpData
			for range 5 {
				h.Len = 32 << 10
				g.Send(h, make([]byte, 32<<10))
			}
		},
		"length beyond the packet": func(g *vsocktest.Guest, h vsock.Header) {
			h.Op, h.Len = vsock.OpData, 100
			g.Send(h, make([]byte, 50))
		},
		"length 4 GiB": func(g *vsocktest.Guest, h vsock.Header) {
			h.Op, h.Len = vsock.OpData, 0xffffffff
			g.Send(h, make([]byte, 50))
		},
		"second response": func(g *vsocktest.Guest, h vsock.Header) { h.Op = vsock.OpResponse; g.Send(h, nil) },
		"second request":  func(g *vsocktest.Guest, h vsock.Header) { h.Op = vsock.OpRequest; g.Send(h, nil) },
		"no operation":    func(g *vsocktest.Guest, h vsock.Header) { h.Op = 0; g.Send(h, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.start(false)
			accepted := r.accept(5)
			c := r.dial(5)
			g := <-accepted
			if _, err := g.Write([]byte("good")); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 4)
			if _, err := io.ReadFull(c, b); err != nil || string(b) != "good" {
				t.Fatalf("read %q, %v", b, err)
			}
			f(r.g, packet(0, 5, c.HostPort()))
			for err := error(nil); !errors.Is(err, unix.EPROTO); {
				if _, err = c.Write([]byte{1}); err != nil && !errors.Is(err, unix.EPROTO) {
					t.Fatalf("write: %v", err)
				}
			}
			if _, err := io.Copy(io.Discard, c); !errors.Is(err, unix.EPROTO) {
				t.Errorf("read: %v", err)
			}
			if _, err := io.Copy(io.Discard, g); !errors.Is(err, vsocktest.ErrReset) {
				t.Errorf("guest read: %v", err)
			}
			c.Close()
		})
	}
}

// TestForgedCredit claims room and consumption that are not there. The device
// may send what is claimed, which harms nobody else, and must not stop others.
func TestForgedCredit(t *testing.T) {
	r := newRig(t)
	r.start(false)
	r.g.Listen(6, echo)
	var conns []*vsock.Conn
	var wg sync.WaitGroup
	r.g.Listen(5, func(g *vsocktest.Conn) {
		for _, v := range []struct{ alloc, fwd uint32 }{{0, 0xffffffff}, {0xffffffff, 5}, {1, 0x80000000}, {0, 0}} {
			h := packet(vsock.OpCreditUpdate, 5, g.HostPort())
			h.BufAlloc, h.FwdCnt = v.alloc, v.fwd
			r.g.Send(h, nil)
		}
	})
	for range 4 {
		c := r.dial(5)
		conns = append(conns, c)
		wg.Add(1)
		go func() { defer wg.Done(); c.Write(make([]byte, 100<<10)) }()
	}
	c := r.dial(6)
	go func() { c.Write(make([]byte, 1<<20)); c.CloseWrite() }()
	if n, err := io.Copy(io.Discard, c); n != 1<<20 || err != nil {
		t.Errorf("other stream: %d bytes, %v", n, err)
	}
	c.Close()
	for _, c := range conns {
		c.Close()
	}
	wg.Wait()
}

// TestCaps opens streams until no more fit.
func TestCaps(t *testing.T) {
	r := newRig(t)
	var mu sync.Mutex
	var conns []*vsock.Conn
	r.d.Listen(1, func(c *vsock.Conn) {
		mu.Lock()
		defer mu.Unlock()
		conns = append(conns, c)
	})
	r.start(false)
	r.g.Listen(5, func(*vsocktest.Conn) {})
	opened := 0
	for ; opened < 2000; opened++ {
		if _, err := r.g.Dial(1); errors.Is(err, vsocktest.ErrReset) {
			break
		}
	}
	if opened != 768 {
		t.Errorf("the guest opened %d streams", opened)
	}
	ours := 0
	for ; ours < 2000; ours++ {
		c, err := r.d.Dial(t.Context(), 5)
		if errors.Is(err, vsock.ErrTooMany) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if ours != 256 {
		t.Errorf("the host opened %d streams more", ours)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

// TestFlood sends packets without stream and takes no answer: the device stops
// listening before it holds too much, and goes on when the answers are taken.
func TestFlood(t *testing.T) {
	r := newRig(t)
	r.start(true)
	var hdr [vsock.HeaderSize]byte
	packet(vsock.OpData, 9, 9).Encode(&hdr)
	sent, idle := 0, 0
	for idle < 1000 {
		idle++
		for _, _, ok := r.tx.Used(); ok; _, _, ok = r.tx.Used() {
			idle = 0
		}
		for {
			if _, err := r.tx.Add([][]byte{hdr[:]}, nil); err != nil {
				break
			}
			sent++
		}
		r.d.Kick()
		if sent > 100000 {
			t.Fatal("the device takes packets without end")
		}
	}
	got := 0
	for got < sent {
		for {
			if _, err := r.rx.Add(nil, []int{4096}); err != nil {
				break
			}
		}
		r.d.Kick()
		for _, _, ok := r.rx.Used(); ok; _, _, ok = r.rx.Used() {
			got++
		}
		for _, _, ok := r.tx.Used(); ok; _, _, ok = r.tx.Used() {
		}
	}
}

// TestBrokenBuffers are chains that end the device.
func TestBrokenBuffers(t *testing.T) {
	for name, f := range map[string]func(r *rig){
		"short packet":         func(r *rig) { r.tx.Add([][]byte{make([]byte, 43)}, nil) },
		"empty packet":         func(r *rig) { r.tx.Add(nil, []int{100}) },
		"short receive buffer": func(r *rig) { r.rx.Add(nil, []int{44}) },
		"readable receive":     func(r *rig) { r.rx.Add([][]byte{make([]byte, 4096)}, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.start(true)
			f(r)
			r.d.Kick()
			if err := <-r.fails; !errors.Is(err, virtq.ErrGuest) {
				t.Errorf("failed with %v", err)
			}
		})
	}
}

// TestHeaderPieces splits packets over many descriptors, both ways.
func TestHeaderPieces(t *testing.T) {
	r := newRig(t)
	conns := make(chan *vsock.Conn, 1)
	r.d.Listen(1, func(c *vsock.Conn) { conns <- c })
	r.start(true)
	send := func(h vsock.Header, data []byte) {
		var b [vsock.HeaderSize]byte
		h.Len = uint32(len(data))
		h.Encode(&b)
		r.tx.Add([][]byte{b[:1], b[1:20], b[20:43], append([]byte{b[43]}, data...)}, nil)
		r.d.Kick()
	}
	for range 3 {
		if _, err := r.rx.Add(nil, []int{1, 42, 3, 5}); err != nil {
			t.Fatal(err)
		}
	}
	send(packet(vsock.OpRequest, 9, 1), nil)
	send(packet(vsock.OpData, 9, 1), []byte("pieces"))
	c := <-conns
	defer c.Close()
	b := make([]byte, 6)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "pieces" {
		t.Errorf("read %q, %v", b, err)
	}
	go c.Write([]byte("0123456789"))
	var got []byte
	for len(got) < 10 {
		if _, b, ok := r.rx.Used(); ok {
			h := vsock.DecodeHeader((*[vsock.HeaderSize]byte)(b))
			if h.Op == vsock.OpData {
				got = append(got, b[vsock.HeaderSize:]...)
			}
		}
	}
	if string(got) != "0123456789" {
		t.Errorf("guest got %q", got)
	}
}

// FuzzPackets feeds the device with arbitrary packets that may open streams.
// Nothing panics or hangs, and no stream outlives the device.
func FuzzPackets(f *testing.F) {
	raw := func(h vsock.Header, data string) []byte {
		var b [vsock.HeaderSize]byte
		h.Encode(&b)
		return append(b[:], data...)
	}
	with := func(op uint16, change func(*vsock.Header)) vsock.Header {
		h := packet(op, 9, 1)
		change(&h)
		return h
	}
	none := func(*vsock.Header) {}
	f.Add(raw(with(vsock.OpRequest, none), ""), raw(with(vsock.OpData, func(h *vsock.Header) { h.Len = 3 }), "abc"))
	f.Add(raw(with(vsock.OpRequest, none), ""), raw(with(vsock.OpShutdown, func(h *vsock.Header) { h.Flags = 3 }), ""))
	f.Add(raw(with(vsock.OpRequest, none), ""), raw(with(vsock.OpRequest, none), ""))
	f.Add(raw(with(vsock.OpRequest, none), ""), raw(with(vsock.OpData, func(h *vsock.Header) { h.Len = 0xfffffff0 }), "x"))
	f.Add(raw(with(vsock.OpReset, none), ""), raw(with(vsock.OpCreditRequest, none), ""))
	f.Add([]byte{}, make([]byte, 60))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		pool := virtqtest.NewPool(t, 400)
		sec := virtqtest.NewSection(pool, 0, 128, 272)
		rx, tx := sec.NewDriver(16, true), sec.NewDriver(16, true)
		qrx, err := virtq.New(pool, rx.Config())
		if err != nil {
			t.Fatal(err)
		}
		qtx, err := virtq.New(pool, tx.Config())
		if err != nil {
			t.Fatal(err)
		}
		d := vsock.New()
		d.Listen(1, func(c *vsock.Conn) {
			io.Copy(c, c)
			c.Close()
		})
		failed := make(chan error, 2)
		if err := d.Start([]*virtq.Queue{qrx, qtx}, 0, virtio.Env{Notify: func() {}, Fail: func(err error) { failed <- err }}); err != nil {
			t.Fatal(err)
		}
		for range 8 {
			rx.Add(nil, []int{4096})
		}
		for _, p := range [][]byte{a, b} {
			if len(p) > 0 {
				tx.Add([][]byte{p}, nil)
			}
		}
		d.Kick()
		for done := 0; done < 2; {
			if _, _, ok := tx.Used(); ok {
				done++
				continue
			}
			if len(a) == 0 || len(b) == 0 {
				break
			}
			select {
			case <-failed:
				done = 2
			default:
				runtime.Gosched() // the fuzzer gives a worker one processor
			}
		}
		qrx.Stop()
		qtx.Stop()
		d.Stop()
		for d.Stats().Conns > 0 {
			runtime.Gosched()
		}
	})
}
