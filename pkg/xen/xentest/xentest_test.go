// SPDX-License-Identifier: Apache-2.0

package xentest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/xcontainer/xcontainer/pkg/noxs"
	"github.com/xcontainer/xcontainer/pkg/xen"
	"github.com/xcontainer/xcontainer/pkg/xen/pv"
)

func newMachine(t *testing.T, o Options) *Machine {
	t.Helper()
	m, err := NewMachine(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func TestMachine(t *testing.T) { Conformance(t, MachineTarget(newMachine(t, Options{}))) }

func TestFragmentedMachine(t *testing.T) {
	Conformance(t, MachineTarget(newMachine(t, Options{Fragmented: true})))
}

// TestXen is the same suite on the Xen that the test binary runs on.
func TestXen(t *testing.T) {
	if os.Getenv(EnvXen) != "1" {
		t.Logf("not asked to use real Xen (%s=1)", EnvXen)
		return
	}
	target, err := RealTarget()
	if err != nil {
		t.Fatal(err)
	}
	t.Log(target.Host.Version())
	Conformance(t, target)
}

var errInjected = errors.New("injected")

// TestFailAtEveryCall lets each call of a build fail in turn: the error comes
// out, and nothing stays behind.
func TestFailAtEveryCall(t *testing.T) {
	kernel, err := pv.ParseKernel(GuestKernel())
	if err != nil {
		t.Fatal(err)
	}
	failAt, failed := 0, ""
	m := newMachine(t, Options{Fragmented: true, Fail: func(call int, name string) error {
		if call == failAt {
			failed = name
			return fmt.Errorf("%s: %w", name, errInjected)
		}
		return nil
	}})
	host := xen.New(m)
	seen := map[string]bool{}
	for n := 1; ; n++ {
		failAt, failed = m.Calls()+n, ""
		err := buildAndAttach(host, kernel)
		if failed == "" {
			if err != nil {
				t.Fatalf("without a fault: %v", err)
			}
			break
		}
		seen[failed] = true
		if !errors.Is(err, errInjected) {
			t.Errorf("call %d (%s) failed, error is %v", n, failed, err)
		}
		if left := m.Leaks(); left != "" {
			t.Fatalf("after a fault in call %d (%s): left %s", n, failed, left)
		}
	}
	for _, name := range []string{"create", "max_vcpus", "settscinfo", "scheduler", "max_mem", "claim", "populate", "alloc_unbound",
		"look at", "map", "pin", "setvcpucontext", "open events", "bind_interdomain", "restrict events", "open privcmd for"} {
		if !seen[name] {
			t.Errorf("no fault was injected into %s", name)
		}
	}
	if left := m.Leaks(); left != "" {
		t.Errorf("left %s", left)
	}
}

// buildAndAttach does what a shim does, up to the start of a domain, and undoes
// it.
func buildAndAttach(host *xen.Host, kernel *pv.Kernel) error {
	d, err := host.Create(context.Background(), xen.Config{
		UUID: [16]byte{1}, Kernel: kernel, Cmdline: "idle", MemoryKiB: guestKiB, VCPUs: 1, Weight: 100,
		Initramfs: []byte("initramfs"), Layout: noxs.Standard(),
	})
	if err != nil {
		return err
	}
	h, err := d.BackendHandles()
	if err == nil {
		err = h.Close()
	}
	// The fault may hit the first attempt to destroy.
	if derr := d.Destroy(context.Background()); derr != nil {
		return errors.Join(err, derr, d.Destroy(context.Background()))
	}
	return err
}

// TestGuestCode assembles guest.S and compares. make test requires gcc.
func TestGuestCode(t *testing.T) {
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		if os.Getenv("XCONTAINER_REQUIRE_HEADERS") == "1" {
			t.Fatalf("%v; remedy: apt-get install gcc", err)
		}
		t.Logf("guest.bin not compared: %v", err)
		return
	}
	dir := t.TempDir()
	obj, bin, raw := filepath.Join(dir, "g.o"), filepath.Join(dir, "g.elf"), filepath.Join(dir, "g.bin")
	for _, args := range [][]string{
		{gcc, "-c", "-o", obj, "guest.S"},
		{"ld", "-Ttext=0xffffffff80100000", "-o", bin, obj},
		{"objcopy", "-O", "binary", "-j", ".text", bin, raw},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	got, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, guestCode) {
		t.Error("guest.bin is not guest.S assembled")
	}
}
