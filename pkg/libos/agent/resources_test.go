// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// fakeCgroup is a directory with plain files in place of the kernel's.
func fakeCgroup(t *testing.T, files map[string]string) *cgroup {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &cgroup{path: dir, controllers: controllers}
}

// fresh are the files of a new cgroup, but for memory.swap.max.
func fresh() map[string]string {
	return map[string]string{
		"pids.max": "", "memory.low": "", "memory.max": "", "cpu.weight": "", "cpu.max": "", "cpuset.cpus": "", "memory.high": "",
	}
}

func TestLimits(t *testing.T) {
	for _, c := range []struct {
		name  string
		r     *agentapi.Resources
		files map[string]string // which then differ from fresh
	}{
		{"none", &agentapi.Resources{}, nil},
		{"nil", nil, nil},
		{"numbers", &agentapi.Resources{MemoryMax: proto.Int64(64 << 20), MemoryLow: proto.Int64(4096), PidsMax: proto.Int64(100), CpuWeight: proto.Uint64(50), Cpus: "0-1"},
			map[string]string{"memory.max": "67108864\n", "memory.low": "4096\n", "pids.max": "100\n", "cpu.weight": "50\n", "cpuset.cpus": "0-1\n"}},
		{"no limit", &agentapi.Resources{MemoryMax: proto.Int64(-1), PidsMax: proto.Int64(-1)}, map[string]string{"memory.max": "max\n", "pids.max": "max\n"}},
		{"zero is zero", &agentapi.Resources{PidsMax: proto.Int64(0)}, map[string]string{"pids.max": "0\n"}},
		{"swap where there is none", &agentapi.Resources{SwapMax: proto.Int64(1 << 20)}, nil},
		{"quota", &agentapi.Resources{CpuQuotaUs: proto.Int64(5000)}, map[string]string{"cpu.max": "5000\n"}},
		{"no quota", &agentapi.Resources{CpuQuotaUs: proto.Int64(-1)}, map[string]string{"cpu.max": "max\n"}},
		{"quota and period", &agentapi.Resources{CpuQuotaUs: proto.Int64(5000), CpuPeriodUs: proto.Uint64(20000)}, map[string]string{"cpu.max": "5000 20000\n"}},
		{"unified", &agentapi.Resources{Unified: map[string]string{"memory.high": "4096", "pids.max": "7"}, PidsMax: proto.Int64(5)},
			map[string]string{"memory.high": "4096\n", "pids.max": "7\n"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := fakeCgroup(t, fresh())
			if err := g.set(c.r); err != nil {
				t.Fatal(err)
			}
			for name := range fresh() {
				b, err := os.ReadFile(filepath.Join(g.path, name))
				// A plain file keeps what a shorter write leaves of it.
				if err != nil || string(b) != c.files[name] {
					t.Errorf("%s: %q, %v, want %q", name, b, err, c.files[name])
				}
			}
		})
	}
}

func TestPeriodKeepsQuota(t *testing.T) {
	for now, want := range map[string]string{"max 100000\n": "max 20000\n", "5000 100000\n": "5000 20000\n"} {
		g := fakeCgroup(t, map[string]string{"cpu.max": now})
		list, err := g.limitsOf(&agentapi.Resources{CpuPeriodUs: proto.Uint64(20000)})
		if err != nil || len(list) != 1 || list[0].value+"\n" != want {
			t.Errorf("%q: %v, %v", now, list, err)
		}
	}
}

func TestRefusedLimits(t *testing.T) {
	unified := func(key string) *agentapi.Resources {
		return &agentapi.Resources{Unified: map[string]string{key: "1"}}
	}
	for _, c := range []struct {
		r    *agentapi.Resources
		text string
	}{
		{&agentapi.Resources{MemoryMax: proto.Int64(-2)}, "limit memory.max cannot be -2"},
		{&agentapi.Resources{PidsMax: proto.Int64(math.MinInt64)}, "limit pids.max cannot be"},
		{&agentapi.Resources{CpuWeight: proto.Uint64(5)}, "limit cpu.weight to 5: no such file or directory"},
		{unified("memory.nothing"), "limit memory.nothing to 1: no such file or directory"},
		{unified("io.max"), `unified resource "io.max" can't be set: controller "io" not available`},
		{unified("hugetlb.2MB.max"), `controller "hugetlb" not available`},
		{unified("cgroup.procs"), `unified resource "cgroup.procs" can't be set: it is no limit`},
		{unified("../memory.max"), `unified resource "../memory.max" must be a file name (no slashes)`},
		{unified("memory./../../cgroup.kill"), "must be a file name (no slashes)"},
		{unified(".."), "must be in the form CONTROLLER.PARAMETER"},
		{unified("memory."), "must be in the form CONTROLLER.PARAMETER"},
		{unified("memory"), "must be in the form CONTROLLER.PARAMETER"},
		{unified("memory.max\x00"), "must be in the form CONTROLLER.PARAMETER"},
		{unified(""), "must be in the form CONTROLLER.PARAMETER"},
	} {
		g := fakeCgroup(t, map[string]string{"memory.max": "max", "pids.max": "max"})
		err := g.set(c.r)
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%v: %v, want %s", c.r, err, c.text)
		}
	}
}

// TestLimitsAreSetTogether: after a failure the earlier ones are as before.
func TestLimitsAreSetTogether(t *testing.T) {
	g := fakeCgroup(t, map[string]string{"pids.max": "111\n", "memory.max": "222\n"})
	err := g.set(&agentapi.Resources{PidsMax: proto.Int64(5), MemoryMax: proto.Int64(7), CpuWeight: proto.Uint64(1)})
	if err == nil {
		t.Fatal("a file that does not exist was written")
	}
	for name, want := range map[string]string{"pids.max": "111", "memory.max": "222"} {
		if b, _ := os.ReadFile(filepath.Join(g.path, name)); !strings.HasPrefix(string(b), want) {
			t.Errorf("%s: %q, want %s", name, b, want)
		}
	}
}

func TestNumbers(t *testing.T) {
	g := fakeCgroup(t, map[string]string{
		"pids.max": "max\n", "pids.current": "12\n", "memory.stat": "anon 4096\nfile 8192\nodd\nbad x\nneg -1\n", "memory.max": "junk\n",
	})
	for file, want := range map[string]uint64{"pids.max": math.MaxUint64, "pids.current": 12, "memory.peak": 0, "memory.max": 0} {
		if n := g.number(file); n != want {
			t.Errorf("%s: %d, want %d", file, n, want)
		}
	}
	stat := g.table("memory.stat")
	if len(stat) != 2 || stat["anon"] != 4096 || stat["file"] != 8192 {
		t.Errorf("memory.stat: %v", stat)
	}
	if m := g.table("memory.events"); m != nil {
		t.Errorf("no file: %v", m)
	}
}

func TestPids(t *testing.T) {
	g := fakeCgroup(t, map[string]string{"cgroup.procs": "30\n22\n0\n22\n"})
	below := filepath.Join(g.path, "a/b")
	os.MkdirAll(below, 0o755)
	os.WriteFile(filepath.Join(below, "cgroup.procs"), []byte("25\n"), 0o644)
	if pids, err := g.pids(); err != nil || !slices.Equal(pids, []int{22, 25, 30}) {
		t.Errorf("got %v, %v", pids, err)
	}
	os.Remove(filepath.Join(g.path, "cgroup.procs"))
	if _, err := g.pids(); err == nil {
		t.Error("no list and no error")
	}
}

// TestContainersFit: what a guest can spare follows its size.
func TestContainersFit(t *testing.T) {
	root := t.TempDir()
	top := filepath.Join(root, containersDir)
	os.Mkdir(top, 0o755)
	tree := &cgroupTree{path: top, controllers: controllers, reserve: 40 << 20}
	for total, want := range map[uint64]string{256 << 20: "226492416", 41 << 20: "4194304", 10 << 20: "4194304"} {
		os.WriteFile(filepath.Join(top, "memory.max"), nil, 0o644)
		if err := tree.fit(total); err != nil {
			t.Fatal(err)
		}
		if b, _ := os.ReadFile(filepath.Join(top, "memory.max")); string(b) != want {
			t.Errorf("%d: %q, want %s", total, b, want)
		}
	}
	// Without the controllers there is nothing to fit, and the parameters of a
	// kernel that is not the agent's own are left alone.
	if err := (&cgroupTree{path: "/none", ownKernel: true}).fit(1); err != nil {
		t.Error(err)
	}
	if err := (&cgroupTree{path: "/none", controllers: []string{"pids"}}).fit(1); err != nil {
		t.Error(err)
	}
}

// TestEnableControllers writes once, and nothing for an empty list.
func TestEnableControllers(t *testing.T) {
	dir := t.TempDir()
	err := enableControllers(dir, []string{"cpu", "pids"})
	if err == nil || !strings.HasPrefix(err.Error(), "enable cgroup controllers cpu, pids: open ") {
		t.Errorf("without the file: %v", err)
	}
	if err := enableControllers(dir, nil); err != nil {
		t.Errorf("no controllers: %v", err)
	}
	file := filepath.Join(dir, "cgroup.subtree_control")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := enableControllers(dir, []string{"cpu", "pids"}); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "+cpu +pids" {
		t.Errorf("wrote %q, %v", b, err)
	}
}
