// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/api/events"
	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/xcontainer/xcontainer/pkg/io/stdio"
	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
	"github.com/xcontainer/xcontainer/pkg/shim/bundle"
	"github.com/xcontainer/xcontainer/pkg/shim/holder"
	"github.com/xcontainer/xcontainer/pkg/shim/record"
)

// container is one container in its domain.
type container struct {
	s      *Service
	id     string
	bundle string
	steps  steps

	settings *bundle.Settings // config.json; nil until it is loaded

	guest  Guest          // nil until booted
	cgroup Cgroup         // of the holder; nil until made, or where there are none
	holder *holder.Holder // nil until started
	init   *process

	// guestClosed is closed when the shim has decided to end the guest.
	guestClosed chan struct{}
	closeOnce   sync.Once

	gate     *gate
	updating chan struct{} // holds a token during an update
	ooms     ooms
	numbers  statsCache

	mu     sync.Mutex
	execs  map[string]*process     // guarded by mu
	ending bool                    // guarded by mu: init has ended or is about to; nothing starts any more
	limits bundle.Limits           // guarded by mu
	pids   []*agentapi.ProcessInfo // guarded by mu: the last answer, without init

	recordMu sync.Mutex
	record   record.Record // guarded by recordMu

	teardownMu sync.Mutex
	dirty      bool // guarded by teardownMu: the guest may hold data that the host has not
	tornDown   bool // guarded by teardownMu
}

// newContainer does what Create promises. After an error nothing is left.
func (s *Service) newContainer(ctx context.Context, r *taskapi.CreateTaskRequest) (_ *container, err error) {
	c := &container{
		s:           s,
		id:          r.ID,
		bundle:      r.Bundle,
		guestClosed: make(chan struct{}),
		gate:        newGate(),
		updating:    make(chan struct{}, 1),
		execs:       make(map[string]*process),
	}
	logger := log.G(ctx).WithField("id", r.ID)
	defer func() {
		if err != nil {
			c.undo(ctx)
			logger.WithError(err).WithField("steps", c.steps.String()).Error("create failed")
		}
	}()

	if !filepath.IsAbs(r.Bundle) {
		return nil, fmt.Errorf("bundle %q is not an absolute path: %w", r.Bundle, errdefs.ErrInvalidArgument)
	}
	done := c.steps.time("config")
	settings, err := c.load(ctx, r)
	if err != nil {
		return nil, err
	}
	binds, err := openSources(r.ID, settings)
	if err != nil {
		return nil, err
	}
	defer closeSources(binds)
	done()

	if err := c.begin(); err != nil {
		return nil, err
	}
	done = c.steps.time("rootfs")
	root, why, err := prepareRoot(r.Bundle, r.Rootfs, settings.HostMounts || settings.Root != rootfsDir(r.Bundle))
	if err != nil {
		return nil, err
	}
	defer root.close()
	if why != "" {
		logger.Infof("the root file system is mounted on the host: %s", why)
	}
	settings.Container.RootMounts = root.mounts
	settings.ForDevices(root.poolBytes())
	c.limits = settings.Limits
	done()
	if err := c.startHolder(&settings.Host); err != nil {
		return nil, err
	}
	if err := c.createHooks(ctx); err != nil {
		return nil, err
	}
	if c.guest, err = c.boot(ctx, settings, root.disks); err != nil {
		return nil, err
	}
	c.setDirty(c.onDisks()) // already by being mounted
	if err := c.create(ctx, settings, binds); err != nil {
		return nil, c.cause(ctx, err)
	}
	c.setDirty(true)
	// Before anybody can report an exit.
	s.Events.Publish(topicCreate, &events.TaskCreate{
		ContainerID: r.ID,
		Bundle:      r.Bundle,
		Rootfs:      r.Rootfs,
		IO:          &events.TaskIO{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal},
		Pid:         c.pid(),
	})
	go c.watchHolder()
	go c.watchInit()
	go c.watchOOM()
	return c, nil
}

// load reads config.json.
func (c *container) load(ctx context.Context, r *taskapi.CreateTaskRequest) (*bundle.Settings, error) {
	settings, err := bundle.Load(r.Bundle, c.s.CPUs)
	if err != nil {
		return nil, err
	}
	for _, what := range append(settings.Ignored, ignoredOptions(r.Options)...) {
		log.G(ctx).WithField("id", r.ID).Warnf("ignored: %s", what)
	}
	c.settings = settings
	settings.Container.Process.Terminal = r.Terminal
	c.init = newProcess(c, "", stdio.Config{
		Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal,
	}, settings.Container.Process)
	return settings, nil
}

// undo takes back what a failed Create has made.
func (c *container) undo(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), teardownTimeout)
	defer cancel()
	err := c.teardown(ctx)
	if c.init != nil {
		c.init.waitIO(ctx)
	}
	if err == nil {
		err = c.forget(ctx)
	}
	if err != nil {
		log.G(ctx).WithError(err).WithField("id", c.id).Error("create: undo")
	}
}

// begin writes the record before there is anything to record.
func (c *container) begin() error {
	c.record = record.Record{ID: c.id, Namespace: c.s.Namespace, Created: time.Now()}
	self, err := record.Of(os.Getpid())
	if err != nil {
		return err
	}
	if c.record.UUID, err = record.NewUUID(self); err != nil {
		return err
	}
	return c.amend(func(r *record.Record) { r.Shim = self })
}

// amend changes the record and writes it.
func (c *container) amend(change func(*record.Record)) error {
	c.recordMu.Lock()
	defer c.recordMu.Unlock()
	change(&c.record)
	return c.record.Write(c.bundle)
}

// boot boots the domain, a second time if the kernel crashes on its way to the
// agent's hello: nothing of the container has run by then. The second time without
// X-LibOS, since a Xen that it does not go with may have crashed the domain while
// the kernel tried. See docs/decisions/0004.
func (c *container) boot(ctx context.Context, s *bundle.Settings, disks []Disk) (Guest, error) {
	config := c.bootConfig(s, disks)
	g, err := c.s.Boot(ctx, config)
	if !errors.Is(err, ErrGuestCrashed) || ctx.Err() != nil {
		return g, err
	}
	log.L.WithError(err).WithField("id", c.id).Error("the guest crashed before its agent's hello; it is booted once more, without X-LibOS")
	config.XLibOS = bundle.XLibOSOff
	return c.s.Boot(ctx, config)
}

func (c *container) bootConfig(s *bundle.Settings, disks []Disk) BootConfig {
	return BootConfig{
		ID:          c.id,
		Namespace:   c.s.Namespace,
		Bundle:      c.bundle,
		UUID:        c.record.UUID,
		MemoryBytes: s.MemoryBytes,
		VCPUs:       s.VCPUs,
		MaxVCPUs:    s.MaxVCPUs,
		Weight:      s.Weight,
		XLibOS:      s.XLibOS,
		Disks:       disks,
		Share:       c.s.Share,
		ConsoleLog:  filepath.Join(c.bundle, record.ConsoleName),
		Record: func(domid uint16) error {
			return c.amend(func(r *record.Record) { r.DomID = &domid })
		},
		RecordBackend: func(pid int) error {
			p, err := record.Of(pid)
			if err != nil {
				return fmt.Errorf("record back-end: %w", err)
			}
			return c.amend(func(r *record.Record) { r.Backend = p })
		},
		Step: c.steps.add,
	}
}

// create makes the container in the booted guest.
func (c *container) create(ctx context.Context, s *bundle.Settings, binds []source) error {
	done := c.steps.time("exports")
	if err := export(ctx, c.guest, c.id, s, binds); err != nil {
		return err
	}
	done()
	done = c.steps.time("streams")
	if err := c.init.openIO(ctx); err != nil {
		return err
	}
	done()
	if s.Container.Hostname == "" {
		// A UTS namespace under runc starts with the host's name, too.
		if name, err := os.Hostname(); err == nil {
			s.Container.Hostname = name
		}
	}
	if err := c.guestHooks(s); err != nil {
		return err
	}
	defer c.steps.time("process create")()
	r, err := c.guest.Agent().CreateContainer(ctx, &agentapi.CreateContainerRequest{Id: c.id, Container: s.Container})
	if err != nil {
		return fromAgent(err)
	}
	c.init.setGuestPID(r.Pid)
	if s.Cap == 0 {
		return nil
	}
	// Only now: a guest that boots on a few hundredths of a CPU takes minutes.
	if err := c.guest.SetSchedule(ctx, s.Weight, s.Cap); err != nil {
		return fmt.Errorf("cap the domain's CPU time: %w", err)
	}
	return nil
}

// cause replaces the error of a call into a guest that has ended by its reason.
func (c *container) cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	select {
	case <-c.guest.Dead():
		return fmt.Errorf("domain of container %s: %w", c.id, c.guest.Death())
	default:
		return err
	}
}

func (c *container) pid() uint32 {
	if c.holder == nil {
		return 0
	}
	return uint32(c.holder.Pid())
}

// find returns init, or the exec of that id.
func (c *container) find(execID string) (*process, error) {
	if execID == "" {
		return c.init, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.execs[execID]
	if !ok {
		return nil, notFound("container %s has no exec %s", c.id, execID)
	}
	return p, nil
}

// closeGuest ends the guest because the shim wants it.
func (c *container) closeGuest(ctx context.Context) error {
	c.closeOnce.Do(func() { close(c.guestClosed) })
	return c.guest.Close(ctx)
}

// teardown takes back all that newContainer made: holder, cgroup, domain, mounts,
// and unless hooks are to come the record. It tries every step; called again after an error it tries again.
func (c *container) teardown(ctx context.Context) error {
	c.teardownMu.Lock()
	defer c.teardownMu.Unlock()
	if c.tornDown {
		return nil
	}
	var errs []error
	if c.init != nil {
		c.init.closeIO()
	}
	if c.holder != nil {
		c.holder.Close()
	}
	if c.cgroup != nil {
		errs = append(errs, c.cgroup.Delete())
	}
	if c.guest != nil {
		if c.dirty {
			c.sync(ctx)
			c.dirty = false
		}
		errs = append(errs, c.closeGuest(ctx))
	}
	errs = append(errs, unmountRootfs(c.bundle))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clean up after container %s: %w", c.id, err)
	}
	c.tornDown = true
	if c.poststopDue() {
		return nil // forget removes the record
	}
	if err := record.Remove(c.bundle); err != nil {
		return fmt.Errorf("clean up after container %s: %w", c.id, err)
	}
	return nil
}

// onDisks tells whether the root file system is in the guest's hands.
func (c *container) onDisks() bool { return c.settings.Container.RootMounts != nil }

func (c *container) setDirty(v bool) {
	c.teardownMu.Lock()
	defer c.teardownMu.Unlock()
	c.dirty = v
}

// sync has the guest write its dirty data back, if it still can.
func (c *container) sync(ctx context.Context) {
	select {
	case <-c.guest.Dead():
		return
	case <-c.guestClosed:
		return
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	if c.onDisks() {
		// Its mounts keep the disks in use. A container that cannot be removed
		// still runs, and then only what it has written so far counts.
		_, _ = c.guest.Agent().Remove(ctx, &agentapi.RemoveRequest{Id: c.id})
	}
	if _, err := c.guest.Agent().Sync(ctx, &agentapi.SyncRequest{}); err != nil {
		log.G(ctx).WithError(fromAgent(err)).WithField("id", c.id).Error("sync: data of the container may be lost")
	}
}
