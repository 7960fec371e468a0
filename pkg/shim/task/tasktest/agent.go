// SPDX-License-Identifier: Apache-2.0

package tasktest

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// agent is the service of one guest, which has one container.
type agent struct {
	g *Guest

	mu        sync.Mutex
	streams   map[uint64]*net.UnixConn // guarded by mu: offered, not yet taken
	container *agentapi.Container      // guarded by mu: what was asked for
	processes map[string]*process      // guarded by mu; init is ""
	synced    bool                     // guarded by mu
	nextPID   uint32                   // guarded by mu
	limits    limits

	hung     chan struct{}
	hangOnce sync.Once
	stopped  chan struct{}
	stopOnce sync.Once
}

func newAgent(g *Guest) *agent {
	return &agent{
		g:         g,
		streams:   make(map[uint64]*net.UnixConn),
		processes: make(map[string]*process),
		limits:    newLimits(),
		hung:      make(chan struct{}),
		stopped:   make(chan struct{}),
	}
}

func (a *agent) offer(n uint64, c *net.UnixConn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.streams[n] = c
}

func (a *agent) hang() { a.hangOnce.Do(func() { close(a.hung) }) }

func (a *agent) wasSynced() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.synced
}

// halt is what the end of a domain does to its processes.
func (a *agent) halt() {
	a.stopOnce.Do(func() { close(a.stopped) })
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.processes {
		p.destroy()
	}
	for _, c := range a.streams {
		c.Close()
	}
}

// freeze stops or continues the processes of a domain that is paused or resumed.
func (a *agent) freeze(on bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.processes {
		p.freeze(on)
	}
}

// thaw returns when the guest is not paused, or has ended.
func (a *agent) thaw() {
	if c := a.g.frozen(); c != nil {
		select {
		case <-c:
		case <-a.stopped:
		}
	}
}

// enter is the beginning of every call.
func (a *agent) enter(step string) error {
	a.thaw()
	select {
	case <-a.hung:
		<-a.stopped
		return errgrpc.ToGRPC(errdefs.ErrUnavailable)
	default:
	}
	return errgrpc.ToGRPC(a.g.world.fail(step))
}

func (a *agent) find(id, execID string) (*process, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.processes[execID]
	if p == nil || id != a.g.Config.ID {
		return nil, errgrpc.ToGRPCf(errdefs.ErrNotFound, "no process %q of %q", execID, id)
	}
	return p, nil
}

// take takes the streams that a process names.
func (a *agent) take(s *agentapi.Streams) (in, out, err *net.UnixConn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	take := func(n uint64) *net.UnixConn {
		c := a.streams[n]
		delete(a.streams, n)
		return c
	}
	return take(s.GetStdin()), take(s.GetStdout()), take(s.GetStderr())
}

func lookup(args []string) error {
	_, err := exec.LookPath(args[0])
	if err != nil {
		return errgrpc.ToGRPCf(errdefs.ErrNotFound, "exec: %q: executable file not found in $PATH", args[0])
	}
	return nil
}

// CreateContainer implements agentapi.AgentService.
func (a *agent) CreateContainer(_ context.Context, r *agentapi.CreateContainerRequest) (*agentapi.CreateContainerResponse, error) {
	if err := a.enter("CreateContainer"); err != nil {
		return nil, err
	}
	c := r.Container
	names := []string{c.Rootfs}
	for _, m := range c.Mounts {
		if m.Type == "bind" {
			names = append(names, m.Source)
		}
	}
	for _, n := range names {
		if !strings.HasPrefix(n, r.Id+"/") || a.g.Export(n) == "" {
			return nil, errgrpc.ToGRPCf(errdefs.ErrInvalidArgument, "no export %q", n)
		}
	}
	if err := lookup(c.Process.Args); err != nil {
		return nil, err
	}
	a.mu.Lock()
	a.container = c
	a.mu.Unlock()
	return &agentapi.CreateContainerResponse{Pid: a.add("", newProcess(a, c.Process))}, nil
}

// StartContainer implements agentapi.AgentService.
func (a *agent) StartContainer(_ context.Context, r *agentapi.StartContainerRequest) (*agentapi.StartContainerResponse, error) {
	if err := a.enter("StartContainer"); err != nil {
		return nil, err
	}
	p, err := a.find(r.Id, "")
	if err != nil {
		return nil, err
	}
	if err := p.start(); err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	go func() {
		<-p.ended
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, other := range a.processes {
			other.signal(unix.SIGKILL, true)
		}
	}()
	return &agentapi.StartContainerResponse{}, nil
}

// Exec implements agentapi.AgentService.
func (a *agent) Exec(_ context.Context, r *agentapi.ExecRequest) (*agentapi.ExecResponse, error) {
	if err := a.enter("Exec"); err != nil {
		return nil, err
	}
	if err := lookup(r.Process.Args); err != nil {
		return nil, err
	}
	p := newProcess(a, r.Process)
	if err := p.start(); err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	return &agentapi.ExecResponse{Pid: a.add(r.ExecId, p)}, nil
}

// add makes a process known and gives it a number.
func (a *agent) add(execID string, p *process) uint32 {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.nextPID++
	p.pid = a.nextPID
	a.processes[execID] = p
	return p.pid
}

// Wait implements agentapi.AgentService.
func (a *agent) Wait(ctx context.Context, r *agentapi.WaitRequest) (*agentapi.WaitResponse, error) {
	p, err := a.find(r.Id, r.ExecId)
	if err != nil {
		return nil, err
	}
	select {
	case <-p.ended:
	case <-ctx.Done():
		return nil, errgrpc.ToGRPC(ctx.Err())
	case <-a.stopped:
		return nil, errgrpc.ToGRPC(errdefs.ErrUnavailable)
	}
	a.thaw()
	select {
	case <-a.hung:
		<-a.stopped
	default:
	}
	resp := &agentapi.WaitResponse{
		ExitStatus: p.status, ExitedAt: timestamppb.Now(), StdoutBytes: p.outBytes, StderrBytes: p.errBytes,
	}
	resp.OomKills, resp.OomKilled = a.limits.ooms(r.ExecId)
	return resp, nil
}

// Signal implements agentapi.AgentService.
func (a *agent) Signal(_ context.Context, r *agentapi.SignalRequest) (*agentapi.SignalResponse, error) {
	if err := a.enter("Signal"); err != nil {
		return nil, err
	}
	p, err := a.find(r.Id, r.ExecId)
	if err != nil {
		return nil, err
	}
	if err := p.signal(unix.Signal(r.Signal), r.All); err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	return &agentapi.SignalResponse{}, nil
}

// Resize implements agentapi.AgentService.
func (a *agent) Resize(_ context.Context, r *agentapi.ResizeRequest) (*agentapi.ResizeResponse, error) {
	p, err := a.find(r.Id, r.ExecId)
	if err != nil {
		return nil, err
	}
	if err := p.resize(r.Rows, r.Columns); err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	return &agentapi.ResizeResponse{}, nil
}

// Remove implements agentapi.AgentService.
func (a *agent) Remove(_ context.Context, r *agentapi.RemoveRequest) (*agentapi.RemoveResponse, error) {
	p, err := a.find(r.Id, r.ExecId)
	if err != nil {
		return nil, err
	}
	select {
	case <-p.ended:
	default:
		return nil, errgrpc.ToGRPC(fmt.Errorf("process %q runs: %w", r.ExecId, errdefs.ErrFailedPrecondition))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.processes, r.ExecId)
	return &agentapi.RemoveResponse{}, nil
}

// Sync implements agentapi.AgentService.
func (a *agent) Sync(context.Context, *agentapi.SyncRequest) (*agentapi.SyncResponse, error) {
	if err := a.enter("Sync"); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.synced = true
	for _, p := range a.processes {
		select {
		case <-p.ended:
		default:
			a.synced = false
		}
	}
	return &agentapi.SyncResponse{}, nil
}
