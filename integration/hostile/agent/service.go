// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// agent is a service that accepts every container and runs none.
type agent struct {
	lies bool // its answers are as large and as wrong as they can be
	mute bool // it answers nothing once the container has started

	started atomic.Bool
	calls   atomic.Uint64
}

var _ agentapi.AgentService = (*agent)(nil)

// answer counts a call, and stays silent if that is the mode.
func (a *agent) answer(ctx context.Context) {
	a.calls.Add(1)
	if a.mute && a.started.Load() {
		<-ctx.Done()
		time.Sleep(time.Hour)
	}
}

// escapes is a text of the kind that a terminal takes for commands.
func escapes(n int) string {
	return strings.Repeat("\x1b]0;owned\x07\x1b[2J\r\n%s%n\u202e\x00", n)
}

// stream reads the host's header and what follows; a liar floods.
func (a *agent) stream(c net.Conn) {
	if !a.lies {
		_, _ = io.Copy(io.Discard, c)
		return
	}
	junk := []byte(escapes(1000))
	for {
		if _, err := c.Write(junk); err != nil {
			return
		}
	}
}

func (a *agent) CreateContainer(ctx context.Context, _ *agentapi.CreateContainerRequest) (*agentapi.CreateContainerResponse, error) {
	a.answer(ctx)
	return &agentapi.CreateContainerResponse{Pid: math.MaxUint32}, nil
}

func (a *agent) StartContainer(ctx context.Context, _ *agentapi.StartContainerRequest) (*agentapi.StartContainerResponse, error) {
	a.answer(ctx)
	a.started.Store(true)
	return &agentapi.StartContainerResponse{}, nil
}

func (a *agent) Exec(ctx context.Context, _ *agentapi.ExecRequest) (*agentapi.ExecResponse, error) {
	a.answer(ctx)
	if a.lies && a.calls.Load()%2 == 0 {
		return nil, status.Error(codes.Code(200), escapes(10000))
	}
	return &agentapi.ExecResponse{Pid: 0}, nil
}

func (a *agent) Wait(ctx context.Context, r *agentapi.WaitRequest) (*agentapi.WaitResponse, error) {
	a.answer(ctx)
	if a.lies && r.GetExecId() != "" {
		return &agentapi.WaitResponse{
			ExitStatus: math.MaxUint32, ExitedAt: &timestamppb.Timestamp{Seconds: math.MaxInt64, Nanos: -5},
			StdoutBytes: math.MaxUint64, StderrBytes: math.MaxUint64, OomKills: math.MaxUint64, OomKilled: true,
		}, nil
	}
	<-ctx.Done()
	time.Sleep(time.Hour)
	return nil, nil
}

func (a *agent) Signal(ctx context.Context, _ *agentapi.SignalRequest) (*agentapi.SignalResponse, error) {
	a.answer(ctx)
	return &agentapi.SignalResponse{}, nil
}

func (a *agent) Resize(ctx context.Context, _ *agentapi.ResizeRequest) (*agentapi.ResizeResponse, error) {
	a.answer(ctx)
	return &agentapi.ResizeResponse{}, nil
}

func (a *agent) Processes(ctx context.Context, _ *agentapi.ProcessesRequest) (*agentapi.ProcessesResponse, error) {
	a.answer(ctx)
	r := &agentapi.ProcessesResponse{}
	for i := range 100000 {
		r.Processes = append(r.Processes, &agentapi.ProcessInfo{Pid: uint32(i % 7), ExecId: escapes(1)})
	}
	return r, nil
}

func (a *agent) Remove(ctx context.Context, _ *agentapi.RemoveRequest) (*agentapi.RemoveResponse, error) {
	a.answer(ctx)
	return &agentapi.RemoveResponse{}, nil
}

func (a *agent) Sync(ctx context.Context, _ *agentapi.SyncRequest) (*agentapi.SyncResponse, error) {
	a.answer(ctx)
	return &agentapi.SyncResponse{}, nil
}

func (a *agent) Stats(ctx context.Context, _ *agentapi.StatsRequest) (*agentapi.StatsResponse, error) {
	a.answer(ctx)
	return &agentapi.StatsResponse{MemoryTotal: math.MaxUint64, UptimeNs: math.MaxUint64}, nil
}

func (a *agent) Update(ctx context.Context, _ *agentapi.UpdateRequest) (*agentapi.UpdateResponse, error) {
	a.answer(ctx)
	return &agentapi.UpdateResponse{}, nil
}

func (a *agent) ContainerStats(ctx context.Context, _ *agentapi.ContainerStatsRequest) (*agentapi.ContainerStatsResponse, error) {
	a.answer(ctx)
	r := &agentapi.ContainerStatsResponse{
		Memory: map[string]uint64{}, Cpu: map[string]uint64{"usage_usec": math.MaxUint64},
		MemoryCurrent: math.MaxUint64, PidsCurrent: math.MaxUint64,
		Syscalls: &agentapi.Syscalls{Mode: escapes(100), Rewriting: escapes(1), Counters: map[string]uint64{}},
	}
	for i := range 100000 {
		r.Memory[fmt.Sprint(i)] = math.MaxUint64
	}
	// All of it has to fit in a message.
	for i := range 10000 {
		r.Syscalls.Counters[fmt.Sprint("sites_", i)] = math.MaxUint64
		r.Syscalls.Counters[fmt.Sprint(escapes(1), i)] = math.MaxUint64
	}
	return r, nil
}

// WaitOOM of a liar answers at once, always with one more.
func (a *agent) WaitOOM(ctx context.Context, r *agentapi.WaitOOMRequest) (*agentapi.WaitOOMResponse, error) {
	a.answer(ctx)
	if !a.lies {
		<-ctx.Done()
		time.Sleep(time.Hour)
	}
	return &agentapi.WaitOOMResponse{OomKills: r.GetKnown() + 1}, nil
}

func (a *agent) SetSize(ctx context.Context, _ *agentapi.SetSizeRequest) (*agentapi.SetSizeResponse, error) {
	a.answer(ctx)
	return &agentapi.SetSizeResponse{MemoryBytes: math.MaxUint64, Vcpus: math.MaxUint32}, nil
}
