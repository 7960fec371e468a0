// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/noxs"
)

// fake is a Handler that records and answers as told.
type fake struct {
	s *Server

	mu       sync.Mutex
	cfg      Config
	files    int
	startErr error
	exports  map[string]bool
	attached map[uint64]bool // whether the stream got a socket
	block    chan struct{}   // Stats waits for it
}

func (f *fake) Start(cfg Config, files []*os.File) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cfg, f.files = cfg, len(files)
	for _, file := range files {
		file.Close()
	}
	return f.startErr
}

func (f *fake) AddExport(e Export) error {
	defer e.Dir.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.exports[e.Name] {
		return fmt.Errorf("export %s: %w", e.Name, unix.EEXIST)
	}
	f.exports[e.Name] = true
	return nil
}

func (f *fake) RemoveExport(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.exports[name] {
		return errors.New("no such thing\x1b[2J" + strings.Repeat("!", 2000))
	}
	delete(f.exports, name)
	return nil
}

func (f *fake) Dial(port uint32, s *net.UnixConn) error {
	if port == 0 {
		s.Close()
		return unix.ECONNREFUSED
	}
	go func() { io.Copy(s, s); s.Close() }()
	return nil
}

func (f *fake) Listen(uint32) error { return nil }
func (f *fake) Unlisten(uint32)     {}

func (f *fake) Attach(stream uint64, s *net.UnixConn) {
	f.mu.Lock()
	f.attached[stream] = s != nil
	f.mu.Unlock()
	if s != nil {
		fmt.Fprintf(s, "stream %d", stream)
		s.Close()
	}
}

func (f *fake) Stats() Stats {
	f.mu.Lock()
	block := f.block
	f.mu.Unlock()
	if block != nil {
		<-block
	}
	return Stats{Streams: 7}
}

func (f *fake) Drain() {}

// pair runs a client against a fake.
func pair(t *testing.T) (*Client, *fake, chan error) {
	t.Helper()
	ours, theirs, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := Inherit(theirs)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{s: NewServer(conn), exports: map[string]bool{}, attached: map[uint64]bool{}}
	served := make(chan error, 1)
	go func() {
		err := f.s.Serve(f)
		f.s.Close()
		served <- err
	}()
	c := NewClient(ours)
	t.Cleanup(func() { c.Close() })
	return c, f, served
}

func ctx(t *testing.T) context.Context {
	c, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return c
}

func TestRequests(t *testing.T) {
	c, f, served := pair(t)
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	cfg := Config{Layout: noxs.Standard(), Wiring: []byte(`{"x":1}`)}
	if err := c.Start(ctx(t), cfg, null, null, null); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	if f.files != 3 || f.cfg.Layout.PoolPages != 580 || len(f.cfg.Layout.Devices) != 2 || string(f.cfg.Wiring) != `{"x":1}` {
		t.Errorf("start: %d files, %+v", f.files, f.cfg)
	}
	f.mu.Unlock()
	if err := c.AddExport(ctx(t), Export{Name: "a", Dir: null}); err != nil {
		t.Error(err)
	}
	if err := c.AddExport(ctx(t), Export{Name: "a", Dir: null}); !errors.Is(err, os.ErrExist) {
		t.Errorf("second add: %v", err)
	}
	err = c.RemoveExport(ctx(t), "b")
	if err == nil || strings.ContainsRune(err.Error(), 0x1b) || len(err.Error()) > 1000 {
		t.Errorf("hostile text: %q", err)
	}
	if err := c.RemoveExport(ctx(t), "a"); err != nil {
		t.Error(err)
	}
	if _, err := c.Dial(ctx(t), 0); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("dial: %v", err)
	}
	s, err := c.Dial(ctx(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	s.Write([]byte("there and back"))
	s.CloseWrite()
	if b, err := io.ReadAll(s); string(b) != "there and back" || err != nil {
		t.Errorf("stream: %q, %v", b, err)
	}
	s.Close()
	if st, err := c.Stats(ctx(t)); err != nil || st.Streams != 7 {
		t.Errorf("stats: %+v, %v", st, err)
	}
	c.Drain()
	f.s.GuestState(4)
	if v := <-c.GuestState(); v != 4 {
		t.Errorf("state %d", v)
	}
	c.Close()
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
	if _, err := c.Stats(ctx(t)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after close: %v", err)
	}
}

func TestStartFails(t *testing.T) {
	c, f, served := pair(t)
	f.mu.Lock()
	f.startErr = fmt.Errorf("map the pool: %w", unix.EACCES)
	f.mu.Unlock()
	if err := c.Start(ctx(t), Config{}); !errors.Is(err, unix.EACCES) || !strings.Contains(err.Error(), "map the pool") {
		t.Errorf("start: %v", err)
	}
	if err := <-served; !errors.Is(err, unix.EACCES) {
		t.Errorf("serve: %v", err)
	}
	<-c.Done()
	if err := c.Err(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("client: %v", err)
	}
}

func TestAccept(t *testing.T) {
	c, f, _ := pair(t)
	if err := c.Start(ctx(t), Config{}); err != nil {
		t.Fatal(err)
	}
	l, err := c.Listen(1)
	if err != nil {
		t.Fatal(err)
	}
	for id := range uint64(backlog + 5) {
		f.s.Accept(1, id)
	}
	f.s.Accept(2, 1000) // nobody listens
	c.Stats(ctx(t))     // all of it is handled
	for id := range uint64(backlog) {
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(conn); string(b) != fmt.Sprint("stream ", id) || err != nil {
			t.Errorf("read %q, %v", b, err)
		}
		conn.Close()
	}
	l.Close()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: %v", err)
	}
	if _, err := c.Listen(1); err != nil {
		t.Errorf("listen again: %v", err)
	}
	c.Close()
	<-c.Done()
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, ok := range f.attached {
		if want := id < backlog; ok != want {
			t.Errorf("stream %d attached: %v", id, ok)
		}
	}
}

func TestCancel(t *testing.T) {
	c, f, _ := pair(t)
	block := make(chan struct{})
	f.mu.Lock()
	f.block = block
	f.mu.Unlock()
	if err := c.Start(ctx(t), Config{}); err != nil {
		t.Fatal(err)
	}
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Stats(canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	close(block)
	// The late reply is no reason to end.
	if st, err := c.Stats(ctx(t)); err != nil || st.Streams != 7 {
		t.Errorf("stats: %+v, %v", st, err)
	}
}

// TestHostileBackend sends the shim what no back-end sends.
func TestHostileBackend(t *testing.T) {
	for name, msg := range map[string]string{
		"no JSON":                "\x00\x01\x02",
		"empty object":           "{}",
		"unknown operation":      `{"op":"start"}`,
		"reply to nothing":       `{"op":"reply","id":99}`,
		"reply to 0":             `{"op":"reply"}`,
		"negative id":            `{"op":"reply","id":-1}`,
		"failed without a text":  `{"op":"failed"}`,
		"accept of a wide port":  `{"op":"accept","port":4294967296}`,
		"state of a wrong type":  `{"op":"guest-state","state":"up"}`,
		"deep":                   strings.Repeat("[", 30000),
		"longer than allowed":    `{"op":"guest-state","error":"` + strings.Repeat("x", maxMessage) + `"}`,
		"errno out of range":     `{"op":"failed","error":"x","errno":99999999}`,
		"end without any word":   "",
		"failed with bad escape": `{"op":"failed","error":"\u0000\ud800"}`,
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs, err := Pair()
			if err != nil {
				t.Fatal(err)
			}
			c := NewClient(ours)
			defer c.Close()
			w, err := Inherit(theirs)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			if msg == "" {
				w.Close()
			} else if _, err := w.Write([]byte(msg)); err != nil {
				t.Fatal(err)
			}
			<-c.Done()
			if c.Err() == nil {
				t.Error("no error")
			}
		})
	}
}

// TestHostileDescriptors: what the back-end sends along is dropped.
func TestHostileDescriptors(t *testing.T) {
	ours, theirs, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	c := NewClient(ours)
	defer c.Close()
	w, err := Inherit(theirs)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	r, sent, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	oob := unix.UnixRights(int(sent.Fd()))
	for range 10 {
		if _, _, err := w.WriteMsgUnix([]byte(`{"op":"guest-state","state":1}`), oob, nil); err != nil {
			t.Fatal(err)
		}
		<-c.GuestState()
	}
	sent.Close()
	// Nobody holds the pipe's other end any more.
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("a descriptor was kept: %d, %v", n, err)
	}
}

// TestFlood sends events without end to a shim that reads none.
func TestFlood(t *testing.T) {
	c, f, _ := pair(t)
	if err := c.Start(ctx(t), Config{}); err != nil {
		t.Fatal(err)
	}
	l, err := c.Listen(1)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for i := range uint64(5000) {
		f.s.GuestState(uint32(i))
		f.s.Accept(1, i)
	}
	if st, err := c.Stats(ctx(t)); err != nil || st.Streams != 7 {
		t.Errorf("stats: %+v, %v", st, err)
	}
}

func FuzzClient(f *testing.F) {
	f.Add([]byte(`{"op":"accept","port":1,"stream":5}`))
	f.Add([]byte(`{"op":"reply","id":1,"stats":{"streams":-1}}`))
	f.Add([]byte(`{"op":"failed","error":"why","errno":13}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		ours, theirs, err := Pair()
		if err != nil {
			t.Fatal(err)
		}
		c := NewClient(ours)
		w, err := Inherit(theirs)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(b)
		w.Close()
		<-c.Done()
		c.Close()
		if c.Err() == nil {
			t.Error("the conversation ended without an error")
		}
	})
}
