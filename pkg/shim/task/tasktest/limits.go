// SPDX-License-Identifier: Apache-2.0

package tasktest

import (
	"context"
	"math"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/protobuf/proto"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
	"github.com/xcontainer/xcontainer/pkg/shim/task"
)

// limits are the agent's part in limits and numbers.
type limits struct {
	mu        sync.Mutex
	resources *agentapi.Resources // guarded by mu: all that was told
	answers   Answers             // guarded by mu
	kills     uint64              // guarded by mu
	killed    map[string]bool     // guarded by mu: exec ids, "" for init
	grown     chan struct{}       // guarded by mu; closed and renewed when kills grows
}

// Answers replace what the agent answers. Nil ones do not.
type Answers struct {
	Stats     func() *agentapi.ContainerStatsResponse
	Processes func() *agentapi.ProcessesResponse
	SetSize   func(*agentapi.SetSizeRequest) *agentapi.SetSizeResponse
	WaitOOM   func(known uint64) uint64
}

func newLimits() limits {
	return limits{resources: &agentapi.Resources{}, killed: make(map[string]bool), grown: make(chan struct{})}
}

// Answer has the agent answer as a says.
func (g *Guest) Answer(a Answers) {
	l := &g.agent.limits
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answers = a
}

// Resources is all that Update has told the agent.
func (g *Guest) Resources() *agentapi.Resources {
	l := &g.agent.limits
	l.mu.Lock()
	defer l.mu.Unlock()
	return proto.CloneOf(l.resources)
}

// OOM has the kernel have killed so many processes more. Those of the exec ids
// ("" for init) say it of themselves when they end, which is the caller's to do.
func (g *Guest) OOM(kills uint64, execIDs ...string) {
	l := &g.agent.limits
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kills += kills
	for _, id := range execIDs {
		l.killed[id] = true
	}
	close(l.grown)
	l.grown = make(chan struct{})
}

func (l *limits) ooms(execID string) (kills uint64, killed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.kills, l.killed[execID]
}

func (l *limits) answer() Answers {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answers
}

// Update implements agentapi.AgentService.
func (a *agent) Update(_ context.Context, r *agentapi.UpdateRequest) (*agentapi.UpdateResponse, error) {
	if err := a.enter("Update"); err != nil {
		return nil, err
	}
	if _, err := a.find(r.Id, ""); err != nil {
		return nil, err
	}
	a.limits.mu.Lock()
	defer a.limits.mu.Unlock()
	proto.Merge(a.limits.resources, r.Resources)
	return &agentapi.UpdateResponse{}, nil
}

// SetSize implements agentapi.AgentService.
func (a *agent) SetSize(_ context.Context, r *agentapi.SetSizeRequest) (*agentapi.SetSizeResponse, error) {
	if err := a.enter("SetSize"); err != nil {
		return nil, err
	}
	if f := a.limits.answer().SetSize; f != nil {
		return f(r), nil
	}
	resp := &agentapi.SetSizeResponse{}
	var err error
	a.g.Use(func(u *task.Usage) {
		if r.MemoryBytes > u.MaxMemoryBytes || r.Vcpus > a.g.Config.MaxVCPUs {
			err = errgrpc.ToGRPCf(errdefs.ErrResourceExhausted, "there is no more than %d bytes", u.MaxMemoryBytes)
			return
		}
		if r.MemoryBytes != 0 {
			u.MemoryBytes = r.MemoryBytes
		}
		if r.Vcpus != 0 {
			u.VCPUs = r.Vcpus
		}
		resp.MemoryBytes, resp.Vcpus = u.MemoryBytes, u.VCPUs
	})
	return resp, err
}

// ContainerStats implements agentapi.AgentService.
func (a *agent) ContainerStats(_ context.Context, r *agentapi.ContainerStatsRequest) (*agentapi.ContainerStatsResponse, error) {
	if err := a.enter("ContainerStats"); err != nil {
		return nil, err
	}
	if _, err := a.find(r.Id, ""); err != nil {
		return nil, err
	}
	if f := a.limits.answer().Stats; f != nil {
		return f(), nil
	}
	return &agentapi.ContainerStatsResponse{
		Cpu:           map[string]uint64{"usage_usec": 500, "user_usec": 300, "system_usec": 200, "nr_periods": 7},
		Memory:        map[string]uint64{"anon": 4096, "file": 8192, "inactive_file": 4096, "pgfault": 12},
		MemoryEvents:  map[string]uint64{"oom_kill": 1, "max": 3},
		MemoryCurrent: 16384, MemoryPeak: 32768, MemoryMax: math.MaxUint64,
		PidsCurrent: 2, PidsMax: math.MaxUint64,
	}, nil
}

// Processes implements agentapi.AgentService.
func (a *agent) Processes(_ context.Context, r *agentapi.ProcessesRequest) (*agentapi.ProcessesResponse, error) {
	if err := a.enter("Processes"); err != nil {
		return nil, err
	}
	if f := a.limits.answer().Processes; f != nil {
		return f(), nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	resp := &agentapi.ProcessesResponse{}
	for execID, p := range a.processes {
		select {
		case <-p.ended:
		default:
			resp.Processes = append(resp.Processes, &agentapi.ProcessInfo{Pid: p.pid, ExecId: execID})
		}
	}
	return resp, nil
}

// WaitOOM implements agentapi.AgentService.
func (a *agent) WaitOOM(ctx context.Context, r *agentapi.WaitOOMRequest) (*agentapi.WaitOOMResponse, error) {
	init, err := a.find(r.Id, "")
	if err != nil {
		return nil, err
	}
	for {
		a.limits.mu.Lock()
		kills, grown, f := a.limits.kills, a.limits.grown, a.limits.answers.WaitOOM
		a.limits.mu.Unlock()
		if f != nil {
			kills = f(r.Known)
		}
		if kills > r.Known {
			a.thaw()
			return &agentapi.WaitOOMResponse{OomKills: kills}, nil
		}
		select {
		case <-grown:
		case <-init.ended:
			return &agentapi.WaitOOMResponse{OomKills: r.Known}, nil
		case <-ctx.Done():
			return nil, errgrpc.ToGRPC(ctx.Err())
		case <-a.stopped:
			return nil, errgrpc.ToGRPC(errdefs.ErrUnavailable)
		}
	}
}

// Stats implements agentapi.AgentService.
func (a *agent) Stats(context.Context, *agentapi.StatsRequest) (*agentapi.StatsResponse, error) {
	return nil, errgrpc.ToGRPC(errdefs.ErrNotImplemented)
}
