// SPDX-License-Identifier: Apache-2.0

package stdio

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// limit bounds what must happen at all; no test measures time.
const limit = 20 * time.Second

// guest stands for the domain: it has the far end of each stream.
type guest struct {
	t    *testing.T
	far  []*net.UnixConn // by number - 1
	fail int             // Dial fails from this number on, if not 0
}

func (g *guest) dial(context.Context) (uint64, Stream, error) {
	if g.fail != 0 && len(g.far)+1 >= g.fail {
		return 0, nil, errors.New("no stream")
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, err
	}
	var c [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "stream")
		conn, err := net.FileConn(f)
		f.Close()
		if err != nil {
			return 0, nil, err
		}
		c[i] = conn.(*net.UnixConn)
		c[i].SetDeadline(time.Now().Add(limit))
	}
	g.t.Cleanup(func() { c[1].Close() })
	g.far = append(g.far, c[1])
	return uint64(len(g.far)), c[0], nil
}

func fifos(t *testing.T, names ...string) (string, Config) {
	t.Helper()
	dir := t.TempDir()
	var c Config
	for _, n := range names {
		p := filepath.Join(dir, n)
		if err := unix.Mkfifo(p, 0o600); err != nil {
			t.Fatal(err)
		}
		switch n {
		case "in":
			c.Stdin = p
		case "out":
			c.Stdout = p
		case "err":
			c.Stderr = p
		}
	}
	return dir, c
}

func open(t *testing.T, g *guest, c Config) *IO {
	t.Helper()
	s, err := Open(t.Context(), c, g.dial)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// reads opens a pipe as a client does, before or after the shim.
func reads(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	f.SetDeadline(time.Now().Add(limit))
	return f
}

func writes(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	f.SetDeadline(time.Now().Add(limit))
	return f
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.New(rand.NewSource(1)).Read(b)
	return b
}

func TestOutputIsByteExact(t *testing.T) {
	_, c := fifos(t, "out", "err")
	g := &guest{t: t}
	clientOut, clientErr := reads(t, c.Stdout), reads(t, c.Stderr)
	s := open(t, g, c)
	if in, out, err := s.Streams(); in != 0 || out != 1 || err != 2 {
		t.Fatalf("streams %d %d %d", in, out, err)
	}
	want := random(8 << 20)
	go func() {
		g.far[0].Write(want)
		g.far[0].Close()
		io.WriteString(g.far[1], "problem")
		g.far[1].Close()
	}()
	got, err := io.ReadAll(clientOut)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("stdout: %d bytes, %v", len(got), err)
	}
	got, err = io.ReadAll(clientErr)
	if err != nil || string(got) != "problem" {
		t.Errorf("stderr: %q, %v", got, err)
	}
	if err := s.Drain(t.Context(), uint64(len(want)), 7); err != nil {
		t.Error(err)
	}
}

func TestInputEndsOnlyWhenAsked(t *testing.T) {
	_, c := fifos(t, "in")
	g := &guest{t: t}
	s := open(t, g, c)
	want := random(3 << 20)
	go func() {
		for _, part := range [][]byte{want[:1<<20], want[1<<20:]} {
			w := writes(t, c.Stdin)
			w.Write(part)
			w.Close() // a writer that leaves ends nothing
		}
		s.CloseStdin()
		s.CloseStdin()
	}()
	got, err := io.ReadAll(g.far[0])
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// TestCloseStdinBeforeLastWriter: ctr closes stdin through the API before it
// closes its pipe.
func TestCloseStdinBeforeLastWriter(t *testing.T) {
	_, c := fifos(t, "in")
	g := &guest{t: t}
	s := open(t, g, c)
	w := writes(t, c.Stdin)
	s.CloseStdin()
	io.WriteString(w, "late")
	w.Close()
	got, err := io.ReadAll(g.far[0])
	if err != nil || string(got) != "late" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestProcessThatReadsNoMoreStopsNoWriter(t *testing.T) {
	_, c := fifos(t, "in")
	g := &guest{t: t}
	open(t, g, c)
	g.far[0].Close()
	w := writes(t, c.Stdin)
	if n, err := w.Write(random(4 << 20)); err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestReaderThatLeavesStopsNoProcess(t *testing.T) {
	_, c := fifos(t, "out")
	g, r := &guest{t: t}, &reports{}
	c.Report = r.add
	client := reads(t, c.Stdout)
	s := open(t, g, c)
	io.WriteString(g.far[0], "first")
	buf := make([]byte, 5)
	if _, err := io.ReadFull(client, buf); err != nil {
		t.Fatal(err)
	}
	client.Close()

	lost := random(4 << 20)
	if _, err := g.far[0].Write(lost); err != nil {
		t.Fatal(err)
	}
	if err := s.Drain(t.Context(), uint64(5+len(lost)), 0); err != nil {
		t.Fatal(err)
	}

	client = reads(t, c.Stdout)
	io.WriteString(g.far[0], "last")
	g.far[0].Close()
	got, err := io.ReadAll(client)
	if err != nil {
		t.Fatal(err)
	}
	want := append(lost, "last"...)
	if len(got) < detachedBytes/2 || !bytes.HasSuffix(want, got) {
		t.Errorf("%d bytes, not the newest of the output", len(got))
	}
	if want := "nobody reads " + c.Stdout + ", and it is full; the oldest output is dropped"; r.String() != want {
		t.Errorf("reported %q, want %q", r, want)
	}
}

// TestDetachLosesNothing: what the process writes between two readers is kept.
func TestDetachLosesNothing(t *testing.T) {
	_, c := fifos(t, "out")
	r := &reports{}
	c.Report = r.add
	g := &guest{t: t}
	s := open(t, g, c)
	want := random(3 << 20)
	part := len(want) / 4 // less than a pipe holds
	var got []byte
	for i := range 4 {
		attached := i%2 == 0
		var client *os.File
		if attached {
			client = reads(t, c.Stdout)
		}
		written := make(chan error, 1)
		go func() {
			_, err := g.far[0].Write(want[i*part : (i+1)*part])
			written <- err
		}()
		if !attached {
			if err := <-written; err != nil {
				t.Fatal(err)
			}
			if err := s.Drain(t.Context(), uint64((i+1)*part), 0); err != nil {
				t.Fatal(err)
			}
			client = reads(t, c.Stdout)
		}
		buf := make([]byte, part)
		if n, err := io.ReadFull(client, buf); err != nil {
			t.Fatalf("part %d: %d bytes, %v", i, n, err)
		}
		got = append(got, buf...)
		client.Close()
	}
	if !bytes.Equal(got, want) {
		t.Error("bytes differ")
	}
	if r.String() != "" {
		t.Errorf("reported: %s", r)
	}
}

func TestOutputBeforeAnyReader(t *testing.T) {
	_, c := fifos(t, "out")
	g := &guest{t: t}
	s := open(t, g, c)
	io.WriteString(g.far[0], "early")
	if err := s.Drain(t.Context(), 5, 0); err != nil {
		t.Fatal(err)
	}
	client := reads(t, c.Stdout)
	g.far[0].Close()
	if got, err := io.ReadAll(client); err != nil || string(got) != "early" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestDrainEnds(t *testing.T) {
	_, c := fifos(t, "out")
	g := &guest{t: t}
	s := open(t, g, c)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Drain(ctx, 1, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	g.far[0].Close() // a stream that ended has no more
	if err := s.Drain(t.Context(), 1, 1); err != nil {
		t.Error(err)
	}
}

func TestDrainWaitsForReader(t *testing.T) {
	_, c := fifos(t, "out", "err")
	g := &guest{t: t}
	client, other := reads(t, c.Stdout), reads(t, c.Stderr)
	s := open(t, g, c)
	other.Close() // nobody will take what is on stderr
	io.WriteString(g.far[0], "last")
	io.WriteString(g.far[1], "lost")
	drained := make(chan error, 1)
	go func() { drained <- s.Drain(t.Context(), 4, 4) }()
	// As long as the bytes are in the pipe nothing may happen; see that for a
	// few of the times that emptied looks.
	select {
	case err := <-drained:
		t.Fatalf("Drain returned %v before the reader had the bytes", err)
	case <-time.After(10 * emptiedMax):
	}
	b := make([]byte, 8)
	n, err := client.Read(b)
	if string(b[:n]) != "last" {
		t.Fatalf("read %q, %v", b[:n], err)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

func TestDrainGivesUpOnReader(t *testing.T) {
	_, c := fifos(t, "out")
	g := &guest{t: t}
	reads(t, c.Stdout)
	s := open(t, g, c)
	io.WriteString(g.far[0], "never read")
	ctx, cancel := context.WithTimeout(t.Context(), 5*emptiedMax)
	defer cancel()
	if err := s.Drain(ctx, 10, 0); err != nil {
		t.Errorf("bytes that are in the pipe count as delivered, got %v", err)
	}
}

func TestCloseWithBlockedReader(t *testing.T) {
	_, c := fifos(t, "in", "out")
	g := &guest{t: t}
	reads(t, c.Stdout) // never reads
	s := open(t, g, c)
	go g.far[1].Write(random(4 << 20))
	w := writes(t, c.Stdin)
	go w.Write(random(4 << 20))
	s.Close()
	s.Close()
}

func TestTerminalHasTwoStreams(t *testing.T) {
	_, c := fifos(t, "in", "out", "err")
	c.Terminal = true
	g := &guest{t: t}
	s := open(t, g, c)
	if in, out, err := s.Streams(); in != 1 || out != 2 || err != 0 {
		t.Errorf("streams %d %d %d", in, out, err)
	}
}

func TestOpenFailures(t *testing.T) {
	dir, c := fifos(t, "in", "out", "err")
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		c    Config
		fail int
		want string
		kind error
	}{
		{"npipe", Config{Stdout: "npipe:////x"}, 0, "stdio through npipe: is not supported (npipe:////x); use a named pipe, file:, binary: or binary-v2:", ErrUnsupported},
		{"streaming", Config{Stderr: "ttrpc+unix:///run/x.sock?streaming_id=a-stderr"}, 0, "stdio through ttrpc+unix: is not supported", ErrUnsupported},
		{"relative", Config{Stdin: "x"}, 0, `stdio name "x" is neither an absolute path nor a URL`, ErrUnsupported},
		{"stdin from a file", Config{Stdin: "file:///x"}, 0, "stdin comes from a named pipe or from nowhere, not from file:///x", ErrUnsupported},
		{"regular file", Config{Stdout: file}, 0, file + " is not a named pipe", ErrUnsupported},
		{"missing", Config{Stdin: dir + "/none"}, 0, dir + "/none", os.ErrNotExist},
		{"file that is a folder", Config{Stdout: "file://" + dir}, 0, "open stdout: open " + dir + ": is a directory", nil},
		{"file that is a pipe", Config{Stderr: "file://" + c.Stderr, Stdin: c.Stdin, Stdout: c.Stdout}, 0, "open stderr: open " + c.Stderr, nil},
		{"file below a file", Config{Stdout: "file://" + file + "/x"}, 0, file + ": not a directory", nil},
		{"missing logger", Config{Stdout: "binary://" + dir + "/none"}, 0, "start logger " + dir + "/none: no such file or directory", os.ErrNotExist},
		{"logger without a right", Config{Stdout: "binary://" + file}, 0, "start logger " + file + ": permission denied", os.ErrPermission},
		{"no stream for a logger", Config{Stdout: loggerURL("binary", "copy", dir)}, 2, "open stderr's stream: no stream", nil},
		{"first stream", c, 1, "open stdin's stream: no stream", nil},
		{"last stream", c, 3, "open stderr's stream: no stream", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := openFiles(t)
			g := &guest{t: t, fail: tt.fail}
			_, err := Open(t.Context(), tt.c, g.dial)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if tt.kind != nil && !errors.Is(err, tt.kind) {
				t.Errorf("got %v, want %v", err, tt.kind)
			}
			for _, f := range g.far {
				f.Close()
			}
			if after := openFiles(t); after != before {
				t.Errorf("%d descriptors before, %d after", before, after)
			}
		})
	}
}

func TestNothing(t *testing.T) {
	s := open(t, &guest{t: t}, Config{})
	s.CloseStdin()
	if err := s.Drain(t.Context(), 0, 0); err != nil {
		t.Error(err)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}
