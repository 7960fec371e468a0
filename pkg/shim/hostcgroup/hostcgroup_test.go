// SPDX-License-Identifier: Apache-2.0

package hostcgroup

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestPath(t *testing.T) {
	for _, tt := range []struct{ in, want, err string }{
		{"", "/xcontainer.ns.c", ""},
		{"/default/x", "/default/x", ""},
		{"/a//b/./c/", "/a/b/c", ""},
		{"a/b", "/a/b", ""},
		{"/a:b:c", "/a:b:c", ""},
		{"system.slice:cri:x", "/system.slice/cri-x.scope", ""},
		{":cri:x", "/system.slice/cri-x.scope", ""},
		{"-.slice::x", "/x.scope", ""},
		{"kubepods-burstable-pod1_2.slice:cri-containerd:abc",
			"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-abc.scope", ""},
		{"a.slice:x:a-b.slice", "/a.slice/a-b.slice", ""},
		{"/", "", "is the root; give the container a cgroup of its own"},
		{"/.", "", "is the root; give the container a cgroup of its own"},
		{"/a/../../etc", "", `holds ".."`},
		{"../x", "", `holds ".."`},
		{"..:x:y", "", `names the slice "..", which does not end in .slice`},
		{"a:x:y", "", `names the slice "a", which does not end in .slice`},
		{"a--b.slice:x:y", "", `names the slice "a--b.slice", which has an empty part`},
		{"/a\nb", "", "holds a NUL or a new line"},
		{"/sys/fs/cgroup/x", "", "must not begin with the hierarchy's mount point"},
	} {
		got, err := Path(tt.in, "ns", "c")
		want := ""
		if tt.err != "" {
			want = fmt.Sprintf("config.json: linux.cgroupsPath %q %s", tt.in, tt.err)
		}
		text := ""
		if err != nil {
			text = err.Error()
		}
		if got != tt.want || text != want || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %q, %v", tt.in, got, err)
		}
	}
	if _, err := Path("/"+strings.Repeat("x", 5000), "ns", "c"); !errors.Is(err, ErrInvalid) || len(err.Error()) > 200 {
		t.Errorf("long path: %v", err)
	}
}

func p[T any](v T) *T { return &v }

func resources(limit, reservation, swap *int64) *specs.LinuxResources {
	return &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: limit, Reservation: reservation, Swap: swap}}
}

func all(string) bool { return true }

func TestV2Files(t *testing.T) {
	for _, tt := range []struct {
		name string
		r    *specs.LinuxResources
		has  func(string) bool
		want map[string]string
	}{
		{"nothing", &specs.LinuxResources{}, all, map[string]string{}},
		{"memory", resources(p[int64](32<<20), p[int64](1<<20), p[int64](48<<20)), all,
			map[string]string{"memory.max": "33554432", "memory.low": "1048576", "memory.swap.max": "16777216"}},
		{"too little for the holder", resources(p[int64](4<<20), nil, p[int64](8<<20)), all,
			map[string]string{"memory.max": "16777216", "memory.swap.max": "0"}},
		{"no limit", resources(p[int64](-1), nil, p[int64](-1)), all,
			map[string]string{"memory.max": fmt.Sprint(math.MaxInt64), "memory.swap.max": fmt.Sprint(math.MaxInt64)}},
		{"zero is no setting", resources(p[int64](0), p[int64](0), p[int64](0)), all, map[string]string{}},
		{"no swap accounting", resources(p[int64](32<<20), nil, p[int64](48<<20)),
			func(f string) bool { return f != "memory.swap.max" }, map[string]string{"memory.max": "33554432"}},
		{"cpu", &specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: p[uint64](512), Quota: p[int64](50000), Period: p[uint64](100000), Cpus: "0-1", Mems: "0"}}, all,
			map[string]string{"cpu.weight": "59", "cpu.max": "50000 100000", "cpuset.cpus": "0-1", "cpuset.mems": "0"}},
		{"no quota", &specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: p[uint64](0), Quota: p[int64](-1)}}, all,
			map[string]string{"cpu.max": "max 100000"}},
		{"pids", &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: p[int64](1)}}, all, map[string]string{"pids.max": "16"}},
		{"any number of pids", &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: p[int64](-1)}}, all, map[string]string{"pids.max": "max"}},
		{"no controllers", &specs.LinuxResources{
			CPU:    &specs.LinuxCPU{Shares: p[uint64](2), Cpus: "0"},
			Memory: &specs.LinuxMemory{Limit: p[int64](1 << 30)},
			Pids:   &specs.LinuxPids{Limit: p[int64](100)},
		}, func(string) bool { return false }, map[string]string{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// A folder that looks like a hierarchy shows what is written.
			root := t.TempDir()
			group := filepath.Join(root, "a", "b")
			if err := os.MkdirAll(group, 0o755); err != nil {
				t.Fatal(err)
			}
			for _, d := range []string{root, filepath.Dir(group)} {
				if err := os.WriteFile(filepath.Join(d, "cgroup.subtree_control"), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			v := &v2{root: root, path: "/a/b"}
			if err := v.create(); err != nil {
				t.Fatal(err)
			}
			if err := v.m.Update(toV2(raise(tt.r), tt.has)); err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			entries, err := os.ReadDir(group)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				data, err := os.ReadFile(filepath.Join(group, e.Name()))
				if err != nil {
					t.Fatal(err)
				}
				got[e.Name()] = string(data)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// TestParentOfOthers has a cgroup that has handed its controllers on.
func TestParentOfOthers(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "a"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"cgroup.subtree_control": "", "a/cgroup.subtree_control": "cpu memory\n", "a/cgroup.procs": ""} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err := (&Group{"/a", &v2{root: root, path: "/a"}}).Make()
	if want := "the cgroup /a is for the cgroups in it and takes no process; give the container another cgroupsPath"; !errors.Is(err, ErrInUse) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestV1Order(t *testing.T) {
	type step struct{ limit, swap int64 }
	for _, tt := range []struct {
		name        string
		limit, swap *int64
		memsw       int64
		want        []step
	}{
		{"swap not counted", p[int64](32 << 20), p[int64](64 << 20), 0, []step{{32 << 20, 0}}},
		{"down", p[int64](32 << 20), p[int64](64 << 20), 128 << 20, []step{{32 << 20, 64 << 20}}},
		{"up", p[int64](256 << 20), p[int64](512 << 20), 128 << 20, []step{{0, 512 << 20}, {256 << 20, 0}}},
		{"up alone", p[int64](256 << 20), nil, 128 << 20, []step{{0, 256 << 20}, {256 << 20, 0}}},
		{"to none", p[int64](-1), p[int64](-1), 128 << 20, []step{{0, -1}, {-1, 0}}},
	} {
		var got []step
		for _, r := range v1Steps(raise(resources(tt.limit, nil, tt.swap)), tt.memsw) {
			var s step
			if r.Memory.Limit != nil {
				s.limit = *r.Memory.Limit
			}
			if r.Memory.Swap != nil {
				s.swap = *r.Memory.Swap
			}
			got = append(got, s)
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

// read returns a file of the group on whatever hierarchy the host has.
func read(t *testing.T, g *Group, v1Controller, v1File, v2File string) string {
	t.Helper()
	name := filepath.Join(Root, g.Path(), v2File)
	if cgroups.Mode() != cgroups.Unified {
		name = filepath.Join(Root, v1Controller, g.Path(), v1File)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

// group makes a real cgroup, which needs root and a hierarchy.
func group(t *testing.T) *Group {
	t.Helper()
	path, err := Path(fmt.Sprintf("/xcontainer-test/%d-%s", os.Getpid(), t.Name()), "", "")
	if err != nil {
		t.Fatal(err)
	}
	g, err := At(path)
	if err == nil {
		err = g.Make()
	}
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Delete(); err != nil {
			t.Error(err)
		}
		if err := made(t, filepath.Dir(path)).Delete(); err != nil {
			t.Error(err)
		}
	})
	return g
}

func made(t *testing.T, path string) *Group {
	t.Helper()
	g, err := At(path)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// sleeper is a process in the group.
func sleeper(t *testing.T, g *Group) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if err := g.Add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func TestOnThisHost(t *testing.T) {
	g := group(t)
	if err := g.Update(&specs.LinuxResources{
		CPU:    &specs.LinuxCPU{Shares: p[uint64](512)},
		Memory: &specs.LinuxMemory{Limit: p[int64](32 << 20)},
		Pids:   &specs.LinuxPids{Limit: p[int64](64)},
	}); err != nil {
		t.Fatal(err)
	}
	if got := read(t, g, "memory", "memory.limit_in_bytes", "memory.max"); got != "33554432" {
		t.Errorf("memory limit %s", got)
	}
	if got := read(t, g, "pids", "pids.max", "pids.max"); got != "64" {
		t.Errorf("pids limit %s", got)
	}
	cmd := sleeper(t, g)
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		// In a hybrid host the second version's hierarchy has no limits.
		if hybrid := cgroups.Mode() != cgroups.Unified; hybrid && strings.HasPrefix(line, "0::") {
			continue
		}
		if !strings.HasSuffix(line, ":"+g.Path()) {
			t.Errorf("the process is in %s", line)
		}
	}

	// It is in use now: nobody else gets it, and nobody removes it.
	if err := made(t, g.Path()).Make(); !errors.Is(err, ErrInUse) {
		t.Errorf("a second owner: %v", err)
	}
	if err := g.Delete(); err == nil || !strings.Contains(err.Error(), "end the processes in it") {
		t.Errorf("removed with a process in it: %v", err)
	}

	// Up with what no swap limit stands in the way of, then to none.
	for _, limit := range []int64{64 << 20, -1} {
		if err := g.Update(resources(p(limit), nil, nil)); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, g, "memory", "memory.limit_in_bytes", "memory.max"); got != "max" && got != "9223372036854771712" {
		t.Errorf("memory limit %s", got)
	}
	cmd.Process.Kill()
	cmd.Wait()
	for range 2 {
		if err := g.Delete(); err != nil {
			t.Error(err)
		}
	}
	folders, err := g.Folders()
	if err != nil || len(folders) == 0 {
		t.Fatal(folders, err)
	}
	for _, dir := range folders {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

func TestRemoveStaysInItsPlace(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{dir, Root, Root + "/../../.." + dir, Root + "/x/..", ""} {
		if err := Remove([]string{name}); err == nil {
			t.Errorf("%q was removed", name)
		}
	}
	if err := Remove([]string{Root + "/no/such"}); err != nil {
		t.Error(err)
	}
}

// TestTakenOver has a cgroup that somebody left, with one of its own in it.
func TestTakenOver(t *testing.T) {
	g := group(t)
	inner := made(t, g.Path()+"/inner")
	for range 2 {
		if err := inner.Make(); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Delete(); err != nil {
		t.Error(err)
	}
	if err := inner.Delete(); err != nil {
		t.Error(err)
	}
	if cgroups.Mode() != cgroups.Unified {
		if _, err := cgroup1.Load(cgroup1.StaticPath(g.Path())); !errors.Is(err, cgroup1.ErrCgroupDeleted) {
			t.Errorf("still there: %v", err)
		}
	}
}
