// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// Bounds on stream connections, docs/agent.md section 3.
const (
	claimTimeout  = 10 * time.Second // from the call to the connection
	unclaimedLife = 60 * time.Second // from the connection to the call
	maxUnclaimed  = 1024
)

var errNotStream = errors.New("not a stream connection")

// streamTable holds the stream connections that no call has named yet, and the
// calls that wait for one.
type streamTable struct {
	mu      sync.Mutex
	ready   map[uint64]readyStream
	waiting map[uint64]chan net.Conn // capacity 1
}

type readyStream struct {
	conn   net.Conn
	expiry *time.Timer
}

func newStreamTable() *streamTable {
	return &streamTable{
		ready:   make(map[uint64]readyStream),
		waiting: make(map[uint64]chan net.Conn),
	}
}

// serve takes stream connections until the listener is closed.
func (t *streamTable) serve(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			// Out of descriptors or memory: connections wait in the
			// listener's queue meanwhile.
			time.Sleep(10 * time.Millisecond)
			continue
		}
		go t.admit(conn)
	}
}

// admit reads a connection's preamble and puts it into the table.
func (t *streamTable) admit(conn net.Conn) {
	number, err := readPreamble(conn)
	if err != nil || !t.put(number, conn) {
		conn.Close()
	}
}

func readPreamble(conn net.Conn) (uint64, error) {
	if err := conn.SetReadDeadline(time.Now().Add(claimTimeout)); err != nil {
		return 0, err
	}
	var b [agentapi.StreamSize]byte
	if _, err := io.ReadFull(conn, b[:]); err != nil {
		return 0, err
	}
	number, err := decodePreamble(b)
	if err != nil {
		return 0, err
	}
	return number, conn.SetReadDeadline(time.Time{})
}

func decodePreamble(b [agentapi.StreamSize]byte) (uint64, error) {
	number := binary.LittleEndian.Uint64(b[8:])
	if binary.LittleEndian.Uint32(b[0:]) != agentapi.StreamMagic ||
		binary.LittleEndian.Uint32(b[4:]) != agentapi.Version || number == 0 {
		return 0, errNotStream
	}
	return number, nil
}

// put hands a connection to the call that waits for it, or keeps it for a
// while. It reports false for one that cannot be kept.
func (t *streamTable) put(number uint64, conn net.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c, ok := t.waiting[number]; ok {
		delete(t.waiting, number)
		c <- conn
		return true
	}
	if _, ok := t.ready[number]; ok || len(t.ready) >= maxUnclaimed {
		return false
	}
	expiry := time.AfterFunc(unclaimedLife, func() {
		if conn := t.drop(number); conn != nil {
			conn.Close()
		}
	})
	t.ready[number] = readyStream{conn, expiry}
	return true
}

func (t *streamTable) drop(number uint64) net.Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.ready[number]
	if !ok {
		return nil
	}
	delete(t.ready, number)
	s.expiry.Stop()
	return s.conn
}

// take returns the connection with the given number, nil for number 0, and
// waits for one that has not arrived. The caller owns it.
func (t *streamTable) take(ctx context.Context, number uint64) (net.Conn, error) {
	if number == 0 {
		return nil, nil
	}
	if conn := t.drop(number); conn != nil {
		return conn, nil
	}
	c := make(chan net.Conn, 1)
	t.mu.Lock()
	if s, ok := t.ready[number]; ok { // it came in between
		delete(t.ready, number)
		s.expiry.Stop()
		t.mu.Unlock()
		return s.conn, nil
	}
	if _, ok := t.waiting[number]; ok {
		t.mu.Unlock()
		return nil, status.Errorf(codes.InvalidArgument, "stream %d is named by two calls", number)
	}
	t.waiting[number] = c
	t.mu.Unlock()

	timeout := time.NewTimer(claimTimeout)
	defer timeout.Stop()
	select {
	case conn := <-c:
		return conn, nil
	case <-timeout.C:
	case <-ctx.Done():
	}
	t.mu.Lock()
	delete(t.waiting, number)
	t.mu.Unlock()
	select {
	case conn := <-c: // put was faster
		return conn, nil
	default:
		return nil, status.Errorf(codes.DeadlineExceeded, "stream %d has not been connected", number)
	}
}
