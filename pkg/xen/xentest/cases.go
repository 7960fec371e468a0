// SPDX-License-Identifier: Apache-2.0

package xentest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/xcontainer/xcontainer/pkg/noxs"
	"github.com/xcontainer/xcontainer/pkg/xen"
	"github.com/xcontainer/xcontainer/pkg/xen/abi"
	"github.com/xcontainer/xcontainer/pkg/xen/foreign"
	"github.com/xcontainer/xcontainer/pkg/xen/pv"
)

func createDestroy(s *suite) {
	var told abi.DomID
	c := s.config("idle")
	c.Created = func(id abi.DomID) error { told = id; return nil }
	d := s.create(c)
	if told == 0 || told != d.ID() || d.UUID() != c.UUID {
		s.Errorf("hook heard of %d, domain is %d with uuid %s, want %s", told, d.ID(), d.UUID(), c.UUID)
	}
	info, err := d.Info()
	if err != nil {
		s.Fatal(err)
	}
	if info.State != xen.Paused || info.Pages != guestKiB/4 || info.MaxVCPUs != 1 || info.UUID != c.UUID {
		s.Errorf("after Create: %+v", info)
	}
	for range 2 {
		if err := d.Destroy(s.ctx); err != nil {
			s.Fatal(err)
		}
	}
	if _, err := d.Info(); !errors.Is(err, xen.ErrNotFound) {
		s.Errorf("Info after Destroy: %v", err)
	}
	if err := d.Unpause(); !errors.Is(err, xen.ErrNotFound) {
		s.Errorf("Unpause after Destroy: %v", err)
	}
	if _, err := d.BackendHandles(); !errors.Is(err, xen.ErrNotFound) {
		s.Errorf("BackendHandles after Destroy: %v", err)
	}
}

func guestPowersOff(s *suite) {
	d := s.create(s.config("idle until told"))
	b := s.attach(d)
	if !bytes.Equal(b.pool, make([]byte, len(b.pool))) {
		s.Error("the pool is not zero")
	}
	if bytes.Equal(b.page[noxs.OffSeed:noxs.OffSeed+noxs.SeedSize], make([]byte, noxs.SeedSize)) {
		s.Error("the seed is zero")
	}
	// The events that each binding raises are not the guest's.
	s.waitPorts(b, append(slices.Clone(b.Ports.Devices), b.Ports.Console, b.Ports.Doorbell)...)
	if err := d.Unpause(); err != nil {
		s.Fatal(err)
	}
	s.waitPorts(b, b.Ports.Console, b.Ports.Doorbell)
	const want = "xentest: idle until told\n"
	if got := string(b.console[abi.ConsoleOut : abi.ConsoleOut+len(want)]); got != want {
		s.Errorf("console says %q, want %q", got, want)
	}
	if got := binary.LittleEndian.Uint32(b.page[noxs.OffGuestState:]); got != 1 {
		s.Errorf("guest_state %d, want 1", got)
	}
	if info, err := d.Info(); err != nil || info.State != xen.Running {
		s.Errorf("while it waits: %+v, %v", info, err)
	}
	if err := b.Notify(b.Ports.Console); err != nil {
		s.Fatal(err)
	}
	s.waitEnd(d, xen.PowerOff)
}

func (s *suite) endsWith(cmdline string, want xen.Reason) {
	d := s.create(s.config(cmdline))
	if err := d.Unpause(); err != nil {
		s.Fatal(err)
	}
	s.waitEnd(d, want)
	if info, err := d.Info(); err != nil || info.State != xen.Shutdown || info.Reason != want {
		s.Errorf("after the end: %+v, %v", info, err)
	}
}

func destroyFromOutside(s *suite) {
	d := s.create(s.config("idle"))
	if err := d.Unpause(); err != nil {
		s.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		r, err := d.Watch(s.ctx, watchEvery)
		if err == nil && r != xen.Destroyed {
			err = errors.New("reason: " + r.String())
		}
		ended <- err
	}()
	other, err := s.Host.Lookup(d.ID(), d.UUID())
	if err != nil {
		s.Fatal(err)
	}
	if _, err := other.BackendHandles(); !errors.Is(err, xen.ErrNotBuilder) {
		s.Errorf("BackendHandles of a domain that was looked up: %v", err)
	}
	if err := other.Destroy(s.ctx); err != nil {
		s.Fatal(err)
	}
	if err := <-ended; err != nil {
		s.Errorf("Watch: %v", err)
	}
}

func watchEndsWithContext(s *suite) {
	d := s.create(s.config("idle"))
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	if _, err := d.Watch(ctx, watchEvery); !errors.Is(err, context.Canceled) {
		s.Errorf("Watch: %v", err)
	}
}

func otherUUID(s *suite) {
	d := s.create(s.config("idle"))
	wrong := d.UUID()
	wrong[15] ^= 1
	if _, err := s.Host.Lookup(d.ID(), wrong); !errors.Is(err, xen.ErrNotFound) {
		s.Errorf("Lookup with another uuid: %v", err)
	}
	if _, err := s.Host.Lookup(d.ID()+1000, d.UUID()); !errors.Is(err, xen.ErrNotFound) {
		s.Errorf("Lookup with another id: %v", err)
	}
	if _, err := s.Host.Lookup(d.ID(), d.UUID()); err != nil {
		s.Error(err)
	}
}

func createdHookError(s *suite) {
	hook := errors.New("disk full")
	c := s.config("idle")
	c.Created = func(abi.DomID) error { return hook }
	s.refused(c, hook)
}

func cancelledBuild(s *suite) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	c := s.config("idle")
	for _, at := range []string{"createdomain", "populate", "ports", "load", "tables", "devices"} {
		c.Step = func(name string, _ time.Duration) {
			if name == at {
				cancel()
			}
		}
		s.Logf("cancelled after %s", at)
		sub := *s
		sub.ctx = ctx
		sub.refused(c, context.Canceled)
		ctx, cancel = context.WithCancel(s.ctx)
		defer cancel()
	}
}

func cancelledBefore(s *suite) {
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	c := s.config("idle")
	c.Created = func(abi.DomID) error { s.Error("a domain was created"); return nil }
	sub := *s
	sub.ctx = ctx
	sub.refused(c, context.Canceled)
}

func noMemory(s *suite) {
	c := s.config("idle")
	c.MemoryKiB = s.TooMuchKiB
	s.refused(c, xen.ErrNoMemory)
	// And what there was is there again.
	s.create(s.config("idle"))
}

func memoryTooSmall(s *suite) {
	c := s.config("idle")
	c.MemoryKiB = 4 << 10
	c.Created = func(abi.DomID) error { s.Error("a domain was created"); return nil }
	s.refused(c, pv.ErrTooSmall)
}

func badConfig(s *suite) {
	for name, spoil := range map[string]func(*xen.Config){
		"no uuid":           func(c *xen.Config) { c.UUID = abi.UUID{} },
		"no kernel":         func(c *xen.Config) { c.Kernel = nil },
		"no CPU":            func(c *xen.Config) { c.VCPUs = 0 },
		"33 CPUs":           func(c *xen.Config) { c.VCPUs = 33 },
		"no memory":         func(c *xen.Config) { c.MemoryKiB = 0 },
		"1 TiB":             func(c *xen.Config) { c.MemoryKiB = 1 << 30 },
		"long command line": func(c *xen.Config) { c.Cmdline = strings.Repeat("x", abi.StartInfoCmdLineSize) },
		"16 devices":        func(c *xen.Config) { c.Layout.Devices = make([]noxs.Device, 16) },
	} {
		s.Logf("case: %s", name)
		c := s.config("idle")
		spoil(&c)
		s.refused(c, xen.ErrConfig)
	}
	c := s.config("idle")
	c.Layout.Devices[0].OutPages = c.Layout.PoolPages + 1
	s.refused(c, noxs.ErrLayout)
	// The longest command line that fits.
	c = s.config("p" + strings.Repeat("x", abi.StartInfoMaxCmdLength-1))
	d := s.create(c)
	if err := d.Unpause(); err != nil {
		s.Fatal(err)
	}
	s.waitEnd(d, xen.PowerOff)
}

func listShows(s *suite) {
	d := s.create(s.config("idle"))
	infos, err := s.Host.List(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	if len(infos) < 2 || infos[0].ID != 0 {
		s.Errorf("list %+v does not begin with dom0", infos)
	}
	i := slices.IndexFunc(infos, func(i xen.Info) bool { return i.ID == d.ID() })
	if i < 0 || infos[i].UUID != d.UUID() || infos[i].State != xen.Paused {
		s.Errorf("list %+v has no paused domain %d", infos, d.ID())
	}
}

func manyVCPUs(s *suite) {
	c := s.config("idle")
	c.VCPUs, c.Weight, c.Cap = 4, 512, 150
	d := s.create(c)
	if info, err := d.Info(); err != nil || info.MaxVCPUs != 4 {
		s.Errorf("%+v, %v; want 4 virtual CPUs", info, err)
	}
	c = s.config("idle")
	c.Cap = 50
	s.create(c)
}

func withInitramfs(s *suite) {
	c := s.config("power off")
	c.Initramfs = bytes.Repeat([]byte("0707"), 3000)
	d := s.create(c)
	if err := d.Unpause(); err != nil {
		s.Fatal(err)
	}
	s.waitEnd(d, xen.PowerOff)
}

func restrictedPrivcmd(s *suite) {
	d, other := s.create(s.config("idle")), s.create(s.config("idle"))
	h, err := d.BackendHandles()
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { h.Close() })
	if err := s.Hypercall(h.Privcmd); !isRefusal(err) {
		s.Errorf("hypercall through restricted privcmd: %v", err)
	}
	for _, id := range []abi.DomID{0, other.ID()} {
		m := h.Map
		m.DomID = id
		if _, _, _, unmap, err := s.MapBackend(h.Privcmd, m); err == nil {
			s.Errorf("mapped memory of domain %d through domain %d's privcmd", id, d.ID())
			unmap()
		}
	}
	m := h.Map
	m.Pool = append([]abi.MFN{0}, m.Pool...)
	if _, _, _, unmap, err := s.MapBackend(h.Privcmd, m); !errors.Is(err, foreign.ErrFrame) {
		s.Errorf("mapping a frame that is not the domain's: %v", err)
		if err == nil {
			unmap()
		}
	}
	_, pool, _, unmap, err := s.MapBackend(h.Privcmd, h.Map)
	if err != nil {
		s.Fatal(err)
	}
	if len(pool) != int(noxs.Standard().PoolPages)*abi.PageSize {
		s.Errorf("pool of %d bytes", len(pool))
	}
	for range 2 {
		if err := unmap(); err != nil {
			s.Error(err)
		}
	}
}

func portsReleased(s *suite) {
	d := s.create(s.config("idle"))
	h, err := d.BackendHandles()
	if err != nil {
		s.Fatal(err)
	}
	if n := len(h.Ports.Devices); n != 2 {
		s.Errorf("%d device ports, want 2", n)
	}
	if again, err := d.BackendHandles(); err == nil {
		s.Error("ports were bound twice")
		again.Close()
	}
	for range 2 {
		if err := h.Close(); err != nil {
			s.Error(err)
		}
	}
	again, err := d.BackendHandles()
	if err != nil {
		s.Fatalf("after the first back-end has gone: %v", err)
	}
	// A notification into a destroyed domain harms nobody.
	if err := d.Destroy(s.ctx); err != nil {
		s.Error(err)
	}
	if err := s.Channels(again.Evtchn).Notify(again.Ports.Console); err != nil {
		s.Logf("notify after destroy: %v", err)
	}
	if err := again.Close(); err != nil {
		s.Error(err)
	}
}

func zombieWhileMapped(s *suite) {
	d := s.create(s.config("idle"))
	h, err := d.BackendHandles()
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { h.Close() })
	_, pool, _, unmap, err := s.MapBackend(h.Privcmd, h.Map)
	if err != nil {
		s.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.ctx, 50*time.Millisecond)
	defer cancel()
	if err := d.Destroy(ctx); !errors.Is(err, xen.ErrZombie) || !errors.Is(err, context.DeadlineExceeded) {
		s.Errorf("Destroy while mapped: %v", err)
	}
	if info, err := d.Info(); err != nil || info.State != xen.Dying {
		s.Errorf("while mapped: %+v, %v", info, err)
	}
	if r, err := d.Watch(s.ctx, watchEvery); err != nil || r != xen.Destroyed {
		s.Errorf("Watch of a zombie: %v, %v", r, err)
	}
	pool[0] = 1 // the memory is still there
	if err := unmap(); err != nil {
		s.Fatal(err)
	}
	if err := d.Destroy(s.ctx); err != nil {
		s.Error(err)
	}
}

func severalAtOnce(s *suite) {
	const n = 3
	ids := make([]abi.DomID, n)
	var wg sync.WaitGroup
	for i := range n {
		c := s.config("idle")
		wg.Go(func() {
			d, err := s.Host.Create(s.ctx, c)
			if err != nil {
				s.Error(err)
				return
			}
			ids[i] = d.ID()
			if err := d.Unpause(); err != nil {
				s.Error(err)
			}
			if err := d.Destroy(s.ctx); err != nil {
				s.Error(err)
			}
		})
	}
	wg.Wait()
	slices.Sort(ids)
	if len(slices.Compact(ids)) != n {
		s.Errorf("ids %v are not distinct", ids)
	}
}

func stepsTimed(s *suite) {
	var steps []string
	c := s.config("idle")
	c.Step = func(name string, took time.Duration) {
		steps = append(steps, name)
		s.Logf("%-12s %v", name, took)
	}
	s.create(c)
	want := []string{"createdomain", "populate", "ports", "load", "tables", "devices", "pin"}
	if !slices.Equal(steps, want) {
		s.Errorf("steps %v, want %v", steps, want)
	}
}
