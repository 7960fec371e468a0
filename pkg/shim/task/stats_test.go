// SPDX-License-Identifier: Apache-2.0

package task_test

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"testing"

	v1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	v2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/runc/options"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
	"github.com/xcontainer/xcontainer/pkg/shim/task"
	"github.com/xcontainer/xcontainer/pkg/shim/task/tasktest"
)

// seen is what a client sees of a container's numbers, whatever their form.
type seen struct{ cpu, memory, limit, pids, read uint64 }

func (b *box) stats() (s seen) {
	b.t.Helper()
	r, err := b.task.Stats(b.ctx(), &taskapi.StatsRequest{ID: b.id})
	if err != nil {
		b.t.Fatalf("stats: %v", err)
	}
	m, err := typeurl.UnmarshalAny(r.Stats)
	if err != nil {
		b.t.Fatal(err)
	}
	switch m := m.(type) {
	case *v1.Metrics:
		s = seen{m.CPU.Usage.Total / 1000, m.Memory.Usage.Usage, m.Memory.Usage.Limit, m.Pids.Current, 0}
		if len(m.Blkio.IoServiceBytesRecursive) > 0 {
			s.read = m.Blkio.IoServiceBytesRecursive[0].Value
		}
	case *v2.Metrics:
		s = seen{m.CPU.UsageUsec, m.Memory.Usage, m.Memory.UsageLimit, m.Pids.Current, 0}
		if len(m.Io.Usage) > 0 {
			s.read = m.Io.Usage[0].Rbytes
		}
	default:
		b.t.Fatalf("stats are a %T", m)
	}
	return s
}

func TestStats(t *testing.T) {
	d := newDaemon(t)
	b := d.limited()
	d.guest().Use(func(u *task.Usage) { u.IO.ReadBytes = 77 })
	if got, want := b.stats(), (seen{1000, 16384, 64 * mb, 2, 77}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	b.mustPause()
	if got, want := b.stats(), (seen{2000, 16384, 64 * mb, 2, 77}); got != want {
		t.Errorf("paused: %+v, want %+v", got, want)
	}
	b.mustResume()
	if err := b.update(`{"memory":{"limit":134217728}}`); err != nil {
		t.Fatal(err)
	}
	if got := b.stats(); got.limit != 128*mb {
		t.Errorf("after an update: %+v", got)
	}
	b.kill("", unix.SIGKILL, false)
	b.wait("")
	if got := b.stats(); got.cpu == 0 || got.memory != 16384 {
		t.Errorf("stopped: %+v", got)
	}
	b.delete("")
}

// TestStatsOfTheHung: one call of the agent is under way at most, and what the
// hypervisor knows comes without it.
func TestStatsOfTheHung(t *testing.T) {
	d := newDaemon(t)
	b := d.sleeper()
	d.guest().Hang()
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // no waiting for the agent
	_, err := d.task.Stats(ctx, &taskapi.StatsRequest{ID: "c"})
	_ = err // the client has left
	if got := b.stats(); got.cpu == 0 || got.memory != 256*mb {
		t.Errorf("%+v", got)
	}
	pids, err := d.task.Pids(d.ctx(), &taskapi.PidsRequest{ID: "c"})
	if err != nil || len(pids.Processes) != 1 || pids.Processes[0].Pid != b.state("").Pid {
		t.Errorf("pids %v, %v", pids, err)
	}
	if err := b.kill("", unix.SIGKILL, false); err != nil {
		t.Error(err)
	}
	b.wait("")
	b.delete("")
}

// TestStatsOfLiars: a guest cannot use more memory than its domain has.
func TestStatsOfLiars(t *testing.T) {
	d := newDaemon(t)
	b := d.sleeper()
	d.guest().Answer(tasktest.Answers{Stats: func() *agentapi.ContainerStatsResponse {
		r := &agentapi.ContainerStatsResponse{
			Cpu:           map[string]uint64{"user_usec": math.MaxUint64, "usage_usec": math.MaxUint64},
			Memory:        map[string]uint64{"anon": math.MaxUint64, "inactive_file": math.MaxUint64},
			MemoryEvents:  map[string]uint64{"oom_kill": math.MaxUint64},
			MemoryCurrent: math.MaxUint64, MemoryPeak: math.MaxUint64, MemoryMax: 1, PidsCurrent: math.MaxUint64,
		}
		for i := range 10000 {
			r.Memory[fmt.Sprint("no", i)] = uint64(i)
		}
		return r
	}})
	if got := b.stats(); got.cpu != 1000 || got.memory != 256*mb || got.limit < 1<<62 {
		t.Errorf("%+v", got)
	}
	b.end()
}

func TestStatsOfNothing(t *testing.T) {
	d := newDaemon(t)
	d.world.Fail = func(s string) error {
		if s == "usage" || s == "ContainerStats" {
			return errdefs.ErrNotImplemented
		}
		return nil
	}
	b := d.sleeper()
	_, err := d.task.Stats(d.ctx(), &taskapi.StatsRequest{ID: "c"})
	if err = errgrpc.ToNative(err); !is(err, errdefs.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	b.end()
}

// pids lists a container's processes: pid and, if it has details, the exec id.
func (b *box) pids() map[uint32]string {
	b.t.Helper()
	r, err := b.task.Pids(b.ctx(), &taskapi.PidsRequest{ID: b.id})
	if err != nil {
		b.t.Fatal(err)
	}
	list := map[uint32]string{}
	for _, p := range r.Processes {
		id := "-"
		if p.Info != nil {
			v, err := typeurl.UnmarshalAny(p.Info)
			if err != nil {
				b.t.Fatal(err)
			}
			id = v.(*options.ProcessDetails).ExecID
		}
		if _, ok := list[p.Pid]; ok {
			b.t.Errorf("pid %d twice in %v", p.Pid, r.Processes)
		}
		list[p.Pid] = id
	}
	return list
}

func TestPids(t *testing.T) {
	d := newDaemon(t)
	b := d.sleeper()
	init := b.state("").Pid
	var execs []uint32
	for _, id := range []string{"one", "two"} {
		if _, err := b.exec(id, false, "sleep", "1000"); err != nil {
			t.Fatal(err)
		}
		r, err := d.task.Start(d.ctx(), &taskapi.StartRequest{ID: "c", ExecID: id})
		if err != nil {
			t.Fatal(err)
		}
		if s := b.state(id); s.Pid != r.Pid {
			t.Errorf("state says %d, start %d", s.Pid, r.Pid)
		}
		execs = append(execs, r.Pid)
	}
	// No process of a host has such a number.
	if execs[0] == execs[1] || min(execs[0], execs[1]) < 1<<22 {
		t.Errorf("pids %d", execs)
	}
	want := map[uint32]string{init: "-", execs[0]: "one", execs[1]: "two"}
	if got := b.pids(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
	b.mustPause()
	if got := b.pids(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("paused: %v, want %v", got, want)
	}
	b.mustResume()
	b.kill("two", unix.SIGKILL, false)
	b.wait("two")
	if r := b.delete("two"); r.Pid != execs[1] {
		t.Errorf("delete says %d, start %d", r.Pid, execs[1])
	}
	b.kill("", unix.SIGKILL, false)
	b.wait("")
	if got := b.pids(); fmt.Sprint(got) != fmt.Sprint(map[uint32]string{init: "-"}) {
		t.Errorf("stopped: %v", got)
	}
	b.delete("")
}

// TestPidsOfLiars: numbers that cannot be, twice, of execs that are not, and many.
func TestPidsOfLiars(t *testing.T) {
	d := newDaemon(t)
	b := d.sleeper()
	init := b.state("").Pid
	var many atomic.Bool
	d.guest().Answer(tasktest.Answers{Processes: func() *agentapi.ProcessesResponse {
		r := &agentapi.ProcessesResponse{}
		if many.Load() {
			for i := range 100000 {
				r.Processes = append(r.Processes, &agentapi.ProcessInfo{Pid: uint32(i)})
			}
			return r
		}
		for _, pid := range []uint32{0, 1, 7, 7, 1 << 22, math.MaxUint32, 1<<22 + 7} {
			r.Processes = append(r.Processes, &agentapi.ProcessInfo{Pid: pid, ExecId: "no such"})
		}
		return r
	}})
	want := map[uint32]string{init: "-", 1<<22 + 7: "-"}
	if got := b.pids(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
	many.Store(true)
	if got := len(b.pids()); got > 1<<15+1 {
		t.Errorf("%d processes", got)
	}
	if st := b.state("").Status; st != tasktypes.Status_RUNNING {
		t.Error(st)
	}
	b.end()
}
