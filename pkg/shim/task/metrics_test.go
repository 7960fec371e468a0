// SPDX-License-Identifier: Apache-2.0

package task

import (
	"testing"
	"time"

	v1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	v2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/proto"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// TestMetrics: both forms say the same, and have every part that clients look
// into without asking whether it is there.
func TestMetrics(t *testing.T) {
	guest := takeNumbers(&agentapi.ContainerStatsResponse{
		Cpu:           map[string]uint64{"user_usec": 300, "nr_throttled": 2, "throttled_usec": 9},
		Memory:        map[string]uint64{"anon": 4096, "file": 1 << 40, "inactive_file": 100, "pgfault": 1 << 40},
		MemoryEvents:  map[string]uint64{"oom_kill": 3, "max": 5},
		MemoryCurrent: 8192, MemoryPeak: 9000, PidsCurrent: 4,
	})
	domain := &Usage{CPUTime: time.Millisecond, MemoryBytes: 1 << 20, IO: IO{ReadBytes: 1, WriteBytes: 2, ReadOps: 3, WriteOps: 4}}
	n := numbers{guest: guest, domain: domain, memoryLimit: 1 << 20, pidsLimit: 10}
	a, b := n.v1(), n.v2()
	for name, got := range map[string][3]uint64{
		"cpu":       {a.CPU.Usage.Total / 1000, b.CPU.UsageUsec, 1000},
		"user":      {a.CPU.Usage.User / 1000, b.CPU.UserUsec, 300},
		"system":    {a.CPU.Usage.Kernel / 1000, b.CPU.SystemUsec, 700},
		"throttled": {a.CPU.Throttling.ThrottledTime / 1000, b.CPU.ThrottledUsec, 9},
		"memory":    {a.Memory.Usage.Usage, b.Memory.Usage, 8192},
		"peak":      {a.Memory.Usage.Max, b.Memory.MaxUsage, 9000},
		"limit":     {a.Memory.Usage.Limit, b.Memory.UsageLimit, 1 << 20},
		"anon":      {a.Memory.TotalRSS, b.Memory.Anon, 4096},
		"file":      {a.Memory.TotalCache, b.Memory.File, 8192},
		"inactive":  {a.Memory.TotalInactiveFile, b.Memory.InactiveFile, 100},
		"faults":    {a.Memory.TotalPgFault, b.Memory.Pgfault, 1 << 40},
		"pids":      {a.Pids.Current, b.Pids.Current, 4},
		"pid limit": {a.Pids.Limit, b.Pids.Limit, 10},
		"oom":       {a.MemoryOomControl.OomKill, b.MemoryEvents.OomKill, 3},
		"read":      {a.Blkio.IoServiceBytesRecursive[0].Value, b.Io.Usage[0].Rbytes, 1},
		"written":   {a.Blkio.IoServiceBytesRecursive[1].Value, b.Io.Usage[0].Wbytes, 2},
		"writes":    {a.Blkio.IoServicedRecursive[1].Value, b.Io.Usage[0].Wios, 4},
	} {
		if got[0] != got[2] || got[1] != got[2] {
			t.Errorf("%s: v1 %d, v2 %d, want %d", name, got[0], got[1], got[2])
		}
	}
	for _, part := range []numbers{{}, {guest: guest}, {domain: domain}} {
		a, b := part.v1(), part.v2()
		if a.CPU.Usage == nil || a.CPU.Throttling == nil || a.Memory.Usage == nil || a.Memory.Swap == nil ||
			a.Memory.Kernel == nil || a.Memory.KernelTCP == nil || a.Pids == nil || a.Blkio == nil || a.MemoryOomControl == nil ||
			b.CPU == nil || b.Memory == nil || b.Pids == nil || b.Io == nil || b.MemoryEvents == nil {
			t.Errorf("%+v: a part is missing", part)
		}
	}
	for _, m := range []proto.Message{a, b} {
		any, err := typeurl.MarshalAnyToProto(m)
		if err != nil || !typeurl.Is(any, (*v1.Metrics)(nil)) && !typeurl.Is(any, (*v2.Metrics)(nil)) {
			t.Errorf("%v, %v", any, err)
		}
	}
}
