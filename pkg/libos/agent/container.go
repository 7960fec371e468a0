// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/xcontainer/xcontainer/pkg/libos/agent/stage"
	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// container is one from its creation until it is removed.
//
//	creating -> created -> running -> (init has ended) -> removed
type container struct {
	id     string
	cgroup *cgroup
	init   *process

	mu       sync.Mutex
	state    state
	execs    map[string]*process // nil value: being started
	killedBy unix.Signal         // what ended an init that had not been started

	oomExplained sync.Once
}

type state int

const (
	creating state = iota
	created
	starting
	running
)

// initFlags are the namespaces of a new container. The cgroup namespace comes
// later (package stage), the network is the domain's.
func initFlags(spec *agentapi.Container) uintptr {
	const all = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	if spec.GetGuestPids() {
		return all &^ unix.CLONE_NEWPID
	}
	return all
}

// createContainer makes a container and its waiting init.
func (a *Agent) createContainer(ctx context.Context, id string, spec *agentapi.Container) (*container, error) {
	c := &container{id: id, execs: make(map[string]*process)}
	if err := a.insert(c); err != nil {
		return nil, err
	}
	if err := a.buildContainer(ctx, c, spec); err != nil {
		a.forget(c)
		return nil, err
	}
	c.mu.Lock()
	c.state = created
	c.mu.Unlock()
	return c, nil
}

func (a *Agent) buildContainer(ctx context.Context, c *container, spec *agentapi.Container) (err error) {
	io, err := a.openStdio(ctx, spec.GetProcess())
	if err != nil {
		return err
	}
	if c.cgroup, err = a.cgroups.make(c.id, spec.GetResources()); err != nil {
		io.abandon()
		return err
	}
	defer func() {
		if err != nil {
			_ = c.cgroup.remove() // the first error is the one that helps
		}
	}()
	refused := c.cgroup.forksRefused()
	p, err := a.spawn(launch{
		args:   []string{stage.KindInit, a.cfg.Exports, a.cfg.MountPoint},
		flags:  initFlags(spec),
		cgroup: c.cgroup,
		config: spec,
	}, io)
	if err != nil {
		return c.cgroup.explain(refused, err)
	}
	if err := p.expect(ctx, stage.Ready); err != nil {
		p.destroy()
		return c.cgroup.explain(refused, err)
	}
	c.init = p
	p.settled()
	p.stdio.started()
	return nil
}

// openStdio takes the streams that a process names.
func (a *Agent) openStdio(ctx context.Context, p *agentapi.Process) (*stdio, error) {
	s := p.GetStreams()
	var conns [3]net.Conn
	for i, number := range []uint64{s.GetStdin(), s.GetStdout(), s.GetStderr()} {
		var err error
		if conns[i], err = a.streams.take(ctx, number); err != nil {
			for _, c := range conns[:i] {
				if c != nil {
					c.Close()
				}
			}
			return nil, err
		}
	}
	open := newPipes
	if p.GetTerminal() {
		open = newTerminal
	}
	io, err := open(conns)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "stdio: %v", err)
	}
	return io, nil
}

// start lets the waiting init go.
func (c *container) start(ctx context.Context) error {
	c.mu.Lock()
	if c.state != created {
		c.mu.Unlock()
		return status.Errorf(codes.FailedPrecondition, "container %q has been started before", c.id)
	}
	if !c.init.running() {
		c.mu.Unlock()
		return status.Errorf(codes.FailedPrecondition, "container %q has ended before its start", c.id)
	}
	c.state = starting
	c.mu.Unlock()

	defer c.init.ctl.Close()
	err := stage.WriteFrame(c.init.ctl, stage.Start, nil)
	if err == nil {
		err = c.init.expect(ctx, 0)
	} else {
		err = status.Errorf(codes.FailedPrecondition, "container %q has ended before its start", c.id)
	}
	if err != nil {
		_ = c.init.send(unix.SIGKILL)
	}
	c.mu.Lock()
	c.state = running
	c.mu.Unlock()
	return err
}

// exec starts one more process in the container.
func (a *Agent) exec(ctx context.Context, c *container, execID string, spec *agentapi.Process) (*process, error) {
	if err := c.reserve(execID); err != nil {
		return nil, err
	}
	p, err := a.buildExec(ctx, c, spec)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		delete(c.execs, execID)
		return nil, err
	}
	c.execs[execID] = p
	return p, nil
}

// reserve takes the exec id for a process that is about to be started.
func (c *container) reserve(execID string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != running || !c.init.running() {
		return status.Errorf(codes.FailedPrecondition, "container %q is not running", c.id)
	}
	if _, ok := c.execs[execID]; ok {
		return status.Errorf(codes.AlreadyExists, "process %q of container %q exists", execID, c.id)
	}
	c.execs[execID] = nil
	return nil
}

func (a *Agent) buildExec(ctx context.Context, c *container, spec *agentapi.Process) (*process, error) {
	io, err := a.openStdio(ctx, spec)
	if err != nil {
		return nil, err
	}
	refused := c.cgroup.forksRefused()
	p, err := a.spawn(launch{
		args:   []string{stage.KindExec},
		cgroup: c.cgroup,
		join:   c.init,
		config: spec,
	}, io)
	if err != nil {
		if isEnding(err) {
			c.init.await(endTimeout)
		}
		if !c.init.running() {
			return nil, status.Errorf(codes.FailedPrecondition, "container %q is not running", c.id)
		}
		return nil, c.cgroup.explain(refused, err)
	}
	if err := p.expect(ctx, 0); err != nil {
		p.destroy()
		return nil, c.cgroup.explain(refused, err)
	}
	p.ctl.Close()
	p.settled()
	p.stdio.started()
	return p, nil
}

// isEnding reports whether a fork may have failed because the namespace's init
// is about to end: it has no namespaces any more (ESRCH), or there is no new
// process in them (ENOMEM).
func isEnding(err error) bool {
	return errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOMEM)
}

// process finds the init, for an empty exec id, or an exec.
func (c *container) process(execID string) (*process, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.init
	if execID != "" {
		p = c.execs[execID]
	}
	if c.state == creating || p == nil {
		return nil, status.Errorf(codes.NotFound, "process %q of container %q not found", execID, c.id)
	}
	return p, nil
}

// signal sends a signal to one process, or to all of the container.
func (c *container) signal(execID string, sig unix.Signal, all bool) error {
	p, err := c.process(execID)
	if err != nil {
		return err
	}
	ended := status.Errorf(codes.NotFound, "process %q of container %q has ended", execID, c.id)
	if !p.running() {
		return ended
	}
	c.mu.Lock()
	if c.state == created && sig != 0 && endsByDefault(sig) {
		// The stage is not the program yet. A signal that would end the
		// program ends it; as init of its namespace it would ignore others.
		c.killedBy, sig, all = sig, unix.SIGKILL, false
	}
	c.mu.Unlock()
	if all && execID == "" {
		err = c.signalAll(sig)
	} else {
		err = p.send(sig)
	}
	switch {
	case errors.Is(err, unix.ESRCH), errors.Is(err, os.ErrClosed):
		return ended
	case errors.Is(err, unix.EINVAL):
		return status.Errorf(codes.InvalidArgument, "no signal has number %d", sig)
	case err != nil:
		return status.Errorf(codes.Internal, "signal %d: %v", sig, err)
	}
	return nil
}

// signalAll sends a signal to every process of the container.
func (c *container) signalAll(sig unix.Signal) error {
	if sig == unix.SIGKILL {
		c.mu.Lock()
		c.init.killed.Store(true)
		for _, p := range c.execs {
			if p != nil {
				p.killed.Store(true)
			}
		}
		c.mu.Unlock()
	}
	return c.cgroup.signal(sig)
}

// endsByDefault reports whether the default action of a signal ends a process
// (signal(7)).
func endsByDefault(sig unix.Signal) bool {
	switch sig {
	case unix.SIGCHLD, unix.SIGCONT, unix.SIGURG, unix.SIGWINCH, unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU:
		return false
	}
	return true
}

// exitOf waits for the end of a process.
func (c *container) exitOf(ctx context.Context, p *process) (exit, error) {
	select {
	case <-p.done:
	case <-ctx.Done():
		return exit{}, status.FromContextError(ctx.Err()).Err()
	}
	e := p.exit
	c.mu.Lock()
	defer c.mu.Unlock()
	if p == c.init && c.killedBy != 0 {
		e.status = 128 + uint32(c.killedBy)
	}
	return e, nil
}

// removeExec forgets an ended exec.
func (c *container) removeExec(execID string) error {
	p, err := c.process(execID)
	if err != nil {
		return err
	}
	if p.running() {
		return status.Errorf(codes.FailedPrecondition, "process %q of container %q is running", execID, c.id)
	}
	c.mu.Lock()
	delete(c.execs, execID)
	c.mu.Unlock()
	p.stdio.hangUp()
	return nil
}

// removeContainer forgets a container that has ended or was never started.
func (a *Agent) removeContainer(c *container) error {
	p, err := c.process("")
	if err != nil {
		return err
	}
	c.mu.Lock()
	live := c.state != created && p.running()
	if !live {
		c.state = running // no start from here on
	}
	execs := c.execs
	if !live {
		c.execs = make(map[string]*process)
	}
	c.mu.Unlock()
	if live {
		return status.Errorf(codes.FailedPrecondition, "container %q is running", c.id)
	}
	_ = p.send(unix.SIGKILL)
	<-p.done
	p.ctl.Close()
	p.stdio.hangUp()
	for _, e := range execs {
		if e != nil {
			<-e.done // it ended with init
			e.stdio.hangUp()
		}
	}
	err = c.cgroup.remove()
	a.forget(c)
	if err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	return nil
}
