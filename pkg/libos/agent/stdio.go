// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// pipeSize is the size of a process's pipes in bytes: enough that a program
// which prints and ends seldom waits for the host. The kernel takes memory only
// for what is in the pipe.
const pipeSize = 256 << 10

// copySize is the size in bytes of the buffer that each stream copies through.
const copySize = 32 << 10

// maxSettle bounds in bytes what is taken out of a terminal when its process
// ends. A pty holds less.
const maxSettle = 128 << 10

// stdio is the three streams of a process, or its terminal.
type stdio struct {
	in       *inStream
	out, err *outStream
	master   *os.File // of a terminal, else nil

	conns [3]net.Conn // as claimed; nil is /dev/null
	child [3]*os.File // the process's ends until it has been started
}

// newPipes makes a process's pipes. Stream connections that are nil stand for
// /dev/null. It owns conns, also when it fails.
func newPipes(conns [3]net.Conn) (_ *stdio, err error) {
	s := &stdio{conns: conns}
	defer func() {
		if err != nil {
			s.abandon()
		}
	}()
	for i, conn := range conns {
		if conn == nil {
			if s.child[i], err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
				return nil, err
			}
			continue
		}
		ours, theirs, err := newPipe(i == 0)
		if err != nil {
			return nil, fmt.Errorf("stdio pipe: %w", err)
		}
		s.child[i] = theirs
		if err := s.connect(i, ours, conn); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// newPipe makes a pipe of which our end does not block; the process's does, as
// programs expect.
func newPipe(input bool) (ours, theirs *os.File, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, err
	}
	us, them := p[0], p[1]
	if input {
		us, them = p[1], p[0]
	}
	// A smaller pipe works as well.
	_, _ = unix.FcntlInt(uintptr(us), unix.F_SETPIPE_SZ, pipeSize)
	if err := unix.SetNonblock(us, true); err != nil {
		unix.Close(us)
		unix.Close(them)
		return nil, nil, err
	}
	return os.NewFile(uintptr(us), "stdio"), os.NewFile(uintptr(them), "stdio"), nil
}

// connect joins our end of a pipe and a stream connection.
func (s *stdio) connect(i int, ours *os.File, conn net.Conn) error {
	raw, err := ours.SyscallConn()
	if err != nil {
		ours.Close()
		return err
	}
	switch i {
	case 0:
		s.in = &inStream{conn: conn, dst: ours, raw: raw, closeDst: true}
	case 1:
		s.out = &outStream{conn: conn, src: ours, raw: raw}
	case 2:
		s.err = &outStream{conn: conn, src: ours, raw: raw}
	}
	return nil
}

// newTerminal prepares the stdio of a process whose terminal the stage makes:
// until then it has /dev/null. It owns conns, also when it fails.
func newTerminal(conns [3]net.Conn) (*stdio, error) {
	s := &stdio{conns: conns}
	for i := range s.child {
		var err error
		if s.child[i], err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
			s.abandon()
			return nil, err
		}
	}
	return s, nil
}

// setMaster gives a terminal's stdio the master of its pty, which it owns from
// here on.
func (s *stdio) setMaster(fd int) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return err
	}
	s.master = os.NewFile(uintptr(fd), "terminal")
	raw, err := s.master.SyscallConn()
	if err != nil {
		return err
	}
	// Without a connection the output is read and discarded.
	s.out = &outStream{conn: s.conns[1], src: s.master, raw: raw, terminal: true}
	if s.conns[0] != nil {
		s.in = &inStream{conn: s.conns[0], dst: s.master, raw: raw}
		s.out.peer = s.conns[0]
	}
	return nil
}

// started drops the process's ends and begins to copy.
func (s *stdio) started() {
	s.closeChild()
	if s.in != nil {
		go s.in.run()
	}
	for _, o := range []*outStream{s.out, s.err} {
		if o != nil {
			go o.run()
		}
	}
}

// abandon closes everything of a process that has not been started.
func (s *stdio) abandon() {
	s.closeChild()
	s.hangUp()
	if s.in != nil {
		s.in.dst.Close()
	}
	for _, o := range []*outStream{s.out, s.err} {
		if o != nil {
			o.src.Close()
		}
	}
}

func (s *stdio) closeChild() {
	for i, f := range s.child {
		if f != nil {
			f.Close()
			s.child[i] = nil
		}
	}
}

// hangUp ends the connections to the host, and a terminal. What still writes to
// a pipe is read and discarded.
func (s *stdio) hangUp() {
	for _, c := range s.conns {
		if c != nil {
			c.Close()
		}
	}
	if s.master != nil {
		s.master.Close()
	}
}

// settle is called when the process has been reaped. It returns what its
// streams held then, in bytes since its start, and never blocks.
func (s *stdio) settle() (stdout, stderr uint64) {
	if s.out != nil {
		stdout = s.out.settle()
	}
	if s.err != nil {
		stderr = s.err.settle()
	}
	return stdout, stderr
}

// resize sets the size of the terminal in characters.
func (s *stdio) resize(rows, columns uint16) error {
	raw, err := s.master.SyscallConn()
	if err != nil {
		return err
	}
	var ioctlErr error
	err = raw.Control(func(fd uintptr) {
		ioctlErr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	})
	return errors.Join(err, ioctlErr)
}

// outStream carries output from a pipe or pty to a stream connection.
type outStream struct {
	conn     net.Conn // nil: discard
	peer     net.Conn // a terminal's input, which ends with the output
	src      *os.File
	raw      syscall.RawConn
	terminal bool

	mu      sync.Mutex // held over each read and its count
	count   uint64     // bytes read from src
	pending []byte     // read by settle, not sent yet
}

// run copies until the last writer has gone. When the host no longer listens it
// goes on reading, so that no writer waits for a reader that has left.
func (s *outStream) run() {
	buf := make([]byte, copySize)
	conn := s.conn
	for {
		n, err := s.read(buf)
		if n > 0 && conn != nil {
			if _, err := conn.Write(buf[:n]); err != nil {
				conn.Close()
				conn = nil
			}
		}
		if n == 0 || err != nil {
			break
		}
	}
	if conn != nil {
		conn.Close()
	}
	if s.peer != nil {
		s.peer.Close()
	}
	s.src.Close()
}

// read takes the next bytes in order; 0 bytes mean the end.
func (s *outStream) read(buf []byte) (n int, err error) {
	rawErr := s.raw.Read(func(fd uintptr) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.pending) > 0 {
			n = copy(buf, s.pending)
			s.pending = s.pending[n:]
			return true
		}
		n, err = readFD(int(fd), buf)
		s.count += uint64(n)
		return !errors.Is(err, unix.EAGAIN)
	})
	if rawErr != nil {
		return s.rest(buf), rawErr
	}
	return n, err
}

// rest is what settle has left when the source has gone.
func (s *outStream) rest(buf []byte) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := copy(buf, s.pending)
	s.pending = s.pending[n:]
	return n
}

// settle returns how many bytes the stream has had until now, sent or not.
func (s *outStream) settle() uint64 {
	s.mu.Lock()
	total := s.count
	s.mu.Unlock()
	// An error means that the source is closed: then all has been read.
	_ = s.raw.Control(func(fd uintptr) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.terminal {
			s.drainTerminal(int(fd))
			total = s.count
			return
		}
		held, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ) // FIONREAD by its other name
		total = s.count
		if err == nil && held > 0 {
			total += uint64(held)
		}
	})
	return total
}

// drainTerminal takes out what a pty holds. Part of it may be on its way
// between the two ends, where FIONREAD does not count it; poll(2) on the master
// moves it on first (n_tty_poll).
func (s *outStream) drainTerminal(fd int) {
	buf := make([]byte, 4096)
	for len(s.pending) < maxSettle {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, 0); err != nil || n == 0 || p[0].Revents&unix.POLLIN == 0 {
			return
		}
		n, err := readFD(fd, buf)
		if n == 0 || err != nil {
			return
		}
		s.count += uint64(n)
		s.pending = append(s.pending, buf[:n]...)
	}
}

// readFD is read(2) with no negative counts and no interruptions.
func readFD(fd int, buf []byte) (int, error) {
	for {
		n, err := unix.Read(fd, buf)
		if !errors.Is(err, unix.EINTR) {
			return max(n, 0), err
		}
	}
}

// inStream carries input from a stream connection to a pipe or pty.
type inStream struct {
	conn     net.Conn
	dst      *os.File
	raw      syscall.RawConn
	closeDst bool // the end of input closes dst: a pipe
}

// run copies until the host ends the input or the process has stopped reading.
func (s *inStream) run() {
	if s.closeDst {
		go s.watch()
	}
	buf := make([]byte, copySize)
	for {
		n, err := s.conn.Read(buf)
		if n > 0 {
			if _, err := s.dst.Write(buf[:n]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	s.conn.Close()
	if s.closeDst {
		s.dst.Close()
	}
}

// watch ends the input when the pipe has lost its last reader, also while
// nothing arrives from the host. The poller reports that as readiness to read
// the write end (EPOLLERR).
func (s *inStream) watch() {
	err := s.raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(p, 0)
		return err == nil && n > 0 && p[0].Revents&unix.POLLERR != 0
	})
	if err == nil {
		s.conn.Close()
	}
}
