// SPDX-License-Identifier: Apache-2.0

package xentest

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xcontainer/xcontainer/pkg/noxs"
	"github.com/xcontainer/xcontainer/pkg/xen"
	"github.com/xcontainer/xcontainer/pkg/xen/abi"
	"github.com/xcontainer/xcontainer/pkg/xen/pv"
)

const (
	// patience bounds every wait; nothing depends on how fast a thing is.
	patience = 3 * time.Minute
	// watchEvery is how often the suite looks whether a domain has ended.
	watchEvery = 5 * time.Millisecond
	// guestKiB is the memory of a domain with GuestKernel.
	guestKiB = 16 << 10
)

// suite is one case's view of the target.
type suite struct {
	*testing.T
	Target
	ctx    context.Context
	kernel *pv.Kernel
}

// testCase is one case of the suite.
type testCase struct {
	name string
	run  func(*suite)
}

// cases are the conformance suite: what package xen promises of its hypervisor.
var cases = []testCase{
	{"create and destroy leave nothing", createDestroy},
	{"guest prints, rings the doorbell and powers off", guestPowersOff},
	{"reboot is seen as reboot", func(s *suite) { s.endsWith("reboot", xen.Reboot) }},
	{"crash is seen as crash", func(s *suite) { s.endsWith("crash", xen.Crash) }},
	{"destroy from outside is seen", destroyFromOutside},
	{"watch ends with its context", watchEndsWithContext},
	{"another uuid is another domain", otherUUID},
	{"error of the Created hook", createdHookError},
	{"cancelled while building", cancelledBuild},
	{"cancelled before building", cancelledBefore},
	{"no memory left", noMemory},
	{"memory too small for the kernel", memoryTooSmall},
	{"configuration is checked", badConfig},
	{"list shows the domain", listShows},
	{"pause and unpause, however often", pauses},
	{"pause by several at once", pausesAtOnce},
	{"destroyed while paused", destroyPaused},
	{"memory limit", memoryLimit},
	{"weight and cap of a running domain", schedules},
	{"time stamp counter", readsTheCPUsCounter},
	{"a paused domain takes no time", pausedTakesNoTime},
	{"four virtual CPUs, weight and cap", manyVCPUs},
	{"initramfs is passed on", withInitramfs},
	{"restricted privcmd", restrictedPrivcmd},
	{"ports are bound once and released", portsReleased},
	{"a mapping keeps a zombie", zombieWhileMapped},
	{"several at once", severalAtOnce},
	{"steps are timed", stepsTimed},
}

// Conformance runs the suite. Each case must leave nothing behind.
func Conformance(t *testing.T, target Target) {
	kernel, err := pv.ParseKernel(GuestKernel())
	if err != nil {
		t.Fatal(err)
	}
	all := slices.Concat(cases, refusals)
	if target.Linux != nil {
		all = append(all, linuxCases...)
	}
	if target.LinuxUP != nil {
		all = append(all, upCases...)
	}
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			s := &suite{T: t, Target: target, ctx: ctx, kernel: kernel}
			t.Cleanup(func() {
				if left := s.Leaks(); left != "" {
					t.Errorf("left behind: %s", left)
				}
			})
			c.run(s)
		})
	}
}

// config is a small domain with two devices.
func (s *suite) config(cmdline string) xen.Config {
	layout := noxs.Standard()
	c := xen.Config{Kernel: s.kernel, Cmdline: cmdline, MemoryKiB: guestKiB, VCPUs: 1, Layout: layout}
	if _, err := rand.Read(c.UUID[:]); err != nil {
		s.Fatal(err)
	}
	return c
}

// create builds a domain that the end of the case destroys.
func (s *suite) create(c xen.Config) *xen.Domain {
	s.Helper()
	d, err := s.Host.Create(s.ctx, c)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		if err := d.Destroy(context.Background()); err != nil {
			s.Error(err)
		}
	})
	return d
}

// backend is a domain's back-end process.
type backend struct {
	xen.BackendHandles
	Channels
	page, pool, console []byte
}

// attach takes the domain's handles; the end of the case lets go of them.
func (s *suite) attach(d *xen.Domain) *backend {
	s.Helper()
	h, err := d.BackendHandles()
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		if err := h.Close(); err != nil {
			s.Error(err)
		}
	})
	b := &backend{BackendHandles: h, Channels: s.Channels(h.Evtchn)}
	var unmap func() error
	if b.page, b.pool, b.console, unmap, err = s.MapBackend(h.Privcmd, h.Map); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		if err := unmap(); err != nil {
			s.Error(err)
		}
	})
	return b
}

// waitEnd waits for the domain's end.
func (s *suite) waitEnd(d *xen.Domain, want xen.Reason) {
	s.Helper()
	got, err := d.Watch(s.ctx, watchEvery)
	if err != nil || got != want {
		s.Fatalf("domain ended with %v, %v; want %v", got, err, want)
	}
}

// refused checks that Create fails with an error of that identity, naming the
// domain, and leaves nothing.
func (s *suite) refused(c xen.Config, want error) {
	s.Helper()
	d, err := s.Host.Create(s.ctx, c)
	if err == nil {
		s.Errorf("created domain %d, want %v", d.ID(), want)
		if err := d.Destroy(s.ctx); err != nil {
			s.Error(err)
		}
		return
	}
	if !errors.Is(err, want) {
		s.Errorf("error %q, want identity %q", err, want)
	}
	if !strings.HasPrefix(err.Error(), "xen: create domain "+c.UUID.String()+": ") {
		s.Errorf("error %q does not begin with operation and object", err)
	}
	if left := s.Leaks(); left != "" {
		s.Errorf("left behind by %q: %s", err, left)
	}
}

// waitPorts waits for an event on each of the ports.
func (s *suite) waitPorts(c Channels, want ...abi.Port) {
	s.Helper()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		s.Fatal(err)
	}
	missing := map[abi.Port]bool{}
	for _, p := range want {
		missing[p] = true
	}
	buf := make([]abi.Port, 16)
	for len(missing) > 0 {
		n, err := c.Pending(buf)
		if err != nil {
			s.Fatalf("no event on ports %v: %v", missing, err)
		}
		for _, p := range buf[:n] {
			delete(missing, p)
		}
		if err := c.Unmask(buf[:n]...); err != nil {
			s.Fatal(err)
		}
	}
}
