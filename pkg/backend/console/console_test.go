// SPDX-License-Identifier: Apache-2.0

package console

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// sink is a writer that can be held up.
type sink struct {
	mu   sync.Mutex
	gate sync.Mutex
	buf  bytes.Buffer
}

func (s *sink) Write(p []byte) (int, error) {
	s.gate.Lock()
	defer s.gate.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *sink) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// guest prints into a ring as hvc_xen does, and returns how much fit.
func guest(page []byte, p []byte) int {
	prod := load32(page, offOutProd)
	n := 0
	for ; n < len(p) && prod-load32(page, offOutCons) < outSize; n++ {
		page[offOut+prod%outSize] = p[n]
		prod++
	}
	store32(page, offOutProd, prod)
	return n
}

func newConsole(t *testing.T, w io.Writer, start uint32) ([]byte, *Console) {
	page := make([]byte, 4096)
	store32(page, offOutCons, start)
	store32(page, offOutProd, start)
	c, err := New(page, w)
	if err != nil {
		t.Fatal(err)
	}
	return page, c
}

func TestDrain(t *testing.T) {
	for _, start := range []uint32{0, 1000, 0xffffff00} {
		s := &sink{}
		page, c := newConsole(t, s, start)
		want := strings.Repeat("0123456789abcdef\n", 2000)
		for rest := []byte(want); len(rest) > 0; {
			rest = rest[guest(page, rest):]
			if half := c.Drain(); len(rest) > 0 && !half {
				t.Error("a full ring is not reported")
			}
			if !c.Flush(time.Minute) {
				t.Fatal("no flush")
			}
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if s.String() != want {
			t.Errorf("start %#x: %d bytes of %d", start, len(s.String()), len(want))
		}
		if total, dropped := c.Counts(); total != uint64(len(want)) || dropped != 0 {
			t.Errorf("counts %d, %d", total, dropped)
		}
	}
}

func TestSlowReaderLosesOldest(t *testing.T) {
	s := &sink{}
	s.gate.Lock()
	page, c := newConsole(t, s, 0)
	line := []byte(strings.Repeat("x", 1023) + "\n")
	for range 200 {
		if guest(page, line) != len(line) {
			t.Fatal("the ring is full: the slow reader held up the guest")
		}
		c.Drain()
	}
	guest(page, []byte("last words"))
	s.gate.Unlock()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	got := s.String()
	if !strings.HasSuffix(got, "last words") || !strings.Contains(got, "bytes of the console were dropped]") {
		t.Errorf("%d bytes, end %q", len(got), got[max(0, len(got)-40):])
	}
	if len(got) > bufferSize+8192 || len(got) < bufferSize {
		t.Errorf("%d bytes passed on", len(got))
	}
}

func TestHostileIndices(t *testing.T) {
	s := &sink{}
	page, c := newConsole(t, s, 0)
	for _, prod := range []uint32{outSize + 1, 0x80000000, 0xffffffff, 5, 0} {
		store32(page, offOutProd, prod)
		store32(page, offOutCons, prod*7)
		c.Drain()
	}
	store32(page, offOutCons, load32(page, offOutProd))
	if n := guest(page, []byte("still here")); n != 10 {
		t.Fatal("no room")
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(s.String(), "still here") {
		t.Errorf("%q", s.String())
	}
}

func TestReaderGone(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	r.Close()
	page, c := newConsole(t, w, 0)
	for range 100 {
		guest(page, make([]byte, outSize))
		c.Drain()
	}
	if c.Flush(time.Minute) {
		t.Error("flushed to nobody")
	}
	if err := c.Close(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("close: %v", err)
	}
	if total, dropped := c.Counts(); total != 100*outSize || dropped == 0 {
		t.Errorf("counts %d, %d", total, dropped)
	}
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(make([]byte, 3000), io.Discard); err == nil {
		t.Error("short page accepted")
	}
	if _, err := New(make([]byte, 4097)[1:], io.Discard); err == nil {
		t.Error("unaligned page accepted")
	}
}

// FuzzIndices writes any two indices; every drain ends and keeps its bounds.
func FuzzIndices(f *testing.F) {
	f.Add(uint32(0), uint32(1), uint32(2048))
	f.Add(uint32(0xffffffff), uint32(3), uint32(0))
	f.Add(uint32(7), uint32(0x80000007), uint32(2056))
	f.Fuzz(func(t *testing.T, start, p1, p2 uint32) {
		page, c := newConsole(t, io.Discard, start)
		for _, p := range []uint32{p1, p2} {
			store32(page, offOutProd, p)
			c.Drain()
			if load32(page, offOutCons) != p {
				t.Errorf("consumed up to %#x of %#x", load32(page, offOutCons), p)
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}
