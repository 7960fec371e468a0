// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/containerd/api/events"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
)

const (
	// pauseWait is how long a pause waits for calls of the agent, the start of an
	// exec for instance. What does not answer in time waits for Resume.
	pauseWait = 10 * time.Second
	// domainTimeout bounds a call of the hypervisor.
	domainTimeout = 10 * time.Second
)

// pause stops the container's domain.
func (c *container) pause(ctx context.Context) error {
	if st, _ := c.init.current(); st != running {
		return precondition("container %s is not running, so it cannot be paused", c.id)
	}
	switch over, ok := c.gate.move(gateOpen, gatePausing); {
	case !ok:
		return precondition("container %s is paused already", c.id)
	case over:
		c.reopen()
		return precondition("container %s is being killed", c.id)
	}
	idle, cancel := context.WithTimeout(ctx, pauseWait)
	c.gate.idle(idle)
	cancel()
	switch {
	case ctx.Err() != nil:
		c.reopen()
		return ctx.Err()
	case len(c.updating) > 0:
		// It would fail half done.
		c.reopen()
		return fmt.Errorf("container %s is being updated; pause it later: %w", c.id, errdefs.ErrUnavailable)
	}
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), domainTimeout)
	defer cancel()
	if err := c.guest.Pause(ctx); err != nil {
		// It may be paused all the same.
		if rerr := c.guest.Resume(ctx); rerr != nil {
			log.G(ctx).WithError(rerr).WithField("id", c.id).Warn("resume after a failed pause")
		}
		c.reopen()
		return c.cause(ctx, err)
	}
	if c.gate.shut(func() { c.s.Events.Publish(topicPaused, &events.TaskPaused{ContainerID: c.id}) }) {
		return nil
	}
	err := c.guest.Resume(ctx)
	c.reopen()
	if err != nil {
		log.G(ctx).WithError(err).WithField("id", c.id).Warn("resume of a container that ends")
	}
	return precondition("container %s ends", c.id)
}

// reopen ends a pause that did not come about.
func (c *container) reopen() {
	c.gate.move(gatePausing, gateOpen)
	c.gate.flush()
}

// resume lets the container's domain go on, and does what was asked of its
// processes meanwhile.
func (c *container) resume(ctx context.Context) error {
	if st, _ := c.init.current(); st != running {
		return precondition("container %s is not running, so it cannot be resumed", c.id)
	}
	if _, ok := c.gate.move(gatePaused, gateResuming); !ok {
		return precondition("container %s is not paused", c.id)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), domainTimeout)
	defer cancel()
	if err := c.guest.Resume(ctx); err != nil {
		c.gate.move(gateResuming, gatePaused)
		return c.cause(ctx, err)
	}
	c.s.Events.Publish(topicResumed, &events.TaskResumed{ContainerID: c.id})
	c.gate.move(gateResuming, gateOpen)
	c.gate.flush()
	return nil
}

// thaw has the guest run from now on, for a container that ends.
func (c *container) thaw() error {
	return c.gate.finish(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), domainTimeout)
		defer cancel()
		return c.guest.Resume(ctx)
	})
}

// paused is the error for what a paused container cannot do; nil if it is not.
func (c *container) paused() error {
	if st, _ := c.gate.look(); st == gateOpen {
		return nil
	}
	return c.errPaused()
}

func (c *container) errPaused() error {
	return precondition("container %s is paused; resume it first", c.id)
}

// status is st as a client sees it: what runs in a paused container is paused.
func (c *container) status(st state) tasktypes.Status {
	if st == running {
		switch gate, _ := c.gate.look(); gate {
		case gatePausing:
			return tasktypes.Status_PAUSING
		case gatePaused, gateResuming:
			return tasktypes.Status_PAUSED
		}
	}
	return st.status()
}
