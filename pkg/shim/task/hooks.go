// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/log"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/xcontainer/xcontainer/pkg/shim/bundle"
	"github.com/xcontainer/xcontainer/pkg/shim/hooks"
	"github.com/xcontainer/xcontainer/pkg/shim/netns"
	"github.com/xcontainer/xcontainer/pkg/shim/record"
)

// state is what a hook is told.
func (c *container) state(status specs.ContainerState, pid int) specs.State {
	return specs.State{
		Version:     specs.Version,
		ID:          c.id,
		Status:      status,
		Pid:         pid,
		Bundle:      c.bundle,
		Annotations: c.settings.Host.Annotations,
	}
}

// createHooks runs what comes before the container's own process: on the host,
// with the holder there and the root file system mounted, before the guest boots.
// createContainer hooks are for the container's namespaces, of which the host has
// the network.
func (c *container) createHooks(ctx context.Context) error {
	h := c.settings.Host.Hooks
	if len(h.Poststop) > 0 {
		// From here on, whatever happens.
		if err := c.amend(func(r *record.Record) { r.Hooks = true }); err != nil {
			return err
		}
	}
	if len(h.Prestart)+len(h.CreateRuntime)+len(h.CreateContainer) == 0 { //nolint:staticcheck // deprecated, yet still sent
		return nil
	}
	defer c.steps.time("hooks")()
	for _, k := range []struct {
		kind  string
		netns string
		hooks []specs.Hook
	}{
		{hooks.Prestart, "", h.Prestart}, //nolint:staticcheck // deprecated, yet still sent
		{hooks.CreateRuntime, "", h.CreateRuntime},
		{hooks.CreateContainer, netns.Of(c.holder.Pid()), h.CreateContainer},
	} {
		r := hooks.Run{Kind: k.kind, State: c.state(specs.StateCreating, c.holder.Pid()), NetNS: k.netns}
		if err := r.Each(ctx, k.hooks); err != nil {
			return err
		}
	}
	return nil
}

// guestHooks completes the hooks that the agent runs: in the container, whose
// init is process 1 of it.
func (c *container) guestHooks(s *bundle.Settings) error {
	if len(s.Container.StartHooks) == 0 {
		return nil
	}
	state, err := json.Marshal(c.state(specs.StateCreated, 1))
	if err != nil {
		return fmt.Errorf("state for hooks: %w", err)
	}
	for _, h := range s.Container.StartHooks {
		h.State = state
	}
	return nil
}

// poststart runs the hooks that follow the start of init. One that fails fails
// the start.
func (c *container) poststart(ctx context.Context) error {
	r := hooks.Run{Kind: hooks.Poststart, State: c.state(specs.StateRunning, c.holder.Pid())}
	return r.Each(ctx, c.settings.Host.Hooks.Poststart)
}

// forget runs the hooks that follow the container's end, and removes the record.
// It comes after teardown; what fails of the hooks is for the log.
func (c *container) forget(ctx context.Context) error {
	c.teardownMu.Lock()
	defer c.teardownMu.Unlock()
	if c.poststopDue() {
		r := hooks.Run{Kind: hooks.Poststop, State: c.state(specs.StateStopped, 0)}
		for _, err := range r.All(ctx, c.settings.Host.Hooks.Poststop) {
			log.L.WithError(err).WithField("id", c.id).Warn("poststop")
		}
	}
	if err := record.Remove(c.bundle); err != nil {
		return fmt.Errorf("clean up after container %s: %w", c.id, err)
	}
	c.recordMu.Lock()
	defer c.recordMu.Unlock()
	c.record.Hooks = false
	return nil
}

// poststopDue tells whether there are hooks yet to run when the container is
// deleted; until then the record stays, for whoever has to run them in the shim's
// place.
func (c *container) poststopDue() bool {
	c.recordMu.Lock()
	defer c.recordMu.Unlock()
	return c.record.Hooks
}
