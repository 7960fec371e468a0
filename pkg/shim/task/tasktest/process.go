// SPDX-License-Identifier: Apache-2.0

package tasktest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"github.com/containerd/console"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// process is one process "in the guest".
type process struct {
	spec *agentapi.Process
	in   *net.UnixConn
	out  [2]*net.UnixConn
	pty  console.Console
	pid  uint32 // as the agent has it

	// valid after ended
	ended              chan struct{}
	status             uint32
	outBytes, errBytes uint64

	mu      sync.Mutex
	cmd     *exec.Cmd // guarded by mu; nil before start
	pumps   [2]*pump  // guarded by mu
	waiting bool      // guarded by mu: not yet started
}

func newProcess(a *agent, spec *agentapi.Process) *process {
	p := &process{spec: spec, ended: make(chan struct{}), waiting: true}
	p.in, p.out[0], p.out[1] = a.take(spec.Streams)
	return p
}

func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.waiting {
		return errdefs.ErrFailedPrecondition
	}
	cmd := exec.Command(p.spec.Args[0], p.spec.Args[1:]...)
	cmd.Env = append(os.Environ(), p.spec.Env...)
	// Go keeps the threads that start processes, so this is the test's death.
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL}
	var after []*os.File
	var err error
	if p.spec.Terminal {
		after, err = p.terminal(cmd)
	} else {
		after, err = p.pipes(cmd)
	}
	if err == nil {
		err = cmd.Start()
	}
	for _, f := range after {
		f.Close()
	}
	if err != nil {
		p.closeStreams()
		return err
	}
	p.cmd, p.waiting = cmd, false
	go p.wait()
	return nil
}

func (p *process) pipes(cmd *exec.Cmd) (after []*os.File, err error) {
	if p.in != nil {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		cmd.Stdin = r
		after = append(after, r)
		go func() {
			io.Copy(w, p.in)
			w.Close()
			p.in.Close()
		}()
	}
	for i, to := range []*io.Writer{&cmd.Stdout, &cmd.Stderr} {
		if p.out[i] == nil {
			continue
		}
		r, w, err := os.Pipe()
		if err != nil {
			return after, err
		}
		*to = w
		after = append(after, w)
		p.pumps[i] = &pump{from: r, to: p.out[i]}
		go p.pumps[i].run()
	}
	return after, nil
}

func (p *process) terminal(cmd *exec.Cmd) (after []*os.File, err error) {
	pty, name, err := console.NewPty()
	if err != nil {
		return nil, err
	}
	p.pty = pty
	if p.spec.Rows != 0 {
		pty.Resize(console.WinSize{Height: uint16(p.spec.Rows), Width: uint16(p.spec.Columns)})
	}
	tty, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr.Setctty = true
	if p.in != nil {
		go io.Copy(pty, p.in)
	}
	if p.out[0] != nil {
		go func() {
			io.Copy(p.out[0], pty)
			p.out[0].Close()
		}()
	}
	return []*os.File{tty}, nil
}

func (p *process) wait() {
	// Wait, not cmd.Wait: the command's files are not ours to wait for.
	state, err := p.cmd.Process.Wait()
	p.status = 255
	if err == nil {
		ws := state.Sys().(syscall.WaitStatus)
		p.status = uint32(ws.ExitStatus())
		if ws.Signaled() {
			p.status = 128 + uint32(ws.Signal())
		}
	}
	if m := p.pumps[0]; m != nil {
		p.outBytes = m.total()
	}
	if m := p.pumps[1]; m != nil {
		p.errBytes = m.total()
	}
	close(p.ended)
}

func (p *process) signal(sig unix.Signal, all bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.ended:
		if all && p.cmd != nil {
			unix.Kill(-p.cmd.Process.Pid, sig)
		}
		return errdefs.ErrNotFound
	default:
	}
	if p.waiting {
		if sig == unix.SIGKILL {
			p.waiting = false
			p.status = 128 + uint32(sig)
			p.closeStreams()
			close(p.ended)
		}
		return nil
	}
	pid := p.cmd.Process.Pid
	if all {
		pid = -pid
	}
	if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal: %w", err)
	}
	return nil
}

// freeze is what pausing the domain does to the process and its children.
func (p *process) freeze(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	sig := unix.SIGCONT
	if on {
		sig = unix.SIGSTOP
	}
	unix.Kill(-p.cmd.Process.Pid, sig)
}

func (p *process) resize(rows, columns uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pty == nil {
		return errdefs.ErrFailedPrecondition
	}
	return p.pty.Resize(console.WinSize{Height: uint16(rows), Width: uint16(columns)})
}

// destroy is the end of the domain.
func (p *process) destroy() {
	p.signal(unix.SIGKILL, true)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closeStreams()
}

func (p *process) closeStreams() {
	for _, c := range []*net.UnixConn{p.in, p.out[0], p.out[1]} {
		if c != nil {
			c.Close()
		}
	}
	if p.pty != nil {
		p.pty.Close()
	}
}

// pump copies a process's output, counting so that nothing is between the pipe
// and the count.
type pump struct {
	from *os.File
	to   *net.UnixConn

	mu  sync.Mutex
	got uint64 // guarded by mu: bytes taken from the pipe
}

func (m *pump) run() {
	defer m.from.Close()
	defer m.to.Close()
	raw, err := m.from.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 32<<10)
	discard := false
	for {
		n := 0
		var rerr error
		err := raw.Read(func(fd uintptr) bool {
			m.mu.Lock()
			defer m.mu.Unlock()
			n, rerr = unix.Read(int(fd), buf)
			if n > 0 {
				m.got += uint64(n)
			}
			return !errors.Is(rerr, unix.EAGAIN)
		})
		if err != nil || rerr != nil || n <= 0 {
			return
		}
		if !discard {
			if _, err := m.to.Write(buf[:n]); err != nil {
				discard = true
			}
		}
	}
}

// total is what the process has written.
func (m *pump) total() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	left := 0
	if raw, err := m.from.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { left, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	}
	return m.got + uint64(left)
}
