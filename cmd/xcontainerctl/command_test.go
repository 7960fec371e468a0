// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xcontainer/xcontainer/pkg/noxs"
	"github.com/xcontainer/xcontainer/pkg/shim/record"
	"github.com/xcontainer/xcontainer/pkg/xen"
	"github.com/xcontainer/xcontainer/pkg/xen/pv"
	"github.com/xcontainer/xcontainer/pkg/xen/xentest"
)

var (
	testNow  = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	testUUID = [16]byte{0xab, 15: 1}
)

// world is a hypervisor with one domain, and bundles.
type world struct {
	*testing.T
	machine *xentest.Machine
	dom     *xen.Domain
	root    string
	sys     system
	// programs are those in PATH, with what they print.
	programs map[string]string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	m, err := xentest.NewMachine(xentest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	w := &world{T: t, machine: m, root: t.TempDir()}
	w.dom = w.domain(testUUID)
	w.sys = system{
		openXen: func() (*xen.Host, error) { return xen.New(kept{m}), nil },
		bootGuest: func(context.Context, string, uint64) (emptyGuest, error) {
			return &fakeGuest{d: w.domain([16]byte{7})}, nil
		},
		pss: func(pid int) (uint64, error) {
			if pid == 0 {
				return 0, os.ErrNotExist
			}
			return uint64(pid) << 20, nil
		},
		now: func() time.Time { return testNow },
		output: func(_ context.Context, program string, args ...string) (string, error) {
			out, ok := w.programs[program]
			if !ok {
				return "", fmt.Errorf("run %s: not found", program)
			}
			return out, nil
		},
		dial:     func(string) error { return nil },
		feature:  func(string) error { return nil },
		files:    t.TempDir(),
		maySweep: func() error { return nil },
	}
	w.programs = map[string]string{
		shimProgram:  shimProgram + ":\n  Version:  " + ownVersion() + "\n  Revision: x\n",
		"containerd": "containerd github.com/containerd/containerd/v2 v2.3.7 0123abc\n",
	}
	return w
}

// kept is a Machine that the commands cannot close.
type kept struct{ *xentest.Machine }

func (kept) Close() error { return nil }

func (w *world) domain(uuid [16]byte) *xen.Domain { return w.domainThat("idle", uuid) }

func (w *world) domainThat(does string, uuid [16]byte) *xen.Domain {
	w.Helper()
	k, err := pv.ParseKernel(xentest.GuestKernel())
	if err != nil {
		w.Fatal(err)
	}
	d, err := xen.New(w.machine).Create(context.Background(), xen.Config{
		UUID: uuid, Kernel: k, Cmdline: does, MemoryKiB: 16 << 10, VCPUs: 2, Layout: noxs.Standard(),
	})
	if err != nil {
		w.Fatal(err)
	}
	return d
}

func (w *world) bundle(ns, id string, r *record.Record) {
	w.Helper()
	dir := filepath.Join(w.root, ns, id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		w.Fatal(err)
	}
	if err := r.Write(dir); err != nil {
		w.Fatal(err)
	}
}

func (w *world) run(args ...string) (code int, out, errOut string) {
	w.Helper()
	var o, e bytes.Buffer
	if len(args) > 0 && slices.Contains(subcommands[args[0]].options, optRoot) {
		args = append(args, "--root", w.root)
	}
	code = run(context.Background(), args, w.sys, &o, &e)
	return code, o.String(), e.String()
}

func (w *world) record(id string, domid uint16, uuid [16]byte) *record.Record {
	return &record.Record{ID: id, Namespace: "default", Created: testNow.Add(-90 * time.Second), UUID: uuid, DomID: &domid,
		Shim: record.Process{PID: 10}, Backend: record.Process{PID: 20}}
}

type fakeGuest struct {
	d      *xen.Domain
	closed bool
	fail   error
}

func (g *fakeGuest) DomID() uint16                             { return uint16(g.d.ID()) }
func (g *fakeGuest) Available(context.Context) (uint64, error) { return 5 << 20, g.fail }
func (g *fakeGuest) Close(ctx context.Context) error {
	g.closed = true
	return g.d.Destroy(ctx)
}

func TestPSNamesContainers(t *testing.T) {
	w := newWorld(t)
	orphan := w.domain([16]byte{9})
	w.bundle("default", "web", w.record("web", uint16(w.dom.ID()), testUUID))
	// A record of a domain that was there before, under the same id.
	w.bundle("default", "old", w.record("old", uint16(orphan.ID()), [16]byte{8}))
	code, out, errOut := w.run("ps")
	if code != exitOK || errOut != "" {
		t.Fatalf("exit %d, %s", code, errOut)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	want := [][]string{
		{"DOMAIN", "NAMESPACE", "CONTAINER", "STATE", "MEMORY", "VCPUS", "CPU", "AGE"},
		{"1", "default", "web", "paused", "16.0", "MiB", "2", "0.0s", "1m30s"},
		{"2", "-", "-", "paused", "16.0", "MiB", "2", "0.0s", "-"},
	}
	if len(lines) != len(want) {
		t.Fatalf("got:\n%s", out)
	}
	for i, l := range lines {
		if got := strings.Fields(l); strings.Join(got, " ") != strings.Join(want[i], " ") {
			t.Errorf("line %d: %q, want %q", i, got, want[i])
		}
	}
}

func TestPSJSON(t *testing.T) {
	w := newWorld(t)
	w.bundle("k8s.io", "web", w.record("web", uint16(w.dom.ID()), testUUID))
	code, out, _ := w.run("ps", "--json")
	const want = `[
  {
    "domid": 1,
    "uuid": "ab000000000000000000000000000001",
    "namespace": "default",
    "container": "web",
    "state": "paused",
    "memory_bytes": 16777216,
    "vcpus": 2,
    "cpu_ns": 0,
    "created": "2026-11-25T11:58:30Z"
  }
]
`
	if code != exitOK || out != want {
		t.Errorf("exit %d, got:\n%s", code, out)
	}
	if err := w.dom.Destroy(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, out, _ := w.run("ps", "--json"); out != "[]\n" {
		t.Errorf("without domains: %q", out)
	}
}

func TestPSShowsHowADomainEnded(t *testing.T) {
	w := newWorld(t)
	d := w.domainThat("crash", [16]byte{4})
	if err := d.Unpause(); err != nil {
		t.Fatal(err)
	}
	if _, out, _ := w.run("ps"); !strings.Contains(out, "shutdown (crash)") {
		t.Errorf("got:\n%s", out)
	}
}

func TestPSNamesABadRecord(t *testing.T) {
	w := newWorld(t)
	w.bundle("default", "web", w.record("web", uint16(w.dom.ID()), testUUID))
	bad := filepath.Join(w.root, "default", "bad")
	if err := os.MkdirAll(bad, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bad, record.Name), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errOut := w.run("ps")
	if code != exitOK || !strings.Contains(out, "web") || !strings.Contains(errOut, bad) {
		t.Errorf("exit %d, out %q, warnings %q", code, out, errOut)
	}
}

func TestOverhead(t *testing.T) {
	w := newWorld(t)
	w.bundle("default", "web", w.record("web", uint16(w.dom.ID()), testUUID))
	ended := w.record("ended", 99, [16]byte{5})
	ended.Backend.PID = 0
	w.bundle("default", "ended", ended)
	code, out, errOut := w.run("overhead", "--json")
	if code != exitOK || !strings.Contains(errOut, "container ended") {
		t.Fatalf("exit %d, %s", code, errOut)
	}
	var o overheads
	if err := json.Unmarshal([]byte(out), &o); err != nil {
		t.Fatal(err)
	}
	if o.Guest != (guestOverhead{Domain: 16 << 20, Available: 5 << 20, Overhead: 11 << 20}) {
		t.Errorf("guest: %+v", o.Guest)
	}
	if len(o.Processes) != 1 || o.Processes[0] != (processOverhead{"default", "web", 10 << 20, 20 << 20}) {
		t.Errorf("processes: %+v", o.Processes)
	}
	_, out, _ = w.run("overhead")
	if !strings.HasPrefix(out, "guest without a container: 11.0 MiB of 16.0 MiB") || !strings.Contains(out, "30.0 MiB") {
		t.Errorf("got:\n%s", out)
	}
	if infos, err := xen.New(w.machine).List(context.Background()); err != nil || len(infos) != 2 {
		t.Errorf("left %+v, %v", infos, err)
	}
}

func TestOverheadEndsItsGuestOnError(t *testing.T) {
	w := newWorld(t)
	g := &fakeGuest{d: w.domain([16]byte{7}), fail: errors.New("agent is silent")}
	w.sys.bootGuest = func(context.Context, string, uint64) (emptyGuest, error) { return g, nil }
	code, _, errOut := w.run("overhead")
	if code != exitError || errOut != "xcontainerctl: measure an empty guest: agent is silent\n" || !g.closed {
		t.Errorf("exit %d, %q, guest closed: %v", code, errOut, g.closed)
	}
}

func TestErrorsAndUsage(t *testing.T) {
	w := newWorld(t)
	w.sys.openXen = func() (*xen.Host, error) { return nil, xen.ErrNoXen }
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{nil, exitUsage, "usage:"},
		{[]string{"frob"}, exitUsage, `no command "frob"`},
		{[]string{"ps", "now"}, exitUsage, `unexpected argument "now"`},
		{[]string{"version", "--bad"}, exitUsage, "-bad"},
		{[]string{"logs"}, exitUsage, "which container?"},
		{[]string{"logs", "-f", "a", "b"}, exitUsage, `unexpected argument "b"`},
		{[]string{"sweep", "all"}, exitUsage, `unexpected argument "all"`},
		{[]string{"ps", "--share", "x"}, exitUsage, "-share"},
		{[]string{"ps"}, exitError, "xcontainerctl: no Xen to create domains with\n"},
	} {
		code, out, errOut := w.run(c.args...)
		if code != c.code || !strings.Contains(errOut, c.says) || out != "" {
			t.Errorf("%q: exit %d, %q, %q", c.args, code, out, errOut)
		}
	}
	if code, out, _ := w.run("version"); code != exitOK || !strings.Contains(out, "no Xen") {
		t.Errorf("version without Xen: exit %d, %q", code, out)
	}
	if code, out, _ := w.run("help"); code != exitOK || out != usage {
		t.Errorf("help: exit %d, %q", code, out)
	}
}

func TestVersion(t *testing.T) {
	w := newWorld(t)
	code, out, _ := w.run("version", "--share", t.TempDir())
	for _, want := range []string{"Xen 4.17.twin, domctl interface 0x15\n", "shim            " + ownVersion() + "\n", "guest kernel    unknown (", "agent protocol  1\n"} {
		if code != exitOK || !strings.Contains(out, want) {
			t.Errorf("exit %d, no %q in\n%s", code, want, out)
		}
	}
	share := t.TempDir()
	if err := os.WriteFile(filepath.Join(share, manifestFile), []byte(`{"kernel": {"version": "6.12.1-x"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	w.programs = nil
	var v versions
	code, out, _ = w.run("version", "--json", "--share", share)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatal(err)
	}
	if want := (versions{Program: ownVersion(), Kernel: "6.12.1-x", Agent: 1, Xen: "Xen 4.17.twin", Domctl: 0x15}); code != exitOK || v != want {
		t.Errorf("exit %d, %+v", code, v)
	}
}

func TestParsePSS(t *testing.T) {
	for _, c := range []struct {
		text string
		want uint64
		ok   bool
	}{
		{"00400000-7fff0000 ---p 00000000 00:00 0  [rollup]\nRss:  900 kB\nPss:               12 kB\nPss_Dirty: 3 kB\n", 12 << 10, true},
		{"Rss: 1 kB\n", 0, false},
		{"Pss: x kB\n", 0, false},
		{"Pss: 99999999999999999 kB\n", 0, false},
		{"", 0, false},
	} {
		got, err := parseKB(strings.NewReader(c.text), "Pss")
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("%q: %d, %v", c.text, got, err)
		}
	}
	if n, err := readPSS(os.Getpid()); err != nil || n == 0 {
		t.Errorf("own PSS: %d, %v", n, err)
	}
}
