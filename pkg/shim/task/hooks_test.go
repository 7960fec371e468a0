// SPDX-License-Identifier: Apache-2.0

package task_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/shim/netns"
	"github.com/xcontainer/xcontainer/pkg/shim/record"
)

// hook is a shell command that first writes its kind, status and network to the
// bundle's log.
func hook(kind, command string) []specs.Hook {
	script := fmt.Sprintf(`s=$(cat); case $s in *'"annotations":{"k":"v"}'*) ;; *) exit 9;; esac
status=${s#*'"status":"'}; pid=${s#*'"pid":'}; case $s in *'"pid":'*) pid=${pid%%%%,*};; *) pid=none;; esac
echo "%s ${status%%%%\"*} $pid $(readlink /proc/self/ns/net)" >>log; %s`, kind, command)
	return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}}}
}

// hooked is a container with a hook of each kind of the host.
func hooked(fails string) *specs.Spec {
	s := spec("sh", "-c", "cat")
	s.Annotations = map[string]string{"k": "v"}
	command := func(kind string) string {
		if kind == fails {
			return "echo 'it is raining' >&2; exit 1"
		}
		return ":"
	}
	s.Hooks = &specs.Hooks{
		Prestart:        hook("prestart", command("prestart")),
		CreateRuntime:   hook("createRuntime", command("createRuntime")+"; ls rootfs >/dev/null"),
		CreateContainer: hook("createContainer", command("createContainer")),
		Poststart:       hook("poststart", command("poststart")),
		Poststop:        append(hook("poststop", command("poststop")), hook("poststop2", ":")...),
	}
	return s
}

// hookLog is what the hooks have written.
func (b *box) hookLog() []string {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join(b.bundle, "log"))
	if err != nil {
		b.t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

func ofNet(t *testing.T, path string) string {
	t.Helper()
	s, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func until(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come to pass")
		}
	}
}

func TestHooks(t *testing.T) {
	d := newDaemon(t)
	b := d.bundled("c", false, hooked(""))
	pid := b.create()
	host := ofNet(t, "/proc/self/ns/net")
	own := ofNet(t, netns.Of(int(pid)))
	want := []string{
		fmt.Sprintf("prestart creating %d %s", pid, host),
		fmt.Sprintf("createRuntime creating %d %s", pid, host),
		fmt.Sprintf("createContainer creating %d %s", pid, own),
	}
	if got := b.hookLog(); !slices.Equal(got, want) {
		t.Errorf("at create %q, want %q", got, want)
	}
	b.start()
	want = append(want, fmt.Sprintf("poststart running %d %s", pid, host))
	if got := b.hookLog(); !slices.Equal(got, want) {
		t.Errorf("at start %q, want %q", got, want)
	}
	if err := b.kill("", unix.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	b.wait("")
	if got := b.hookLog(); !slices.Equal(got, want) {
		t.Errorf("at exit %q, want %q", got, want)
	}
	b.delete("")
	want = append(want, "poststop stopped none "+host, "poststop2 stopped none "+host)
	if got := b.hookLog(); !slices.Equal(got, want) {
		t.Errorf("at delete %q, want %q", got, want)
	}
	if r, err := record.Read(b.bundle); r != nil || err != nil {
		t.Errorf("record %+v, %v", r, err)
	}
}

// TestPoststopIsRemembered: until the hooks have run the record says so.
func TestPoststopIsRemembered(t *testing.T) {
	d := newDaemon(t)
	b := d.bundled("c", false, hooked(""))
	b.create()
	b.start()
	if err := b.kill("", unix.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	b.wait("")
	// Teardown is over when the domain has gone.
	until(t, func() bool { n, err := d.world.Domains(); return n == 0 && err == nil })
	if r, err := record.Read(b.bundle); err != nil || r == nil || !r.Hooks {
		t.Errorf("record %+v, %v", r, err)
	}
	b.delete("")
}

func TestHookFailures(t *testing.T) {
	for _, kind := range []string{"prestart", "createRuntime", "createContainer"} {
		t.Run(kind, func(t *testing.T) {
			b := newDaemon(t).bundled("c", false, hooked(kind))
			_, err := b.task.Create(b.ctx(), b.createRequest())
			if err == nil || errgrpc.ToNative(err).Error() != "the "+kind+" hook /bin/sh failed (exit status 1): it is raining" {
				t.Errorf("create: %v", err)
			}
			log := b.hookLog()
			if n := len(log); !strings.HasPrefix(log[n-3], kind+" ") || !strings.HasPrefix(log[n-2], "poststop ") || !strings.HasPrefix(log[n-1], "poststop2 ") {
				t.Errorf("ran %q", log)
			}
			if r, err := record.Read(b.bundle); r != nil || err != nil {
				t.Errorf("record %+v, %v", r, err)
			}
		})
	}
	t.Run("poststart", func(t *testing.T) {
		b := newDaemon(t).bundled("c", false, hooked("poststart"))
		b.create()
		_, err := b.task.Start(b.ctx(), &taskapi.StartRequest{ID: "c"})
		if err == nil || !strings.Contains(err.Error(), "the poststart hook /bin/sh failed (exit status 1): it is raining") {
			t.Errorf("start: %v", err)
		}
		if status := b.wait(""); status != 137 {
			t.Errorf("exit status %d", status)
		}
		b.delete("")
		if log := b.hookLog(); !strings.HasPrefix(log[len(log)-1], "poststop2 ") {
			t.Errorf("ran %q", log)
		}
	})
	t.Run("poststop", func(t *testing.T) {
		b := newDaemon(t).bundled("c", false, hooked("poststop"))
		b.create()
		b.delete("")
		if log := b.hookLog(); !strings.HasPrefix(log[len(log)-1], "poststop2 ") {
			t.Errorf("ran %q", log)
		}
	})
}

// TestStartHooks: those of the container go to the guest, with their state.
func TestStartHooks(t *testing.T) {
	d := newDaemon(t)
	s := spec("sh", "-c", "cat")
	s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/h"}}}
	b := d.bundled("c", false, s)
	b.create()
	defer b.delete("")
	got := d.guest().Container().GetStartHooks()
	var state specs.State
	if len(got) != 1 || got[0].Path != "/h" {
		t.Fatalf("hooks %v", got)
	}
	if err := json.Unmarshal(got[0].State, &state); err != nil || state.ID != "c" || state.Status != specs.StateCreated || state.Pid != 1 || state.Bundle != b.bundle {
		t.Errorf("state %s, %v", got[0].State, err)
	}
}

func TestCgroup(t *testing.T) {
	limit, score := int64(32<<20), 500
	s := spec("sh", "-c", "cat")
	s.Linux.CgroupsPath = "/some/where"
	s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
	s.Process.OOMScoreAdj = &score
	d := newDaemon(t)
	b := d.bundled("c", false, s)
	pid := b.create()
	g := d.groups.Get("/some/where")
	if g == nil || len(g.Pids) != 1 || g.Pids[0] != int(pid) || *g.Limits.Memory.Limit != limit {
		t.Errorf("cgroup %+v, pid %d", g, pid)
	}
	if data, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid)); err != nil || string(data) != "500\n" {
		t.Errorf("OOM score %q, %v", data, err)
	}
	if r, err := record.Read(b.bundle); err != nil || len(r.Cgroups) != 1 {
		t.Errorf("record %+v, %v", r, err)
	}
	b.start()
	if err := b.update(`{"memory":{"limit":67108864}}`); err != nil {
		t.Errorf("update: %v", err)
	}
	if g := d.groups.Get("/some/where"); *g.Limits.Memory.Limit != 64<<20 {
		t.Errorf("limit after the update: %d", *g.Limits.Memory.Limit)
	}

	// The cgroup is taken.
	other := d.bundled("other", false, s)
	if _, err := other.task.Create(other.ctx(), other.createRequest()); !errdefs.IsFailedPrecondition(errgrpc.ToNative(err)) {
		t.Errorf("a second container: %v", err)
	}
	if err := b.kill("", unix.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	b.wait("")
	b.delete("")
	if d.groups.Count() != 0 {
		t.Error("the cgroup is still there")
	}
}

func TestPlaceErrors(t *testing.T) {
	d := newDaemon(t)
	for i, tt := range []struct {
		change func(*specs.Spec)
		want   string
	}{
		{func(s *specs.Spec) { s.Linux.CgroupsPath = "/a/../b" }, `config.json: linux.cgroupsPath "/a/../b" holds ".."`},
		{func(s *specs.Spec) { s.Linux.Namespaces[4].Path = "/no/such" }, "holder: start: network namespace /no/such does not exist; make it first"},
		{func(s *specs.Spec) { s.Linux.Namespaces[4].Path = "/dev/null" }, "holder: start: /dev/null is not a network namespace"},
	} {
		s := spec("true")
		tt.change(s)
		b := d.bundled(fmt.Sprint("c", i), false, s)
		_, err := b.task.Create(b.ctx(), b.createRequest())
		if err = errgrpc.ToNative(err); !errdefs.IsInvalidArgument(err) || err.Error() != tt.want {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
}

// TestWithoutCgroups: a host may let none be made.
func TestWithoutCgroups(t *testing.T) {
	d := newDaemon(t)
	d.groups.Unavailable = true
	b := d.bundled("c", false, spec("sh", "-c", "exit 3"))
	b.create()
	b.start()
	if status := b.wait(""); status != 3 {
		t.Errorf("exit status %d", status)
	}
	if r, err := record.Read(b.bundle); err == nil && r != nil && len(r.Cgroups) != 0 {
		t.Errorf("record %+v", r)
	}
	b.delete("")
}

// TestJoinedNetwork has two containers in one network namespace.
func TestJoinedNetwork(t *testing.T) {
	d := newDaemon(t)
	first := d.bundled("first", false, spec("sh", "-c", "cat"))
	pid := first.create()
	s := spec("sh", "-c", "cat")
	s.Linux.Namespaces[4].Path = netns.Of(int(pid))
	second := d.bundled("second", false, s)
	if got, want := ofNet(t, netns.Of(int(second.create()))), ofNet(t, netns.Of(int(pid))); got != want {
		t.Errorf("in %s, want %s", got, want)
	}
	second.delete("")
	first.delete("")
}
