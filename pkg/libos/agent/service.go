// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xcontainer/xcontainer/pkg/libos/agent/stage"
	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// service answers the host's calls.
type service struct{ agent *Agent }

var _ agentapi.AgentService = service{}

func (s service) CreateContainer(ctx context.Context, r *agentapi.CreateContainerRequest) (*agentapi.CreateContainerResponse, error) {
	if err := checkID("container", r.GetId()); err != nil {
		return nil, err
	}
	if r.GetContainer() == nil {
		return nil, status.Error(codes.InvalidArgument, "no container is described")
	}
	if err := checkProcess(r.GetContainer().GetProcess()); err != nil {
		return nil, err
	}
	for _, h := range r.GetContainer().GetStartHooks() {
		if !strings.HasPrefix(h.GetPath(), "/") {
			return nil, status.Errorf(codes.InvalidArgument, "startContainer hook %q: its path is not absolute", h.GetPath())
		}
	}
	c, err := s.agent.createContainer(ctx, r.GetId(), r.GetContainer())
	if err != nil {
		return nil, err
	}
	return &agentapi.CreateContainerResponse{Pid: uint32(c.init.pid)}, nil
}

func (s service) StartContainer(ctx context.Context, r *agentapi.StartContainerRequest) (*agentapi.StartContainerResponse, error) {
	c, err := s.agent.find(r.GetId())
	if err != nil {
		return nil, err
	}
	return &agentapi.StartContainerResponse{}, c.start(ctx)
}

func (s service) Exec(ctx context.Context, r *agentapi.ExecRequest) (*agentapi.ExecResponse, error) {
	if err := checkID("process", r.GetExecId()); err != nil {
		return nil, err
	}
	if err := checkProcess(r.GetProcess()); err != nil {
		return nil, err
	}
	c, err := s.agent.find(r.GetId())
	if err != nil {
		return nil, err
	}
	p, err := s.agent.exec(ctx, c, r.GetExecId(), r.GetProcess())
	if err != nil {
		return nil, err
	}
	return &agentapi.ExecResponse{Pid: uint32(p.pid)}, nil
}

func (s service) Wait(ctx context.Context, r *agentapi.WaitRequest) (*agentapi.WaitResponse, error) {
	c, err := s.agent.find(r.GetId())
	if err != nil {
		return nil, err
	}
	p, err := c.process(r.GetExecId())
	if err != nil {
		return nil, err
	}
	e, err := c.exitOf(ctx, p)
	if err != nil {
		return nil, err
	}
	return &agentapi.WaitResponse{
		ExitStatus:  e.status,
		ExitedAt:    timestamppb.New(e.at),
		StdoutBytes: e.stdout,
		StderrBytes: e.stderr,
		OomKills:    e.oomKills,
		OomKilled:   e.oomKilled,
	}, nil
}

func (s service) Signal(_ context.Context, r *agentapi.SignalRequest) (*agentapi.SignalResponse, error) {
	c, err := s.agent.find(r.GetId())
	if err != nil {
		return nil, err
	}
	if r.GetSignal() > maxSignal {
		return nil, status.Errorf(codes.InvalidArgument, "no signal has number %d", r.GetSignal())
	}
	return &agentapi.SignalResponse{}, c.signal(r.GetExecId(), unix.Signal(r.GetSignal()), r.GetAll())
}

func (s service) Resize(_ context.Context, r *agentapi.ResizeRequest) (*agentapi.ResizeResponse, error) {
	c, err := s.agent.find(r.GetId())
	if err != nil {
		return nil, err
	}
	p, err := c.process(r.GetExecId())
	if err != nil {
		return nil, err
	}
	if p.stdio.master == nil {
		return nil, status.Error(codes.FailedPrecondition, "the process has no terminal")
	}
	if r.GetRows() > maxWindow || r.GetColumns() > maxWindow {
		return nil, status.Errorf(codes.InvalidArgument, "a terminal cannot have %d rows and %d columns", r.GetRows(), r.GetColumns())
	}
	if err := p.stdio.resize(uint16(r.GetRows()), uint16(r.GetColumns())); err != nil {
		return nil, status.Errorf(codes.NotFound, "resize terminal: %v", err)
	}
	return &agentapi.ResizeResponse{}, nil
}

func (s service) Processes(_ context.Context, r *agentapi.ProcessesRequest) (*agentapi.ProcessesResponse, error) {
	c, err := s.agent.find(r.GetId())
	if err != nil {
		return nil, err
	}
	first, err := c.process("")
	if err != nil {
		return nil, err
	}
	pids, err := c.cgroup.pids()
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if i := slices.Index(pids, first.pid); i > 0 {
		pids = slices.Insert(slices.Delete(pids, i, i+1), 0, first.pid)
	}
	names := make(map[int]string)
	c.mu.Lock()
	for id, p := range c.execs {
		if p != nil {
			names[p.pid] = id
		}
	}
	c.mu.Unlock()
	resp := &agentapi.ProcessesResponse{}
	for _, pid := range pids {
		resp.Processes = append(resp.Processes, &agentapi.ProcessInfo{Pid: uint32(pid), ExecId: names[pid]})
	}
	return resp, nil
}

func (s service) Remove(_ context.Context, r *agentapi.RemoveRequest) (*agentapi.RemoveResponse, error) {
	c, err := s.agent.find(r.GetId())
	if err != nil {
		return nil, err
	}
	if r.GetExecId() != "" {
		return &agentapi.RemoveResponse{}, c.removeExec(r.GetExecId())
	}
	return &agentapi.RemoveResponse{}, s.agent.removeContainer(c)
}

func (s service) Sync(context.Context, *agentapi.SyncRequest) (*agentapi.SyncResponse, error) {
	if err := s.agent.sync(); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &agentapi.SyncResponse{}, nil
}

func (s service) Stats(context.Context, *agentapi.StatsRequest) (*agentapi.StatsResponse, error) {
	r, err := readStats()
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return r, nil
}

const (
	maxSignal  = 64        // _NSIG
	maxWindow  = 1<<16 - 1 // rows or columns
	maxIDBytes = 128
)

// checkID accepts what can be part of a file name.
func checkID(what, id string) error {
	ok := id != "" && len(id) <= maxIDBytes && strings.Trim(id,
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == ""
	if !ok {
		return status.Errorf(codes.InvalidArgument, "%q is no id for a %s", id, what)
	}
	return nil
}

// checkProcess refuses what no stage can do anything with.
func checkProcess(p *agentapi.Process) error {
	problem := ""
	zero := func(s string) bool { return strings.ContainsRune(s, 0) }
	switch {
	case len(p.GetArgs()) == 0 || p.GetArgs()[0] == "":
		problem = "it has no command"
	case slices.ContainsFunc(p.GetArgs(), zero) || slices.ContainsFunc(p.GetEnv(), zero):
		problem = "an argument or variable holds a zero byte"
	case !strings.HasPrefix(p.GetCwd(), "/"):
		problem = fmt.Sprintf("its working directory %q is not absolute", p.GetCwd())
	case p.GetTerminal() && p.GetStreams().GetStderr() != 0:
		problem = "a terminal has no stderr of its own"
	case p.GetRows() > maxWindow || p.GetColumns() > maxWindow:
		problem = "its terminal is too large"
	}
	if problem != "" {
		return status.Errorf(codes.InvalidArgument, "process cannot be run: %s", problem)
	}
	if err := stage.CheckSeccomp(p); err != nil {
		return status.Errorf(codes.InvalidArgument, "process cannot be run: %v", err)
	}
	return nil
}
