// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
	"github.com/xcontainer/xcontainer/pkg/shim/bundle"
)

const (
	// updateTimeout bounds a change of limits, and again its undoing: a guest
	// gives memory back page by page.
	updateTimeout = time.Minute
	// sizeSlack is how much more memory than asked for a guest may keep. The
	// balloon works in pages, the device pool and page tables do not shrink.
	sizeSlack = 8 << 20
)

// currentLimits are those in force.
func (c *container) currentLimits() bundle.Limits {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.limits
}

// change is one update on its way. Each step that is done adds how to undo it.
type change struct {
	c         *container
	old, next bundle.Limits
	tell      *agentapi.Resources
	undo      []func(context.Context) error
}

// update changes the container's limits. After an error they are as before, or
// the error says what is not.
func (c *container) update(ctx context.Context, r *specs.LinuxResources) error {
	select {
	case c.updating <- struct{}{}:
		defer func() { <-c.updating }()
	case <-ctx.Done():
		return fmt.Errorf("update of container %s: another one is under way: %w", c.id, ctx.Err())
	}
	if st, _ := c.init.current(); st == stopped {
		return precondition("container %s has ended, so it cannot be updated", c.id)
	}
	leave, ok := c.gate.enter()
	if !ok {
		return c.errPaused()
	}
	defer leave()
	u := change{c: c, old: c.currentLimits()}
	next, tell, ignored, err := u.old.Update(r)
	if err != nil {
		return err
	}
	u.next, u.tell = next, tell
	for _, what := range ignored {
		log.G(ctx).WithField("id", c.id).Warnf("update: ignored: %s", what)
	}
	// A client that gives up must not leave half of it.
	ctx = context.WithoutCancel(ctx)
	if err := u.apply(ctx); err != nil {
		return c.cause(ctx, u.back(ctx, err))
	}
	if c.cgroup != nil {
		// What limits the container has changed; this one only shows it.
		if err := c.cgroup.Update(r); err != nil {
			log.G(ctx).WithError(err).WithField("id", c.id).Warn("update: the cgroup on the host does not follow")
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limits = next
	return nil
}

// apply does the steps in an order in which each has what it needs: a domain
// grows before the container's limit does, and shrinks after it.
func (u *change) apply(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, updateTimeout)
	defer cancel()
	old, next := u.old.Size(), u.next.Size()
	steps := []func(context.Context) error{u.schedule, u.limits}
	switch {
	case next.MemoryBytes > old.MemoryBytes:
		steps = []func(context.Context) error{u.schedule, u.maxMemory, u.size, u.limits}
	case next.MemoryBytes < old.MemoryBytes:
		steps = []func(context.Context) error{u.fits, u.schedule, u.limits, u.size, u.maxMemory}
	case next.VCPUs != old.VCPUs:
		steps = []func(context.Context) error{u.schedule, u.size, u.limits}
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// back undoes what was done, last step first, and gives err with what could not
// be undone.
func (u *change) back(ctx context.Context, err error) error {
	ctx, cancel := context.WithTimeout(ctx, updateTimeout)
	defer cancel()
	for i := len(u.undo) - 1; i >= 0; i-- {
		if uerr := u.undo[i](ctx); uerr != nil {
			err = fmt.Errorf("%w; not all limits are as before: %w", err, uerr)
		}
	}
	if len(u.tell.GetUnified()) > 0 && len(u.undo) > 0 {
		err = fmt.Errorf("%w; the files named in unified may have changed", err)
	}
	return err
}

func (u *change) did(undo func(context.Context) error) { u.undo = append(u.undo, undo) }

// fits refuses a limit that the container's processes are beyond: cgroup v2 would
// kill them for it.
func (u *change) fits(ctx context.Context) error {
	limit := u.next.MemoryLimit()
	if limit == 0 {
		return nil
	}
	r, err := u.c.guest.Agent().ContainerStats(ctx, &agentapi.ContainerStatsRequest{Id: u.c.id})
	if err = fromAgent(err); errdefs.IsNotImplemented(err) {
		return nil
	}
	if err != nil {
		return err
	}
	n := takeNumbers(r)
	used := n.memoryCurrent
	for _, cached := range []string{"inactive_file", "active_file"} {
		used -= min(used, n.memory[cached])
	}
	if used > limit {
		return precondition("container %s uses %d bytes of memory beside its file cache, more than the new limit of %d", u.c.id, used, limit)
	}
	return nil
}

func (u *change) schedule(ctx context.Context) error {
	old, next := u.old.Size(), u.next.Size()
	if old.Weight == next.Weight && old.Cap == next.Cap {
		return nil
	}
	if err := u.c.guest.SetSchedule(ctx, next.Weight, next.Cap); err != nil {
		return fmt.Errorf("schedule of the domain of container %s: %w", u.c.id, err)
	}
	u.did(func(ctx context.Context) error { return u.c.guest.SetSchedule(ctx, old.Weight, old.Cap) })
	return nil
}

func (u *change) maxMemory(ctx context.Context) error {
	set := func(ctx context.Context, bytes uint64) error {
		if err := u.c.guest.SetMaxMemory(ctx, bytes); err != nil {
			return fmt.Errorf("memory limit of the domain of container %s: %w", u.c.id, err)
		}
		return nil
	}
	if err := set(ctx, u.next.Size().MemoryBytes); err != nil {
		return err
	}
	u.did(func(ctx context.Context) error { return set(ctx, u.old.Size().MemoryBytes) })
	return nil
}

// size has the guest take or give memory and use as many virtual CPUs.
func (u *change) size(ctx context.Context) error {
	// What is undone is this step too, when it was half done.
	u.did(func(ctx context.Context) error { return u.setSize(ctx, u.old.Size()) })
	return u.setSize(ctx, u.next.Size())
}

func (u *change) setSize(ctx context.Context, s bundle.Size) error {
	req := &agentapi.SetSizeRequest{Vcpus: s.VCPUs}
	resized := u.old.Size().MemoryBytes != u.next.Size().MemoryBytes
	if resized {
		req.MemoryBytes = s.MemoryBytes
	}
	r, err := u.c.guest.Agent().SetSize(ctx, req)
	if err != nil {
		return fmt.Errorf("size of the guest of container %s: %w", u.c.id, fromAgent(err))
	}
	if r.Vcpus != s.VCPUs {
		return fmt.Errorf("the guest of container %s uses %d virtual CPUs, not %d: %w", u.c.id, r.Vcpus, s.VCPUs, errdefs.ErrUnavailable)
	}
	if !resized {
		return nil
	}
	// The hypervisor knows better than the guest.
	usage, err := u.c.guest.Usage(ctx)
	if err != nil {
		return fmt.Errorf("size of the domain of container %s: %w", u.c.id, err)
	}
	if has := usage.MemoryBytes; has > s.MemoryBytes+sizeSlack || has+sizeSlack < s.MemoryBytes {
		return fmt.Errorf("the domain of container %s has %d bytes of memory after it was to have %d: %w",
			u.c.id, has, s.MemoryBytes, errdefs.ErrUnavailable)
	}
	return nil
}

// limits tells the agent.
func (u *change) limits(ctx context.Context) error {
	if proto.Equal(u.tell, &agentapi.Resources{}) {
		return nil
	}
	u.did(func(ctx context.Context) error { return u.setLimits(ctx, u.old.Undo(u.tell)) })
	return u.setLimits(ctx, u.tell)
}

func (u *change) setLimits(ctx context.Context, r *agentapi.Resources) error {
	_, err := u.c.guest.Agent().Update(ctx, &agentapi.UpdateRequest{Id: u.c.id, Resources: r})
	return fromAgent(err)
}
