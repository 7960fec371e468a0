// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/events"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

const (
	// startTimeout bounds a start, which waits for an exec(2) in the guest.
	startTimeout = time.Minute
	// removeTimeout bounds the agent's forgetting of a process.
	removeTimeout = 10 * time.Second
)

// start lets the container's init go.
func (c *container) start(ctx context.Context) error {
	p := c.init
	if err := p.begin(); err != nil {
		return err
	}
	done := c.steps.time("process start")
	_, err := c.guest.Agent().StartContainer(ctx, &agentapi.StartContainerRequest{Id: c.id})
	done()
	if err == nil {
		err = c.poststart(ctx)
	} else {
		err = fromAgent(err)
	}
	if err == nil {
		p.started(func() {
			c.s.Events.Publish(topicStart, &events.TaskStart{ContainerID: c.id, Pid: c.pid()})
		})
	} else {
		p.failed()
	}
	// One line with all of a container's making.
	logger := log.G(ctx).WithField("id", c.id).WithField("total", c.steps.total()).WithField("steps", c.steps.String())
	if err != nil {
		err = c.cause(ctx, err)
		logger.WithError(err).Error("start failed")
		c.endFailed(ctx)
		return err
	}
	logger.Info("container started")
	return nil
}

// endFailed ends an init that could not be started. Clients delete the task next,
// and they delete only what is stopped.
func (c *container) endFailed(ctx context.Context) {
	if err := c.signal(ctx, c.init, uint32(syscall.SIGKILL), false); err != nil && !errdefs.IsNotFound(err) {
		log.G(ctx).WithError(err).WithField("id", c.id).Error("kill")
	}
	select {
	case <-c.init.exited:
	case <-ctx.Done():
	}
}

// addExec makes p known, before it runs.
func (c *container) addExec(p *process) error {
	if err := c.paused(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return precondition("container %s has ended", c.id)
	}
	if _, ok := c.execs[p.execID]; ok {
		return fmt.Errorf("exec %s of container %s: %w", p.execID, c.id, errdefs.ErrAlreadyExists)
	}
	c.execs[p.execID] = p
	c.s.Events.Publish(topicExecAdded, &events.TaskExecAdded{ContainerID: c.id, ExecID: p.execID})
	return nil
}

// beginExec moves an exec to starting, unless the container is on its end: its
// exit event must be the last.
func (c *container) beginExec(execID string) (*process, error) {
	p, err := c.find(execID)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if st, _ := c.init.current(); c.ending || st != running {
		return nil, precondition("container %s is not running", c.id)
	}
	return p, p.begin()
}

func (c *container) startExec(ctx context.Context, execID string) error {
	leave, ok := c.gate.enter()
	if !ok {
		return c.errPaused()
	}
	defer leave()
	p, err := c.beginExec(execID)
	if err != nil {
		return err
	}
	var r *agentapi.ExecResponse
	if err = p.openIO(ctx); err == nil {
		r, err = c.guest.Agent().Exec(ctx, &agentapi.ExecRequest{Id: c.id, ExecId: execID, Process: p.spec})
		err = fromAgent(err)
	}
	if err != nil {
		err = c.cause(ctx, err)
		p.closeIO()
		p.failed()
		return err
	}
	p.setGuestPID(max(r.Pid, 1))
	p.started(func() {
		c.s.Events.Publish(topicExecStarted, &events.TaskExecStarted{ContainerID: c.id, ExecID: execID, Pid: p.pidLocked()})
	})
	go p.watchExec()
	return nil
}

// deleteExec forgets an exec that is not running.
func (c *container) deleteExec(ctx context.Context, p *process) error {
	st, _ := p.current()
	if st == starting || st == running {
		return precondition("%s is running; stop it first", p)
	}
	c.mu.Lock()
	if c.execs[p.execID] != p {
		c.mu.Unlock()
		return notFound("container %s has no exec %s", c.id, p.execID)
	}
	delete(c.execs, p.execID)
	ending := c.ending
	c.mu.Unlock()
	p.closeIO()
	// One that never ran has nothing to be blamed for; runc says 0, too.
	p.finish(exit{0, time.Now()}, false)
	defer p.waitIO(context.WithoutCancel(ctx))
	if st != stopped || ending {
		return nil
	}
	err := c.callOrKeep(ctx, "remove/"+p.execID, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, removeTimeout)
		defer cancel()
		_, err := c.guest.Agent().Remove(ctx, &agentapi.RemoveRequest{Id: c.id, ExecId: p.execID})
		return fromAgent(err)
	})
	if err != nil && !errdefs.IsNotFound(err) {
		log.G(ctx).WithError(err).WithField("id", c.id).Warnf("%s: the agent does not forget it", p)
	}
	return nil
}
