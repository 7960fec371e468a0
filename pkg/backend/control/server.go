// SPDX-License-Identifier: Apache-2.0

package control

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// maxRequests is how many requests are carried out at the same time; further
// ones wait in the socket.
const maxRequests = 64

// Handler carries out requests in the back-end process. All methods but Start
// may run at the same time as each other. A method owns the file or socket that
// it is given, whatever it returns. An error that wraps an errno keeps it on its
// way to the shim.
type Handler interface {
	// Start comes first and once.
	Start(cfg Config, files []*os.File) error
	AddExport(e Export) error
	RemoveExport(name string) error
	Dial(port uint32, s *net.UnixConn) error
	Listen(port uint32) error
	Unlisten(port uint32)
	// Attach gives the stream that Accept announced its socket; s is nil
	// when nobody wants it.
	Attach(stream uint64, s *net.UnixConn)
	Stats() Stats
	Drain()
}

// Server is the back-end's side.
type Server struct{ w wire }

// NewServer uses conn, one end of Pair, and owns it.
func NewServer(conn *net.UnixConn) *Server { return &Server{w: wire{conn: conn}} }

// Serve carries out requests with h until the shim closes its end, and then
// returns nil; requests under way are finished first. It returns an error when
// Start fails, which the shim hears of, and for a broken protocol.
func (s *Server) Serve(h Handler) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, maxRequests)
	buf := make([]byte, maxMessage)
	started := false
	for {
		m, files, err := s.w.receive(buf, true)
		if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		if started != (m.Op != opStart) {
			closeFiles(files)
			return fmt.Errorf("control: %w: %s, started is %v", ErrProtocol, m.Op, started)
		}
		if !started {
			started = true
			buf = make([]byte, 4<<10) // what follows is short
			if m.Config == nil {
				m.Config = &Config{}
			}
			err := h.Start(*m.Config, files)
			if rerr := s.reply(m, message{}, err); err != nil || rerr != nil {
				return errors.Join(err, rerr)
			}
			continue
		}
		slots <- struct{}{}
		wg.Add(1)
		go func() {
			defer func() { <-slots; wg.Done() }()
			s.carryOut(h, m, files)
		}()
	}
}

// Close ends the conversation; Serve returns.
func (s *Server) Close() error { return s.w.conn.Close() }

// GuestState tells the shim of a new value of guest_state.
func (s *Server) GuestState(v uint32) error { return s.w.send(message{Op: opState, State: v}) }

// Accept tells the shim that the guest opened a stream to port. The shim
// answers with Attach.
func (s *Server) Accept(port uint32, stream uint64) error {
	return s.w.send(message{Op: opAccept, Port: port, Stream: stream})
}

// Failed tells the shim why the back-end ends.
func (s *Server) Failed(err error) error {
	m := message{Op: opFailed}
	m.setError(err)
	return s.w.send(m)
}

func (s *Server) reply(to, m message, err error) error {
	m.Op, m.ID = opReply, to.ID
	m.setError(err)
	return s.w.send(m)
}

// carryOut handles one request. A reply that cannot be sent means that the shim
// has gone, which Serve finds out by itself.
func (s *Server) carryOut(h Handler, m message, files []*os.File) {
	var r message
	var err error
	want := 0
	switch m.Op {
	case opExport, opDial, opAttach:
		want = 1
	}
	if len(files) != want {
		closeFiles(files)
		s.reply(m, r, fmt.Errorf("control: %w: %s with %d files", ErrProtocol, m.Op, len(files)))
		return
	}
	switch m.Op {
	case opExport:
		if len(m.Name) > maxName {
			files[0].Close()
			err = unix.ENAMETOOLONG
			break
		}
		err = h.AddExport(Export{Name: m.Name, Dir: files[0], ReadOnly: m.ReadOnly, CacheTTL: m.TTL})
	case opUnexport:
		err = h.RemoveExport(m.Name)
	case opDial:
		var c *net.UnixConn
		if c, err = fileConn(files[0]); err == nil {
			err = h.Dial(m.Port, c)
		}
	case opListen:
		err = h.Listen(m.Port)
	case opUnlisten:
		h.Unlisten(m.Port)
	case opAttach, opRefuse:
		var c *net.UnixConn
		if m.Op == opAttach {
			c, _ = fileConn(files[0]) // nil: nobody gets the stream
		}
		h.Attach(m.Stream, c)
		return
	case opStats:
		st := h.Stats()
		r.Stats = &st
	case opDrain:
		h.Drain()
	default:
		err = fmt.Errorf("control: %w: unknown operation %q", ErrProtocol, m.Op)
	}
	s.reply(m, r, err)
}
