// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

func (s service) Update(context.Context, *agentapi.UpdateRequest) (*agentapi.UpdateResponse, error) {
	return nil, status.Error(codes.Unimplemented, "update")
}

func (s service) ContainerStats(context.Context, *agentapi.ContainerStatsRequest) (*agentapi.ContainerStatsResponse, error) {
	return nil, status.Error(codes.Unimplemented, "container stats")
}

func (s service) WaitOOM(context.Context, *agentapi.WaitOOMRequest) (*agentapi.WaitOOMResponse, error) {
	return nil, status.Error(codes.Unimplemented, "wait for oom")
}
