// SPDX-License-Identifier: Apache-2.0

package libos

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/xcontainer/xcontainer/pkg/backend/control"
	"github.com/xcontainer/xcontainer/pkg/noxs"
	"github.com/xcontainer/xcontainer/pkg/xen"
	"github.com/xcontainer/xcontainer/pkg/xen/abi"
	"github.com/xcontainer/xcontainer/pkg/xen/pv"
	"github.com/xcontainer/xcontainer/pkg/xen/xentest"
)

// counting is a back-end that has done some work.
type counting struct{ control.Handler }

func (counting) Start(control.Config, []*os.File) error { return nil }

func (counting) Stats() control.Stats {
	return control.Stats{ReadBytes: 1, WriteBytes: 2, ReadOps: 3, WriteOps: 4, BytesIn: 5}
}

// newTwin is a guest on a hypervisor in memory, with such a back-end, whose
// domain runs.
func newTwin(t *testing.T) *Guest {
	t.Helper()
	m, err := xentest.NewMachine(xentest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	kernel, err := pv.ParseKernel(xentest.GuestKernel())
	if err != nil {
		t.Fatal(err)
	}
	host := xen.New(m)
	dom, err := host.Create(t.Context(), xen.Config{
		UUID: abi.UUID{1}, Kernel: kernel, Cmdline: "idle", MemoryKiB: 16 << 10, VCPUs: 2, Layout: noxs.Standard(),
	})
	if err != nil {
		t.Fatal(err)
	}
	conn, theirs, err := control.Pair()
	if err != nil {
		t.Fatal(err)
	}
	serverConn, err := control.Inherit(theirs)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- control.NewServer(serverConn).Serve(counting{}) }()
	client := control.NewClient(conn)
	if err := client.Start(t.Context(), control.Config{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	if err := dom.Unpause(); err != nil {
		t.Fatal(err)
	}
	return &Guest{host: host, dom: dom, backend: &backendProcess{client: client}, dead: make(chan struct{})}
}

func TestLive(t *testing.T) {
	g := newTwin(t)
	ctx := t.Context()
	state := func(want xen.State) {
		t.Helper()
		if info, err := g.dom.Info(); err != nil || info.State != want {
			t.Errorf("state %v, %v; want %v", info.State, err, want)
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		do(g.Pause(ctx))
		do(g.Pause(ctx))
		state(xen.Paused)
		if _, err := g.Usage(ctx); err != nil {
			t.Errorf("usage of a paused guest: %v", err)
		}
		do(g.Resume(ctx))
		do(g.Resume(ctx))
		state(xen.Running)
	}
	do(g.SetMaxMemory(ctx, 32<<20))
	do(g.SetSchedule(ctx, 100, 50))
	u, err := g.Usage(ctx)
	do(err)
	want := Usage{MemoryBytes: 16 << 20, MaxMemoryBytes: 32 << 20, VCPUs: 1,
		ReadBytes: 1, WriteBytes: 2, ReadOps: 3, WriteOps: 4}
	if u.CPUTime <= 0 {
		t.Errorf("CPU time %v", u.CPUTime)
	}
	u.CPUTime = 0
	if u != want {
		t.Errorf("usage %+v, want %+v", u, want)
	}
}

// TestLivePausedIsNotDead: whoever watches a domain sees its end, not its pause.
func TestLivePausedIsNotDead(t *testing.T) {
	g := newTwin(t)
	g.watchD = make(chan struct{})
	ended := make(chan xen.Reason, 1)
	go func() {
		r, _ := g.dom.Watch(t.Context(), time.Millisecond)
		ended <- r
	}()
	if err := g.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case r := <-ended:
		t.Fatalf("a paused domain was taken for one that ended: %v", r)
	case <-time.After(20 * time.Millisecond):
	}
	if err := g.dom.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := <-ended; r != xen.Destroyed {
		t.Errorf("ended with %v", r)
	}
}

// TestLiveAfterTheEnd: calls fail at once, and say of what.
func TestLiveAfterTheEnd(t *testing.T) {
	g := newTwin(t)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.Pause(cancelled); !errors.Is(err, context.Canceled) {
		t.Errorf("pause with a context that has ended: %v", err)
	}
	if err := g.dom.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	for name, call := range map[string]func() error{
		"pause":  func() error { return g.Pause(ctx) },
		"resume": func() error { return g.Resume(ctx) },
		"limit":  func() error { return g.SetMaxMemory(ctx, 1<<20) },
		"weight": func() error { return g.SetSchedule(ctx, 1, 0) },
		"usage":  func() error { _, err := g.Usage(ctx); return err },
	} {
		if err := call(); !errors.Is(err, xen.ErrNotFound) || !strings.Contains(err.Error(), "the guest") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
