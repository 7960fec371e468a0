// SPDX-License-Identifier: Apache-2.0

package vsock_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand"
	"net"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/backend/vsock"
	"github.com/xcontainer/xcontainer/pkg/backend/vsock/vsocktest"
)

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.New(rand.NewSource(int64(n))).Read(b)
	return b
}

// echo sends back what it reads, then ends.
func echo(c *vsocktest.Conn) {
	io.Copy(c, c)
	c.CloseWrite()
	c.Close()
}

func TestEcho(t *testing.T) {
	r := newRig(t)
	r.start(false)
	r.g.Listen(1024, echo)
	want := randomBytes(3<<20 + 17)
	c := r.dial(1024)
	go func() {
		c.Write(want)
		c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes of %d, %v", len(got), len(want), err)
	}
	c.Close()
	if s := r.d.Stats(); s.Conns != 0 || s.BytesIn != uint64(len(want)) || s.BytesOut != uint64(len(want)) {
		t.Errorf("stats %+v", s)
	}
}

func TestGuestDials(t *testing.T) {
	r := newRig(t)
	r.start(false)
	conns := make(chan *vsock.Conn, 1)
	if err := r.d.Listen(1, func(c *vsock.Conn) { conns <- c }); err != nil {
		t.Fatal(err)
	}
	if err := r.d.Listen(1, nil); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("second listen: %v", err)
	}
	gc, err := r.g.Dial(1)
	if err != nil {
		t.Fatal(err)
	}
	hc := <-conns
	if hc.HostPort() != 1 || hc.GuestPort() != gc.GuestPort() {
		t.Errorf("ports %d, %d", hc.HostPort(), hc.GuestPort())
	}
	go func() { gc.Write([]byte("hello")); gc.Close() }()
	got, err := io.ReadAll(hc)
	if err != nil || string(got) != "hello" {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := hc.Write([]byte("x")); !errors.Is(err, unix.EPIPE) {
		t.Errorf("write to a closed guest: %v", err)
	}
	hc.Close()
	r.d.Unlisten(1)
	if _, err := r.g.Dial(1); !errors.Is(err, vsocktest.ErrReset) {
		t.Errorf("dial to nobody: %v", err)
	}
}

func TestDialFails(t *testing.T) {
	r := newRig(t)
	if _, err := r.d.Dial(context.Background(), 1); !errors.Is(err, vsock.ErrDown) {
		t.Errorf("dial before start: %v", err)
	}
	r.start(false)
	if _, err := r.d.Dial(context.Background(), 99); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("dial to a port without listener: %v", err)
	}
	r.down()
	r.start(true) // a guest that answers nothing
	ctx, cancel := context.WithCancel(context.Background())
	go cancel()
	if _, err := r.d.Dial(ctx, 99); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled dial: %v", err)
	}
	done := make(chan error)
	go func() {
		_, err := r.d.Dial(context.Background(), 99)
		done <- err
	}()
	for r.d.Stats().Conns == 0 {
	}
	r.down()
	if err := <-done; !errors.Is(err, vsock.ErrReset) && !errors.Is(err, vsock.ErrDown) {
		t.Errorf("dial across a reset: %v", err)
	}
	if n := r.d.Stats().Conns; n != 0 {
		t.Errorf("%d streams left", n)
	}
}

// TestHalfClose sends on after the other direction has ended, both ways.
func TestHalfClose(t *testing.T) {
	r := newRig(t)
	r.start(false)
	accepted := r.accept(5)
	c := r.dial(5)
	g := <-accepted
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(g); len(b) != 0 || err != nil {
		t.Errorf("guest read %q, %v", b, err)
	}
	if _, err := c.Write([]byte{1}); !errors.Is(err, unix.EPIPE) {
		t.Errorf("write after CloseWrite: %v", err)
	}
	want := randomBytes(300 << 10)
	go func() { g.Write(want); g.Close() }()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
		t.Errorf("host read %d bytes, %v", len(got), err)
	}
	c.Close()

	c = r.dial(5)
	g = <-accepted
	g.CloseWrite()
	if b, err := io.ReadAll(c); len(b) != 0 || err != nil {
		t.Errorf("host read %q, %v", b, err)
	}
	go func() { c.Write(want); c.Close() }()
	if got, err := io.ReadAll(g); err != nil || !bytes.Equal(got, want) {
		t.Errorf("guest read %d bytes, %v", len(got), err)
	}
	g.Close()
}

// TestUnreadStallsNobody leaves streams unread in both directions while
// another moves megabytes.
func TestUnreadStallsNobody(t *testing.T) {
	r := newRig(t)
	r.start(false)
	accepted := r.accept(5)
	r.g.Listen(6, echo)
	var wg sync.WaitGroup
	var hosts []*vsock.Conn
	var guests []*vsocktest.Conn
	for range 20 {
		c := r.dial(5)
		g := <-accepted
		hosts, guests = append(hosts, c), append(guests, g)
		wg.Add(2)
		go func() { defer wg.Done(); g.Write(make([]byte, 1<<20)) }()
		go func() { defer wg.Done(); c.Write(make([]byte, 1<<20)) }()
	}
	want := randomBytes(2 << 20)
	c := r.dial(6)
	go func() { c.Write(want); c.CloseWrite() }()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	c.Close()
	for i := range hosts {
		hosts[i].Close()
		guests[i].Close()
	}
	wg.Wait()
}

func TestManyStreams(t *testing.T) {
	r := newRig(t)
	r.start(false)
	r.g.Listen(5, echo)
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c := r.dial(5)
			defer c.Close()
			want := randomBytes(40000 + i)
			go func() { c.Write(want); c.CloseWrite() }()
			if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
				t.Errorf("stream %d: %d bytes, %v", i, len(got), err)
			}
		}()
	}
	wg.Wait()
	if n := r.d.Stats().Conns; n != 0 {
		t.Errorf("%d streams left", n)
	}
}

// TestResetUnderLoad stops the device while streams run, and starts it again.
func TestResetUnderLoad(t *testing.T) {
	r := newRig(t)
	zeros := make([]byte, 32<<20)
	for range 10 {
		r.start(false)
		accepted := r.accept(5)
		var wg sync.WaitGroup
		for range 8 {
			c := r.dial(5)
			g := <-accepted
			wg.Add(4)
			go func() { defer wg.Done(); io.Copy(io.Discard, g) }()
			go func() { defer wg.Done(); g.Write(zeros[:8<<20]) }()
			go func() {
				defer wg.Done()
				if _, err := c.Write(zeros); !errors.Is(err, vsock.ErrReset) && !errors.Is(err, net.ErrClosed) {
					t.Errorf("write across a reset: %v", err)
				}
			}()
			go func() {
				defer wg.Done()
				if _, err := io.Copy(io.Discard, c); !errors.Is(err, vsock.ErrReset) {
					t.Errorf("read across a reset: %v", err)
				}
				c.Close()
			}()
		}
		r.down()
		wg.Wait()
		if n := r.d.Stats().Conns; n != 0 {
			t.Fatalf("%d streams left", n)
		}
	}
}

func TestBridge(t *testing.T) {
	r := newRig(t)
	r.start(false)
	r.g.Listen(5, echo)
	accepted := r.accept(6)
	var done sync.WaitGroup
	want := randomBytes(3 << 20)

	s := r.bridged(5, &done)
	go func() { s.Write(want); s.CloseWrite() }()
	if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, want) {
		t.Errorf("echo: %d bytes, %v", len(got), err)
	}
	done.Wait() // both ends of stream have passed: nobody needs to close

	t.Run("shim closes after writing", func(t *testing.T) {
		s := r.bridged(6, &done)
		go func() { s.Write(want); s.Close() }()
		g := <-accepted
		if got, err := io.ReadAll(g); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		g.Close()
		done.Wait()
	})
	t.Run("guest closes after writing", func(t *testing.T) {
		s := r.bridged(6, &done)
		g := <-accepted
		go func() { g.Write(want); g.Close() }()
		if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		for err := error(nil); !errors.Is(err, unix.EPIPE); {
			_, err = s.Write([]byte{1})
			if err != nil && !errors.Is(err, unix.EPIPE) {
				t.Fatalf("write to a closed guest: %v", err)
			}
		}
		s.Close()
		done.Wait()
	})
	t.Run("idle, shim closes", func(t *testing.T) {
		s := r.bridged(6, &done)
		g := <-accepted
		s.Close()
		if b, err := io.ReadAll(g); len(b) != 0 || err != nil {
			t.Errorf("guest read %d bytes, %v", len(b), err)
		}
		done.Wait()
		if _, err := g.Write([]byte{1}); err == nil {
			t.Error("guest writes to nobody")
		}
	})
	t.Run("shim stops reading", func(t *testing.T) {
		s := r.bridged(6, &done)
		g := <-accepted
		s.Close()
		if _, err := g.Write(make([]byte, 64<<20)); err == nil {
			t.Error("guest writes for ever to nobody")
		}
		g.Close()
		done.Wait()
	})
	t.Run("reset", func(t *testing.T) {
		s := r.bridged(6, &done)
		<-accepted
		r.down()
		if n, err := s.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("read %d, %v", n, err)
		}
		done.Wait()
	})
	if n := r.d.Stats().Conns; n != 0 {
		t.Errorf("%d streams left", n)
	}
}

func TestAfterClose(t *testing.T) {
	r := newRig(t)
	r.start(false)
	accepted := r.accept(5)
	c := r.dial(5)
	<-accepted
	c.Close()
	c.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read: %v", err)
	}
	if _, err := c.Write([]byte{1}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write: %v", err)
	}
	if err := c.CloseWrite(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("close write: %v", err)
	}
	c.CloseRead()
}
