// SPDX-License-Identifier: Apache-2.0

package task

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/api/events"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// oomInterval is the time between two events at least: the guest could say
// anything, any number of times.
const oomInterval = time.Second

// oomFile in the bundle tells CRI-O, which takes no events, of the same.
const oomFile = "oom"

// ooms counts the processes that the guest's kernel killed for want of memory.
type ooms struct {
	mu    sync.Mutex
	known uint64 // guarded by mu
	told  bool   // guarded by mu: there was an event
	over  bool   // guarded by mu: there are no more
}

// watchOOM reports out of memory as it happens, until init's end. Death by it is
// often faster than this: what Wait tells is reported as well, before the exit.
func (c *container) watchOOM() {
	ctx := c.init.waitCtx
	for known := uint64(0); ; {
		r, err := c.guest.Agent().WaitOOM(ctx, &agentapi.WaitOOMRequest{Id: c.id, Known: known})
		err = fromAgent(err)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && r.OomKills <= known:
			return // the container has ended
		case err == nil:
			known = r.OomKills
			c.gate.settle()
			c.reportOOM(known)
		case errdefs.IsNotImplemented(err), errdefs.IsNotFound(err):
			log.L.WithError(err).WithField("id", c.id).Warn("the agent does not tell of OOM before a process ends")
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(oomInterval):
		}
	}
}

// reportOOM publishes an event if there were more kills than known.
func (c *container) reportOOM(kills uint64) {
	c.ooms.mu.Lock()
	defer c.ooms.mu.Unlock()
	if kills > c.ooms.known {
		c.ooms.known = kills
		c.publishOOM()
	}
}

// reportOOMOf is reportOOM for a process that has ended.
func (c *container) reportOOMOf(r *agentapi.WaitResponse) {
	c.reportOOM(r.OomKills)
	c.ooms.mu.Lock()
	defer c.ooms.mu.Unlock()
	if r.OomKilled && !c.ooms.told {
		c.publishOOM()
	}
}

// endOOM has no event follow.
func (c *container) endOOM() {
	c.ooms.mu.Lock()
	defer c.ooms.mu.Unlock()
	c.ooms.over = true
}

// publishOOM is called with ooms.mu held.
func (c *container) publishOOM() {
	if c.ooms.over {
		return
	}
	c.ooms.told = true
	logger := log.L.WithField("id", c.id)
	logger.Warnf("out of memory: the container's kernel has killed a process of it (%d so far)", c.ooms.known)
	f, err := os.OpenFile(filepath.Join(c.bundle, oomFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	switch {
	case err == nil:
		f.Close()
	case !errors.Is(err, fs.ErrExist):
		logger.WithError(err).Warn("tell CRI-O of OOM")
	}
	c.s.Events.Publish(topicOOM, &events.TaskOOM{ContainerID: c.id})
}
