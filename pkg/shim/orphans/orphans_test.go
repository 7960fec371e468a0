// SPDX-License-Identifier: Apache-2.0

package orphans

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
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

// world is a host with a hypervisor in memory.
type world struct {
	*testing.T
	Host
	machine *xentest.Machine
	live    record.Process // a process that runs
	dead    record.Process // one that has ended
	procs   []process
}

func newWorld(t *testing.T) *world {
	t.Helper()
	m, err := xentest.NewMachine(xentest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	w := &world{T: t, machine: m}
	w.Host = Host{Root: t.TempDir(), Sockets: t.TempDir(), Xen: xen.New(m), Now: time.Now, Warn: io.Discard,
		list: func() ([]process, error) { return w.procs, nil }}
	w.live = w.spawn()
	w.dead = w.spawn()
	if err := w.dead.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w
}

// spawn starts a process that ends with the test.
func (w *world) spawn() record.Process {
	w.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	p, err := record.Of(cmd.Process.Pid)
	if err != nil {
		w.Fatal(err)
	}
	return p
}

// handle is what record.NewUUID makes, for any maker; n tells handles apart.
func handle(maker record.Process, n byte) (u [16]byte) {
	copy(u[:], "xctr")
	u[4], u[6], u[8] = n, 0x80, 0x80
	u[9], u[10], u[11] = byte(maker.PID>>16), byte(maker.PID>>8), byte(maker.PID)
	binary.BigEndian.PutUint32(u[12:], uint32(maker.Start))
	return u
}

func (w *world) domain(uuid [16]byte) *xen.Domain {
	w.Helper()
	k, err := pv.ParseKernel(xentest.GuestKernel())
	if err != nil {
		w.Fatal(err)
	}
	d, err := w.Xen.Create(w.Context(), xen.Config{UUID: uuid, Kernel: k, Cmdline: "idle", MemoryKiB: 8 << 10, VCPUs: 1, Layout: noxs.Standard()})
	if err != nil {
		w.Fatal(err)
	}
	return d
}

func (w *world) bundle(id string, r record.Record) string {
	w.Helper()
	dir := filepath.Join(w.Root, "default", id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		w.Fatal(err)
	}
	r.ID, r.Namespace = id, "default"
	if err := r.Write(dir); err != nil {
		w.Fatal(err)
	}
	return dir
}

// socket makes a socket; without a listener unless open.
func (w *world) socket(path string, open bool) {
	w.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		w.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if open {
		w.Cleanup(func() { l.Close() })
		return
	}
	l.Close()
}

func (w *world) find() []Orphan {
	w.Helper()
	found, err := w.Find(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	return found
}

func names(found []Orphan) (all []string) {
	for _, o := range found {
		all = append(all, o.key())
	}
	return all
}

// sweep removes all that is found and wants nothing to be left.
func (w *world) sweep() {
	w.Helper()
	for _, o := range w.find() {
		if err := o.Remove(w.Context()); err != nil {
			w.Error(err)
		}
	}
	if left := w.find(); len(left) > 0 {
		w.Errorf("still there: %q", names(left))
	}
}

func TestNothingOfALiveContainerIsAnOrphan(t *testing.T) {
	w := newWorld(t)
	uuid := handle(w.live, 1)
	d := w.domain(uuid)
	domid := uint16(d.ID())
	dir := w.bundle("web", record.Record{UUID: uuid, DomID: &domid, Shim: w.live, Backend: w.live, Holder: w.live})
	w.socket(filepath.Join(w.Sockets, "xc-live"), true)
	if err := os.WriteFile(filepath.Join(dir, "address"), []byte("unix://"+filepath.Join(w.Sockets, "xc-live")), 0o600); err != nil {
		t.Fatal(err)
	}
	w.domain(handle(w.live, 2))           // being made: no record yet
	w.domain([16]byte{0xab})              // somebody else's
	w.domain(handle(record.Process{}, 3)) // of a maker that cannot be known
	w.socket(filepath.Join(w.Sockets, "0123abcd"), false)
	w.procs = []process{
		{Process: w.live, role: maker, bundle: dir},
		{Process: w.live, role: backend, parent: w.live.PID},
		{Process: w.live, role: holder, parent: w.live.PID},
		{Process: w.live, role: maker, bundle: "/gone", lost: time.Now()},
	}
	if found := w.find(); len(found) > 0 {
		t.Errorf("found %q", names(found))
	}
}

func TestDeadShimLeavesOrphans(t *testing.T) {
	w := newWorld(t)
	back, hold := w.spawn(), w.spawn()
	uuid := handle(w.dead, 1)
	d := w.domain(uuid)
	domid := uint16(d.ID())
	dir := w.bundle("web", record.Record{UUID: uuid, DomID: &domid, Shim: w.dead, Backend: back, Holder: hold})
	sock := filepath.Join(w.Sockets, "xc-dead")
	w.socket(sock, false)
	w.procs = []process{{Process: back, role: backend, parent: 1}, {Process: hold, role: holder, parent: 1}}
	want := []string{
		fmt.Sprintf("process %d (back-end)", back.PID),
		fmt.Sprintf("process %d (holder)", hold.PID),
		fmt.Sprintf("domain %d (%s)", d.ID(), d.UUID()),
		"socket " + sock,
		"record " + filepath.Join(dir, record.Name),
	}
	found := w.find()
	got := names(found)
	slices.Sort(want[:2])
	if !slices.Equal(got, want) {
		t.Fatalf("found %q, want %q", got, want)
	}
	if !strings.Contains(found[0].Why, "the shim of container web in namespace default has died") {
		t.Errorf("why: %q", found[0].Why)
	}
	// The record is what the next sweep needs as long as anything is left.
	if err := found[len(found)-1].Remove(t.Context()); err == nil || !strings.Contains(err.Error(), "still there") {
		t.Errorf("the record went first: %v", err)
	}
	w.sweepAfter(func() { w.procs = nil })
	if back.Alive() || hold.Alive() {
		t.Error("a process is left")
	}
	if _, err := d.Info(); !errors.Is(err, xen.ErrNotFound) {
		t.Errorf("the domain is left: %v", err)
	}
}

// sweepAfter is sweep on a host whose processes end when they are killed.
func (w *world) sweepAfter(gone func()) {
	w.Helper()
	for _, o := range w.find() {
		if err := o.Remove(w.Context()); err != nil {
			w.Error(err)
		}
	}
	gone()
	w.sweep()
}

func TestOrphansWithoutABundle(t *testing.T) {
	w := newWorld(t)
	back := w.spawn()
	d := w.domain(handle(w.dead, 1))
	w.procs = []process{{Process: back, role: backend, parent: 1}}
	got := names(w.find())
	want := []string{fmt.Sprintf("process %d (back-end)", back.PID), fmt.Sprintf("domain %d (%s)", d.ID(), d.UUID())}
	if !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	w.sweepAfter(func() { w.procs = nil })
}

// TestRecordOfAnOlderShim: a handle without the mark is ours by its record.
func TestRecordOfAnOlderShim(t *testing.T) {
	w := newWorld(t)
	d := w.domain([16]byte{0xab, 1})
	w.bundle("old", record.Record{UUID: [16]byte{0xab, 1}, Shim: w.dead})
	if got := names(w.find()); len(got) != 2 || got[0] != fmt.Sprintf("domain %d (%s)", d.ID(), d.UUID()) {
		t.Errorf("found %q", got)
	}
	w.sweep()
}

// TestShortLivedRestIsNoOrphan: what goes while a sweep looks is not listed.
func TestShortLivedRestIsNoOrphan(t *testing.T) {
	w := newWorld(t)
	d := w.domain(handle(w.dead, 1))
	looks := 0
	w.list = func() ([]process, error) {
		if looks++; looks == 1 {
			// containerd's `delete` is at work.
			return nil, d.Destroy(t.Context())
		}
		return nil, nil
	}
	if found := w.find(); len(found) > 0 {
		t.Errorf("found %q", names(found))
	}
	if looks != 2 {
		t.Errorf("looked %d times", looks)
	}
}

func TestShimWithoutBundle(t *testing.T) {
	w := newWorld(t)
	p := w.spawn()
	w.procs = []process{{Process: p, role: maker, bundle: "/run/x", lost: time.Now().Add(-2 * lostGrace)}}
	got := w.find()
	if len(got) != 1 || got[0].Kind != Shim || !strings.Contains(got[0].Why, "/run/x") {
		t.Fatalf("found %q", names(got))
	}
	w.sweepAfter(func() { w.procs = nil })
	if p.Alive() {
		t.Error("the shim is left")
	}
}

func TestBadRecordIsNamedAndTheRestFound(t *testing.T) {
	w := newWorld(t)
	d := w.domain(handle(w.dead, 1))
	dir := w.bundle("bad", record.Record{})
	if err := os.WriteFile(filepath.Join(dir, record.Name), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	found, err := w.Find(t.Context())
	if err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("error %v", err)
	}
	if got := names(found); len(got) != 1 || !strings.HasPrefix(got[0], fmt.Sprintf("domain %d", d.ID())) {
		t.Errorf("found %q", got)
	}
}

func TestCgroups(t *testing.T) {
	w := newWorld(t)
	outside := t.TempDir()
	// Only what is below /sys/fs/cgroup, whatever the record says.
	w.bundle("web", record.Record{Shim: w.dead, Cgroups: []string{outside, "/sys/fs/cgroup/../../../" + outside, "/sys/fs/cgroup/none"}})
	if got := names(w.find()); len(got) != 1 || !strings.HasPrefix(got[0], "record ") {
		t.Errorf("found %q", got)
	}
}

// TestHooksAfterTheEnd: a sweep ends a container as containerd would.
func TestHooksAfterTheEnd(t *testing.T) {
	w := newWorld(t)
	mark := filepath.Join(t.TempDir(), "ran")
	touch, err := exec.LookPath("touch")
	if err != nil {
		t.Fatal(err)
	}
	dir := w.bundle("web", record.Record{Shim: w.dead, Hooks: true})
	config := fmt.Sprintf(`{"ociVersion": "1.2.0", "process": {"args": ["x"], "cwd": "/"}, "root": {"path": "rootfs"}, "linux": {},
		"hooks": {"poststop": [{"path": %q, "args": ["touch", %q]}]}}`, touch, mark)
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Find(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("looking ran a hook")
	}
	w.sweep()
	if _, err := os.Stat(mark); err != nil {
		t.Errorf("the hook did not run: %v", err)
	}
}

func TestFindEndsWithItsContext(t *testing.T) {
	w := newWorld(t)
	w.domain(handle(w.dead, 1))
	w.Settle = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Find(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestProcesses finds this test's own child by the name of its program.
func TestProcesses(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "xcontainerctl")
	if err := os.WriteFile(program, data, 0o755); err != nil {
		t.Fatal(err)
	}
	bundle := filepath.Join(t.TempDir(), "bundle")
	if err := os.Mkdir(bundle, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "1000")
	cmd.Dir = bundle
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	find := func() process {
		t.Helper()
		all, err := processes()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range all {
			if p.PID == cmd.Process.Pid {
				return p
			}
		}
		t.Fatal("not found")
		return process{}
	}
	if p := find(); p.role != maker || p.parent != os.Getpid() || p.bundle != bundle || !p.lost.IsZero() {
		t.Errorf("got %+v", p)
	}
	before := time.Now().Add(-time.Second)
	if err := os.Remove(bundle); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(program); err != nil { // as an update does
		t.Fatal(err)
	}
	if p := find(); p.bundle != bundle || p.lost.Before(before) || p.lost.After(time.Now().Add(time.Second)) {
		t.Errorf("after the bundle's removal: %+v", p)
	}
	for args, want := range map[string]role{"shim": maker, "shim backend": backend, "x holder id": holder, "x -id y": maker} {
		if got := roleOf(strings.Fields(args)); got != want {
			t.Errorf("%q: role %d", args, got)
		}
	}
}
