// SPDX-License-Identifier: Apache-2.0

package tasktest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
	"github.com/xcontainer/xcontainer/pkg/shim/task"
)

// World is a host on which domains boot. A domain is a file in Dir, named by its
// number, that holds its uuid: so another process can look and destroy.
type World struct {
	Dir string
	// Fail, if set, is asked before each step of Boot and of the guest's calls:
	// "createdomain", "record", "backend", "hello", "stream", "export", "pause",
	// "resume", "setmaxmemory", "setschedule", "usage", and the agent's methods.
	Fail func(step string) error
	// Booted, if set, is told of each guest.
	Booted func(*Guest)
	// Backend has Boot start a process for each domain.
	Backend bool
}

// Boot is a task.Boot.
func (w *World) Boot(ctx context.Context, c task.BootConfig) (_ task.Guest, err error) {
	g := &Guest{world: w, Config: c, dead: make(chan struct{}), exports: make(map[string]string)}
	g.agent = newAgent(g)
	g.dom.weight = c.Weight
	g.dom.usage = task.Usage{MemoryBytes: c.MemoryBytes, MaxMemoryBytes: c.MemoryBytes, VCPUs: c.VCPUs}
	defer func() {
		if err != nil {
			g.Close(context.WithoutCancel(ctx))
		}
	}()
	for _, s := range []struct {
		name string
		do   func() error
	}{
		{"createdomain", g.createDomain},
		{"record", func() error { return c.Record(g.DomID) }},
		{"backend", g.startBackend},
		{"hello", g.connect},
	} {
		start := time.Now()
		if err := w.fail(s.name); err != nil {
			return nil, err
		}
		if err := s.do(); err != nil {
			return nil, err
		}
		c.Step(s.name, time.Since(start))
	}
	if w.Booted != nil {
		w.Booted(g)
	}
	return g, nil
}

// Destroy ends the domain whose handle is uuid, if there is one.
func (w *World) Destroy(_ context.Context, uuid [16]byte) error {
	domains, err := os.ReadDir(w.Dir)
	if err != nil {
		return err
	}
	for _, d := range domains {
		name := filepath.Join(w.Dir, d.Name())
		b, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) || err == nil && string(b) != string(uuid[:]) {
			continue
		}
		if err := errors.Join(err, os.Remove(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Domains counts the domains of the host.
func (w *World) Domains() (int, error) {
	d, err := os.ReadDir(w.Dir)
	return len(d), err
}

func (w *World) fail(step string) error {
	if w.Fail == nil {
		return nil
	}
	return w.Fail(step)
}

// Guest is a domain.
type Guest struct {
	Config task.BootConfig
	DomID  uint16

	world   *World
	agent   *agent
	client  *ttrpc.Client
	server  *ttrpc.Server
	backend *exec.Cmd
	dead    chan struct{}
	death   error // valid after dead is closed
	dom     domain

	mu      sync.Mutex
	closed  bool              // guarded by mu
	gone    bool              // guarded by mu: dead is closed
	exports map[string]string // guarded by mu: name to host path
	streams uint64            // guarded by mu: the last number
}

func (g *Guest) createDomain() error {
	for id := 1; id < 1<<15; id++ {
		f, err := os.OpenFile(filepath.Join(g.world.Dir, strconv.Itoa(id)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		defer f.Close()
		g.DomID = uint16(id)
		_, err = f.Write(g.Config.UUID[:])
		return err
	}
	return errors.New("no domain id is free")
}

func (g *Guest) startBackend() error {
	if !g.world.Backend {
		return nil
	}
	g.backend = exec.Command("sleep", "1000")
	g.backend.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := g.backend.Start(); err != nil {
		return err
	}
	return g.Config.RecordBackend(g.backend.Process.Pid)
}

// connect makes the agent's ttrpc connection.
func (g *Guest) connect() error {
	srv, err := ttrpc.NewServer()
	if err != nil {
		return err
	}
	g.server = srv
	agentapi.RegisterAgentService(srv, g.agent)
	near, far, err := pair()
	if err != nil {
		return err
	}
	go srv.Serve(context.Background(), &oneConn{conn: far, closed: make(chan struct{})})
	g.client = ttrpc.NewClient(near)
	return nil
}

// Agent implements task.Guest.
func (g *Guest) Agent() agentapi.AgentService { return agentapi.NewAgentClient(g.client) }

// Stream implements task.Guest.
func (g *Guest) Stream(context.Context) (uint64, task.Stream, error) {
	if err := g.world.fail("stream"); err != nil {
		return 0, nil, err
	}
	near, far, err := pair()
	if err != nil {
		return 0, nil, err
	}
	g.mu.Lock()
	g.streams++
	n := g.streams
	g.mu.Unlock()
	g.agent.offer(n, far)
	return n, near, nil
}

// AddExport implements task.Guest.
func (g *Guest) AddExport(_ context.Context, name string, f *os.File, _ bool, _ time.Duration) error {
	if err := g.world.fail("export"); err != nil {
		return err
	}
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.exports[name] = path
	return nil
}

// RemoveExport implements task.Guest.
func (g *Guest) RemoveExport(_ context.Context, name string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.exports, name)
	return nil
}

// Export is the host path that is shared under name.
func (g *Guest) Export(name string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.exports[name]
}

// Dead implements task.Guest.
func (g *Guest) Dead() <-chan struct{} { return g.dead }

// Death implements task.Guest.
func (g *Guest) Death() error {
	select {
	case <-g.dead:
		return g.death
	default:
		return nil
	}
}

// Die ends the domain from outside, or by its own fault: as reason says.
func (g *Guest) Die(reason error) {
	g.mu.Lock()
	if g.gone || g.closed {
		g.mu.Unlock()
		return
	}
	g.gone = true
	g.death = reason
	close(g.dead)
	g.mu.Unlock()
	g.halt()
	g.world.Destroy(context.Background(), g.Config.UUID)
}

// Container is what the agent was asked for, nil before.
func (g *Guest) Container() *agentapi.Container {
	g.agent.mu.Lock()
	defer g.agent.mu.Unlock()
	return g.agent.container
}

// Hang has the agent answer nothing any more.
func (g *Guest) Hang() { g.agent.hang() }

// Synced says whether the guest was synced after its last process had ended.
func (g *Guest) Synced() bool { return g.agent.wasSynced() }

func (g *Guest) halt() {
	if g.client != nil {
		g.client.Close()
	}
	if g.server != nil {
		g.server.Close()
	}
	g.agent.halt()
}

// Close implements task.Guest.
func (g *Guest) Close(ctx context.Context) error {
	g.mu.Lock()
	first := !g.closed
	g.closed = true
	g.mu.Unlock()
	if !first {
		return nil
	}
	g.halt()
	if g.backend != nil && g.backend.Process != nil {
		g.backend.Process.Kill()
		g.backend.Wait()
	}
	if g.DomID == 0 {
		return nil
	}
	return g.world.Destroy(ctx, g.Config.UUID)
}

// pair is a connection with half-close.
func pair() (near, far *net.UnixConn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	var c [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "stream")
		conn, err := net.FileConn(f)
		f.Close()
		if err != nil {
			return nil, nil, err
		}
		c[i] = conn.(*net.UnixConn)
	}
	return c[0], c[1], nil
}

// oneConn is a listener with one connection.
type oneConn struct {
	mu     sync.Mutex
	conn   net.Conn // guarded by mu; nil when accepted
	once   sync.Once
	closed chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	l.mu.Lock()
	c := l.conn
	l.conn = nil
	l.mu.Unlock()
	if c != nil {
		return c, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *oneConn) Addr() net.Addr { return &net.UnixAddr{Name: "agent", Net: "unix"} }
