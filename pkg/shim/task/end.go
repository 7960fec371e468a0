// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// Bounds of what the end of a container waits for.
const (
	drainTimeout    = 10 * time.Second // output that a process left
	syncTimeout     = 10 * time.Second // the guest's dirty data
	teardownTimeout = 30 * time.Second // all of the clean-up
	execsTimeout    = drainTimeout + 2*time.Second
	signalTimeout   = 5 * time.Second  // the agent's answer to a signal
	resizeTimeout   = 5 * time.Second  // and to a terminal's new size
	killTimeout     = 30 * time.Second // init's end after SIGKILL
	termTimeout     = 10 * time.Second // init's end after its holder's other signals
	deathTimeout    = 5 * time.Second  // the reason, when a guest's agent is gone
)

// maxSignal is the last one that Linux has.
const maxSignal = 64

// wait waits for the end of a process. The response is nil if the guest ended
// or the process was given up.
func (c *container) wait(p *process) (*agentapi.WaitResponse, exit) {
	r, err := c.guest.Agent().Wait(p.waitCtx, &agentapi.WaitRequest{Id: c.id, ExecId: p.execID})
	// The guest's clock is not the one that clients compare with.
	now := time.Now()
	if err == nil {
		return r, exit{min(r.ExitStatus, exitUnknown), now}
	}
	if p.waitCtx.Err() != nil {
		return nil, exit{exitKilled, now}
	}
	logger := log.L.WithField("id", c.id)
	timeout := time.NewTimer(deathTimeout)
	defer timeout.Stop()
	select {
	case <-c.guestClosed:
		return nil, exit{exitKilled, now}
	case <-c.guest.Dead():
		death := c.guest.Death()
		status := uint32(exitUnknown)
		if errors.Is(death, ErrGuestDestroyed) {
			status = exitKilled
		}
		if p.execID == "" {
			logger.WithError(death).Errorf("the domain ended; exit status %d", status)
		}
		return nil, exit{status, now}
	case <-timeout.C:
		logger.WithError(fromAgent(err)).Errorf("%s: the agent no longer answers; the domain is destroyed", p)
		c.destroy()
		return nil, exit{exitUnknown, now}
	}
}

// destroy ends the guest without asking it.
func (c *container) destroy() {
	ctx, cancel := context.WithTimeout(context.Background(), teardownTimeout)
	defer cancel()
	if err := c.closeGuest(ctx); err != nil {
		log.L.WithError(err).WithField("id", c.id).Error("destroy the domain")
	}
}

// watchInit waits for init's end and brings the container's about: output,
// execs, exit event, and only then what takes long.
func (c *container) watchInit() {
	r, e := c.wait(c.init)
	if err := c.thaw(); err != nil {
		log.L.WithError(err).WithField("id", c.id).Warn("resume of a container that has ended")
	}
	c.mu.Lock()
	c.ending = true
	execs := make([]*process, 0, len(c.execs))
	for _, p := range c.execs {
		execs = append(execs, p)
	}
	c.mu.Unlock()

	if r != nil {
		c.reportOOMOf(r)
		c.init.drain(context.Background(), r)
	}
	c.init.closeIO()
	c.endExecs(execs)
	c.holder.Close()
	c.endOOM()
	c.init.finish(e, true)

	ctx, cancel := context.WithTimeout(context.Background(), teardownTimeout)
	defer cancel()
	if err := c.teardown(ctx); err != nil {
		log.L.WithError(err).WithField("id", c.id).Error("clean up")
	}
}

// endExecs returns when every exec that runs or starts has ended. The agent has
// killed them with init.
func (c *container) endExecs(execs []*process) {
	timeout := time.NewTimer(execsTimeout)
	defer timeout.Stop()
	for _, p := range execs {
		if st, _ := p.current(); st != starting && st != running {
			continue
		}
		select {
		case <-p.exited:
		case <-timeout.C:
			timeout.Reset(0)
			log.L.WithField("id", c.id).Warnf("%s: no word of its end", p)
			p.kill()
			p.closeIO()
			<-p.exited
		}
	}
}

// watchHolder ends the container when somebody ends its holder.
func (c *container) watchHolder() {
	<-c.holder.Done()
	c.mu.Lock()
	ending := c.ending
	c.mu.Unlock()
	if ending {
		return // the shim closed it
	}
	sig := c.holder.Signal()
	if sig == 0 {
		sig = syscall.SIGKILL
	}
	log.L.WithField("id", c.id).Warnf("the holder process %d got the signal %q, which goes on to the container", c.holder.Pid(), sig)
	ctx := context.Background()
	if err := c.signal(ctx, c.init, uint32(sig), false); err != nil && !errdefs.IsNotFound(err) {
		log.L.WithError(err).WithField("id", c.id).Errorf("signal %d", sig)
	}
	select {
	case <-c.init.exited:
	case <-time.After(termTimeout):
		if err := c.signal(ctx, c.init, uint32(syscall.SIGKILL), false); err != nil && !errdefs.IsNotFound(err) {
			log.L.WithError(err).WithField("id", c.id).Error("kill")
		}
	}
}

// callOrKeep makes a call of the agent, at the next Resume if the guest is paused.
func (c *container) callOrKeep(ctx context.Context, key string, do func(context.Context) error) error {
	leave, ok := c.gate.enterOrKeep(key, func() {
		if err := do(context.Background()); err != nil && !errdefs.IsNotFound(err) {
			log.L.WithError(err).WithField("id", c.id).Warnf("%s, which waited for the end of a pause", key)
		}
	})
	if !ok {
		return nil
	}
	defer leave()
	return do(ctx)
}

// signal sends a signal to a process, or with all to every one of the container.
// SIGKILL for init ends it in any case. Other signals wait while the container is
// paused.
func (c *container) signal(ctx context.Context, p *process, sig uint32, all bool) error {
	st, _ := p.current()
	switch {
	case sig > maxSignal:
		return fmt.Errorf("signal %d does not exist: %w", sig, errdefs.ErrInvalidArgument)
	case st == stopped:
		return notFound("%s: process already finished", p)
	case p.execID != "" && st == created:
		return precondition("%s is not started", p)
	}
	send := func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), signalTimeout)
		defer cancel()
		_, err := c.guest.Agent().Signal(ctx, &agentapi.SignalRequest{Id: c.id, ExecId: p.execID, Signal: sig, All: all})
		return fromAgent(err)
	}
	if p.execID != "" || syscall.Signal(sig) != syscall.SIGKILL {
		return c.callOrKeep(ctx, fmt.Sprintf("signal/%s/%d/%t", p.execID, sig, all), send)
	}
	// A paused guest runs for a moment, so that what it holds of files is not lost.
	err := c.thaw()
	if err == nil {
		err = send(ctx)
	}
	if err != nil && !errdefs.IsNotFound(err) {
		log.L.WithError(err).WithField("id", c.id).Warn("the agent does not take SIGKILL; the domain is destroyed")
		c.destroy()
		return nil
	}
	go func() {
		select {
		case <-p.exited:
		case <-time.After(killTimeout):
			log.L.WithField("id", c.id).Warnf("%s does not end; the domain is destroyed", p)
			c.destroy()
		}
	}()
	return err
}

// delete waits until nothing of the container is left. One that was never
// started is killed.
func (c *container) delete(ctx context.Context) error {
	switch st, _ := c.init.current(); st {
	case starting, running:
		if c.paused() != nil {
			return precondition("container %s is paused; kill it with SIGKILL, or resume and stop it first", c.id)
		}
		return precondition("container %s is running; stop it first", c.id)
	case created:
		if err := c.signal(ctx, c.init, uint32(syscall.SIGKILL), false); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	select {
	case <-c.init.exited:
	case <-ctx.Done():
		return fmt.Errorf("delete container %s: %w", c.id, ctx.Err())
	}
	c.mu.Lock()
	execs := c.execs
	c.execs = nil
	c.mu.Unlock()
	for _, p := range execs {
		p.closeIO()
		p.finish(exit{exitKilled, time.Now()}, false)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), teardownTimeout)
	defer cancel()
	if err := c.teardown(ctx); err != nil {
		return err
	}
	for _, p := range execs {
		p.waitIO(ctx)
	}
	c.init.waitIO(ctx)
	return c.forget(ctx)
}
