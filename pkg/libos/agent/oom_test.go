// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/xcontainer/xcontainer/pkg/libos/agent/stage"
	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// TestAwaitCounter waits for a counter that every cgroup v2 has: the kernel
// tells of it in the same way as of memory.events.
func TestAwaitCounter(t *testing.T) {
	dir := newTestCgroup(t)
	defer removeTree(dir)
	file := filepath.Join(dir, "cgroup.events")
	result := make(chan error, 1)
	wait := func(ctx context.Context, ended chan struct{}, known uint64) {
		result <- awaitCounter(ctx, ended, file, "populated", known)
	}
	never := make(chan struct{})

	go wait(context.Background(), never, 0)
	select {
	case err := <-result:
		t.Fatalf("answered before anything happened: %v", err)
	case <-time.After(20 * time.Millisecond): // long enough for a wrong answer to be seen at times
	}
	sleep := exec.Command("sleep", "1000")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { sleep.Process.Kill(); sleep.Wait() }()
	if err := stage.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Sprint(sleep.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err != nil {
		t.Errorf("populated: %v", err)
	}
	// What has happened already is answered at once.
	if wait(context.Background(), never, 0); <-result != nil {
		t.Error("already populated: an error")
	}
	ctx, cancel := context.WithCancel(context.Background())
	go wait(ctx, never, 1)
	cancel()
	if err := <-result; err != nil {
		t.Errorf("cancelled: %v", err)
	}
	ended := make(chan struct{})
	go wait(context.Background(), ended, 1)
	close(ended)
	if err := <-result; err != nil {
		t.Errorf("ended: %v", err)
	}
	// A cgroup without the file counts nothing until the end.
	if err := awaitCounter(context.Background(), ended, file+".none", "x", 0); err != nil {
		t.Errorf("no file: %v", err)
	}
}

// TestWaitOOMLeavesNothing: neither callers that give up nor containers that end
// leave a goroutine or a descriptor.
func TestWaitOOMLeavesNothing(t *testing.T) {
	g := newGuest(t)
	if _, err := g.api.WaitOOM(g.context(), &agentapi.WaitOOMRequest{Id: "none"}); status.Code(err) != codes.NotFound {
		t.Errorf("no container: %v", err)
	}
	id, _ := g.start(g.spec("sleep", "1000"), nil)
	goroutines, fds := g.load()
	const calls = 20
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	errs := make(chan error, calls)
	for range calls {
		go func() {
			_, err := g.api.WaitOOM(short, &agentapi.WaitOOMRequest{Id: id})
			errs <- err
		}()
	}
	for range calls {
		if err := <-errs; err == nil {
			t.Error("an answer, though nothing was killed")
		}
	}
	settled := func() bool { n, f := g.load(); return n <= goroutines && f <= fds }
	waitFor(t, settled)
	answers := make(chan uint64, calls)
	for range calls {
		go func() {
			r, err := g.api.WaitOOM(g.context(), &agentapi.WaitOOMRequest{Id: id, Known: 7})
			if err != nil {
				t.Error(err)
			}
			answers <- r.GetOomKills()
		}()
	}
	if err := g.kill(id, "", unix.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	for range calls {
		if n := <-answers; n != 7 {
			t.Errorf("the end was answered with %d, want what the caller knew", n)
		}
	}
	if w := g.wait(id, ""); w.OomKilled || w.OomKills != 0 {
		t.Errorf("killed by the host: %v", w)
	}
	g.remove(id, "")
	waitFor(t, settled)
}

// hog is a command that needs more and more memory.
var hog = []string{"tail", "/dev/zero"}

func TestOOM(t *testing.T) {
	g := newGuest(t)
	g.needControllers()
	spec := g.spec(hog...)
	spec.Resources = &agentapi.Resources{MemoryMax: proto.Int64(24 << 20)}
	id, _ := g.start(spec, nil)
	if r, err := g.api.WaitOOM(g.context(), &agentapi.WaitOOMRequest{Id: id}); err != nil || r.OomKills != 1 {
		t.Errorf("wait for oom: %v, %v", r, err)
	}
	if w := g.wait(id, ""); w.ExitStatus != 137 || !w.OomKilled || w.OomKills != 1 {
		t.Errorf("init: %v", w)
	}
	s, err := g.api.ContainerStats(g.context(), &agentapi.ContainerStatsRequest{Id: id})
	if err != nil || s.MemoryEvents["oom_kill"] != 1 || s.MemoryEvents["oom"] == 0 || s.MemoryMax != 24<<20 || s.MemoryPeak < 20<<20 {
		t.Errorf("stats: %v, %v", s, err)
	}
	g.remove(id, "")
	if strings.Contains(g.stderr.String(), "whole domain") {
		t.Errorf("the container's limit was taken for the domain's: %s", g.stderr)
	}
}

// TestOOMOfAnother: a process that ends by itself or by the host was not killed
// for memory, whatever happened to others.
func TestOOMOfAnother(t *testing.T) {
	g := newGuest(t)
	g.needControllers()
	spec := g.spec("sh", "-c", "tail /dev/zero; echo $?; exec sleep 1000")
	spec.Resources = &agentapi.Resources{MemoryMax: proto.Int64(24 << 20)}
	id, s := g.start(spec, nil)
	waitFor(t, func() bool { return bufferHas(s.out, "137\n") })
	before := g.mustExec(id, "before", g.process("true"), nil)
	before.out.text()
	if w := g.wait(id, "before"); w.OomKilled || w.OomKills != 1 {
		t.Errorf("exec that ended: %v", w)
	}
	victim := g.mustExec(id, "victim", g.process(hog...), nil)
	victim.out.text()
	if w := g.wait(id, "victim"); !w.OomKilled || w.OomKills != 2 || w.ExitStatus != 137 {
		t.Errorf("exec that was killed: %v", w)
	}
	if err := g.kill(id, "", unix.SIGKILL, true); err != nil {
		t.Fatal(err)
	}
	if w := g.wait(id, ""); w.OomKilled || w.OomKills != 2 || w.ExitStatus != 137 {
		t.Errorf("init that the host killed: %v", w)
	}
	g.remove(id, "")
}

// TestOOMOfTheDomain: a container without a limit meets what the guest can spare.
func TestOOMOfTheDomain(t *testing.T) {
	g := newGuest(t)
	g.needControllers()
	if err := stage.WriteFile(filepath.Join(g.cgroup, containersDir, "memory.max"), "33554432"); err != nil {
		t.Fatal(err)
	}
	id, _ := g.start(g.spec(hog...), nil)
	if r, err := g.api.WaitOOM(g.context(), &agentapi.WaitOOMRequest{Id: id}); err != nil || r.OomKills != 1 {
		t.Errorf("wait for oom: %v, %v", r, err)
	}
	if w := g.wait(id, ""); w.ExitStatus != 137 || !w.OomKilled || w.OomKills != 1 {
		t.Errorf("init: %v", w)
	}
	s, err := g.api.ContainerStats(g.context(), &agentapi.ContainerStatsRequest{Id: id})
	if err != nil || s.MemoryEvents["oom_kill"] != 1 || s.MemoryEvents["oom"] != 0 || s.MemoryMax != 1<<64-1 {
		t.Errorf("stats: %v, %v", s, err)
	}
	g.remove(id, "")
	if !strings.Contains(g.stderr.String(), "the memory of the whole domain was used up") {
		t.Errorf("nothing tells why: %q", g.stderr)
	}
}

// TestOOMBeforeStart: a limit that is too low for anything says so.
func TestOOMBeforeStart(t *testing.T) {
	g := newGuest(t)
	g.needControllers()
	spec := g.spec("true")
	spec.Resources = &agentapi.Resources{MemoryMax: proto.Int64(64 << 10)}
	err := g.tryCreate(spec)
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "memory limit too low?") {
		t.Errorf("got %v", err)
	}
}

func TestPidsLimit(t *testing.T) {
	g := newGuest(t)
	g.needControllers()
	spec := g.spec("sh", "-c", "(for i in $(seq 50); do sleep 1000 & done) 2>&1; exec sleep 1000")
	spec.Resources = &agentapi.Resources{PidsMax: proto.Int64(20)}
	id, s := g.start(spec, nil)
	waitFor(t, func() bool { return bufferHas(s.out, "fork") })
	st, err := g.api.ContainerStats(g.context(), &agentapi.ContainerStatsRequest{Id: id})
	if err != nil || st.PidsMax != 20 || st.PidsCurrent > 20 || st.PidsCurrent < 10 {
		t.Errorf("stats: %v, %v", st, err)
	}
	// There is room for no process, then for one but not for its threads.
	for _, room := range []int64{0, 1, 2} {
		_, err := g.api.Update(g.context(), &agentapi.UpdateRequest{Id: id, Resources: &agentapi.Resources{PidsMax: proto.Int64(int64(st.PidsCurrent) + room)}})
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprint("e", room)
		_, err = g.exec(id, name, g.process("true"), nil)
		if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "pids.max") {
			t.Errorf("room for %d: %v", room, err)
		}
	}
	g.end(id)
}

func TestUpdate(t *testing.T) {
	g := newGuest(t)
	g.needControllers()
	spec := g.spec("sh", "-c", "head -c 8388608 /dev/zero >/dev/shm/f; echo ready; exec sleep 1000")
	id, s := g.start(spec, nil)
	waitFor(t, func() bool { return bufferHas(s.out, "ready") })
	update := func(r *agentapi.Resources) error {
		_, err := g.api.Update(g.context(), &agentapi.UpdateRequest{Id: id, Resources: r})
		return err
	}
	dir := filepath.Join(g.cgroup, containersDir, id)
	want := func(file, want string) {
		t.Helper()
		if b, err := os.ReadFile(filepath.Join(dir, file)); err != nil || string(b) != want+"\n" {
			t.Errorf("%s: %q, %v, want %s", file, b, err, want)
		}
	}
	if err := update(&agentapi.Resources{
		MemoryMax: proto.Int64(64 << 20), MemoryLow: proto.Int64(1 << 20), SwapMax: proto.Int64(0), PidsMax: proto.Int64(33),
		CpuWeight: proto.Uint64(7), CpuQuotaUs: proto.Int64(20000), CpuPeriodUs: proto.Uint64(50000), Cpus: "0",
		Unified: map[string]string{"memory.high": "60000000"},
	}); err != nil {
		t.Fatal(err)
	}
	for file, v := range map[string]string{"memory.max": "67108864", "memory.low": "1048576", "pids.max": "33", "cpu.weight": "7",
		"cpu.max": "20000 50000", "cpuset.cpus": "0", "memory.high": "59998208"} {
		want(file, v)
	}
	if err := update(&agentapi.Resources{CpuQuotaUs: proto.Int64(-1)}); err != nil {
		t.Error(err)
	}
	want("cpu.max", "max 50000")
	if err := update(&agentapi.Resources{CpuQuotaUs: proto.Int64(10000)}); err != nil {
		t.Error(err)
	}
	if err := update(&agentapi.Resources{CpuPeriodUs: proto.Uint64(40000)}); err != nil {
		t.Error(err)
	}
	want("cpu.max", "10000 40000")
	// One that the kernel refuses changes nothing.
	for _, r := range []*agentapi.Resources{
		{PidsMax: proto.Int64(44), CpuWeight: proto.Uint64(100000)},
		{PidsMax: proto.Int64(44), CpuQuotaUs: proto.Int64(1)},
		{PidsMax: proto.Int64(44), Cpus: "9999"},
		{MemoryMax: proto.Int64(1 << 30), Unified: map[string]string{"pids.max": "few"}},
	} {
		if err := update(r); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: %v", r, err)
		}
	}
	want("pids.max", "33")
	want("memory.max", "67108864")
	// Below what is in use and cannot be given back: the kernel kills.
	if err := update(&agentapi.Resources{MemoryMax: proto.Int64(4 << 20)}); err != nil {
		t.Error(err)
	}
	if w := g.wait(id, ""); !w.OomKilled || w.ExitStatus != 137 {
		t.Errorf("after the limit fell: %v", w)
	}
	if err := update(&agentapi.Resources{PidsMax: proto.Int64(50)}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("of an ended container: %v", err)
	}
	g.remove(id, "")
}

// TestNestedCgroups: a container that has made cgroups below its own, as systemd
// does, can still be looked at, entered and signalled.
func TestNestedCgroups(t *testing.T) {
	g := newGuest(t)
	limited := haveControllers(g.cgroup) != nil
	spec := g.spec("sh", "-c", `cd /sys/fs/cgroup && mkdir -p a/b && echo $$ >a/b/cgroup.procs
`+map[bool]string{true: "echo +memory >cgroup.subtree_control; ", false: ""}[limited]+`sleep 1000 & cat /proc/self/cgroup; wait`)
	for _, m := range spec.Mounts {
		if m.Type == "cgroup" {
			m.Options = []string{"rw", "nosuid", "noexec", "nodev"}
		}
	}
	id, s := g.start(spec, nil)
	waitFor(t, func() bool { return bufferHas(s.out, "0::/a/b\n") })
	e := g.mustExec(id, "e", g.process("sh", "-c", "echo in; exec sleep 1000"), nil)
	waitFor(t, func() bool { return bufferHas(e.out, "in\n") })
	r, err := g.api.Processes(g.context(), &agentapi.ProcessesRequest{Id: id})
	if err != nil || len(r.Processes) != 3 || r.Processes[0].ExecId != "" || r.Processes[1].Pid > r.Processes[2].Pid || r.Processes[2].ExecId != "e" {
		t.Errorf("processes: %v, %v", r, err)
	}
	if err := g.kill(id, "", unix.SIGKILL, true); err != nil {
		t.Error(err)
	}
	g.wait(id, "")
	g.wait(id, "e")
	g.remove(id, "e")
	g.remove(id, "")
	if _, err := os.Stat(filepath.Join(g.cgroup, containersDir, id)); !os.IsNotExist(err) {
		t.Errorf("the cgroup is left: %v", err)
	}
	if s.err.text() != "" {
		t.Errorf("stderr: %q", s.err.text())
	}
}
