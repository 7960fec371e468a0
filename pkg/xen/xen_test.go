// SPDX-License-Identifier: Apache-2.0

package xen_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/xcontainer/xcontainer/pkg/noxs"
	"github.com/xcontainer/xcontainer/pkg/xen"
	"github.com/xcontainer/xcontainer/pkg/xen/abi"
	"github.com/xcontainer/xcontainer/pkg/xen/pv"
	"github.com/xcontainer/xcontainer/pkg/xen/xentest"
)

func newHost(t *testing.T) (*xen.Host, xen.Config) {
	t.Helper()
	m, err := xentest.NewMachine(xentest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	h := xen.New(m)
	t.Cleanup(func() {
		if left := m.Leaks(); left != "" {
			t.Errorf("left behind: %s", left)
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	k, err := pv.ParseKernel(xentest.GuestKernel())
	if err != nil {
		t.Fatal(err)
	}
	return h, xen.Config{
		UUID: abi.UUID{0xab, 15: 0xcd}, Kernel: k, Cmdline: "idle", MemoryKiB: 16 << 10, VCPUs: 1,
		// A pool of a size of its own, since sizes show in error texts.
		Layout: noxs.Layout{PoolPages: 816},
	}
}

// TestErrorsSayOperationObjectAndCause pins what people read.
func TestErrorsSayOperationObjectAndCause(t *testing.T) {
	const domain = "xen: create domain ab000000-0000-0000-0000-0000000000cd: "
	for _, c := range []struct {
		spoil func(*xen.Config)
		is    error
		says  string
	}{
		{func(c *xen.Config) { c.VCPUs = 99 }, xen.ErrConfig, "bad domain configuration: 99 virtual CPUs, want 1 to 32"},
		{func(c *xen.Config) { c.MemoryKiB, c.Layout = 4096, noxs.Layout{PoolPages: 1200} }, pv.ErrTooSmall,
			"plan domain of 1024 pages: memory too small: 4096 KiB, and kernel, initramfs and pool take 8212 KiB"},
		{func(c *xen.Config) { c.MemoryKiB = 1 << 20 }, xen.ErrNoMemory,
			"claim 1048576 KiB for domain 1: not enough free memory in Xen"},
		{func(c *xen.Config) { c.Created = func(abi.DomID) error { return errors.New("disk full") } }, nil,
			"record the new domain 1: disk full"},
	} {
		h, config := newHost(t)
		c.spoil(&config)
		_, err := h.Create(context.Background(), config)
		if err == nil || err.Error() != domain+c.says || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%v\nwant %s%s", err, domain, c.says)
		}
	}
}

func TestLookupOfNothing(t *testing.T) {
	h, _ := newHost(t)
	const want = "xen: look up domain 5 with uuid 00000000-0000-0000-0000-000000000001: domain not found"
	if _, err := h.Lookup(5, abi.UUID{15: 1}); err == nil || err.Error() != want || !errors.Is(err, xen.ErrNotFound) {
		t.Errorf("%v, want %s", err, want)
	}
}

// TestLayoutIsNotChanged: one layout may serve many domains.
func TestLayoutIsNotChanged(t *testing.T) {
	h, c := newHost(t)
	c.Layout = noxs.Standard()
	d, err := h.Create(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Destroy(context.Background())
	if c.Layout.DoorbellPort != 0 || c.Layout.Devices[0].Port != 0 {
		t.Error("Create wrote ports into the caller's layout")
	}
}

func TestPortsJSON(t *testing.T) {
	text, err := json.Marshal(xen.Ports{Console: 1, Doorbell: 2, Devices: []abi.Port{3, 4}})
	if err != nil || string(text) != `{"console":1,"doorbell":2,"devices":[3,4]}` {
		t.Errorf("%s, %v", text, err)
	}
}

func TestStatesAndReasonsHaveNames(t *testing.T) {
	for got, want := range map[string]string{
		xen.Running.String(): "running", xen.Dying.String(): "dying", xen.State(9).String(): "state 9",
		xen.PowerOff.String(): "power off", xen.Destroyed.String(): "destroyed", xen.Reason(77).String(): "shutdown code 77",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
