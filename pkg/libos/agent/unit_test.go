// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

func TestGreet(t *testing.T) {
	for _, c := range []struct {
		answer []byte
		want   string // of the error, "" for none
	}{
		{[]byte{1, 0, 0, 0}, ""},
		{[]byte{2, 0, 0, 0}, "the host wants protocol version 2, this agent has 1"},
		{[]byte{1, 0}, "read the answer to the hello: unexpected EOF"},
		{nil, "read the answer to the hello: EOF"},
	} {
		host, guest := net.Pipe()
		got := make(chan [agentapi.HelloSize]byte, 1)
		go func() {
			var b [agentapi.HelloSize]byte
			io.ReadFull(host, b[:])
			got <- b
			host.Write(c.answer)
			host.Close()
		}()
		err := greet(guest, 5)
		if (err == nil) != (c.want == "") || err != nil && err.Error() != c.want {
			t.Errorf("answer %v: %v, want %q", c.answer, err, c.want)
		}
		b := <-got
		le := binary.LittleEndian
		if string(b[:4]) != "XCAH" || le.Uint32(b[4:]) != 1 || le.Uint64(b[8:]) != 5 || le.Uint64(b[16:]) < 5 || le.Uint64(b[24:]) != 0 {
			t.Errorf("hello is %x", b)
		}
	}
}

// dialTable connects to a table's server with the given bytes.
func dialTable(t *testing.T, l net.Listener, b []byte) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	return c
}

func preamble(number uint64) []byte {
	b := binary.LittleEndian.AppendUint32(nil, agentapi.StreamMagic)
	b = binary.LittleEndian.AppendUint32(b, agentapi.Version)
	return binary.LittleEndian.AppendUint64(b, number)
}

func TestStreamTable(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	table := newStreamTable()
	done := make(chan error, 1)
	go func() { done <- table.serve(l) }()
	ctx, cancel := context.WithCancel(context.Background())

	// Before and after the call, with data right behind the number.
	count := func(waiting bool) int {
		table.mu.Lock()
		defer table.mu.Unlock()
		if waiting {
			return len(table.waiting)
		}
		return len(table.ready)
	}
	for number, before := range []bool{true, false} {
		number := uint64(number + 1)
		if before {
			dialTable(t, l, append(preamble(number), "data"...))
			waitFor(t, func() bool { return count(false) == 1 })
		}
		got := make(chan net.Conn, 1)
		go func() {
			c, err := table.take(ctx, number)
			if err != nil {
				t.Error(err)
			}
			got <- c
		}()
		if !before {
			waitFor(t, func() bool { return count(true) == 1 })
			dialTable(t, l, append(preamble(number), "data"...))
		}
		c := <-got
		b := make([]byte, 4)
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "data" {
			t.Errorf("stream %d: %q, %v", number, b, err)
		}
		c.Close()
	}
	if c, err := table.take(ctx, 0); c != nil || err != nil {
		t.Errorf("stream 0: %v, %v", c, err)
	}
	// The table closes what is no stream, or one twice.
	dialTable(t, l, preamble(9))
	waitFor(t, func() bool { return count(false) == 1 })
	for _, b := range [][]byte{preamble(0), preamble(9), append([]byte("GET / HTTP/1.0"), 0, 0)} {
		c := dialTable(t, l, b)
		if n, err := c.Read(make([]byte, 1)); err == nil {
			t.Errorf("%q: read %d bytes", b, n)
		}
	}
	cancel()
	if _, err := table.take(ctx, 77); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("stream that never comes: %v", err)
	}
	l.Close()
	if err := <-done; err != nil {
		t.Errorf("serve: %v", err)
	}
	if n := count(true); n != 0 {
		t.Errorf("%d calls are waiting", n)
	}
}

func FuzzPreamble(f *testing.F) {
	f.Add(preamble(1))
	f.Add(make([]byte, agentapi.StreamSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) != agentapi.StreamSize {
			return
		}
		number, err := decodePreamble([agentapi.StreamSize]byte(b))
		if err == nil && string(preamble(number)) != string(b) {
			t.Errorf("%x was read as %d", b, number)
		}
	})
}

func TestCheckID(t *testing.T) {
	for id, ok := range map[string]bool{
		"a": true, "A-b_c.9": true, strings.Repeat("x", 128): true,
		"": false, "a/b": false, "a b": false, "ä": false, "a\x00": false, strings.Repeat("x", 129): false,
	} {
		if err := checkID("container", id); (err == nil) != ok {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// TestBootNeedsPID1: outside a guest the command does nothing.
func TestBootNeedsPID1(t *testing.T) {
	if err := Boot(); err == nil || !strings.Contains(err.Error(), "first process") {
		t.Errorf("got %v", err)
	}
}
