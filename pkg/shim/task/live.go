// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/xcontainer/xcontainer/pkg/shim/bundle"
)

// Calls for a container that runs: what it is doing, and changes to it.

// Pause stops everything in a container.
func (s *Service) Pause(ctx context.Context, r *taskapi.PauseRequest) (*emptypb.Empty, error) {
	return s.live(r.ID, func(c *container) error { return c.pause(ctx) })
}

// Resume lets a paused container go on.
func (s *Service) Resume(ctx context.Context, r *taskapi.ResumeRequest) (*emptypb.Empty, error) {
	return s.live(r.ID, func(c *container) error { return c.resume(ctx) })
}

// Update changes a container's limits.
func (s *Service) Update(ctx context.Context, r *taskapi.UpdateTaskRequest) (*emptypb.Empty, error) {
	return s.live(r.ID, func(c *container) error {
		res, err := bundle.ParseResources(r.Resources.GetTypeUrl(), r.Resources.GetValue())
		if err != nil {
			return err
		}
		return c.update(ctx, res)
	})
}

// Checkpoint is not built yet. NotImplemented is the answer here: containerd
// looks for version 2 of the service only when Create or Connect give it.
func (s *Service) Checkpoint(_ context.Context, r *taskapi.CheckpointTaskRequest) (*emptypb.Empty, error) {
	return s.live(r.ID, func(*container) error { return notImplemented("checkpoint") })
}

func (s *Service) live(id string, f func(*container) error) (*emptypb.Empty, error) {
	c, err := s.container(id)
	if err == nil {
		err = f(c)
	}
	if err != nil {
		return nil, toRPC(err)
	}
	return &emptypb.Empty{}, nil
}

// Pids lists a container's processes.
func (s *Service) Pids(ctx context.Context, r *taskapi.PidsRequest) (*taskapi.PidsResponse, error) {
	c, err := s.container(r.ID)
	if err != nil {
		return nil, toRPC(err)
	}
	list, err := c.processes(ctx)
	if err != nil {
		return nil, toRPC(err)
	}
	return &taskapi.PidsResponse{Processes: list}, nil
}

// Stats are a container's numbers, in the form of the host's version of cgroups.
func (s *Service) Stats(ctx context.Context, r *taskapi.StatsRequest) (*taskapi.StatsResponse, error) {
	c, err := s.container(r.ID)
	if err != nil {
		return nil, toRPC(err)
	}
	stats, err := c.stats(ctx)
	if err != nil {
		return nil, toRPC(err)
	}
	return &taskapi.StatsResponse{Stats: stats}, nil
}
