// SPDX-License-Identifier: Apache-2.0

package tasktest

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

func (a *agent) Update(context.Context, *agentapi.UpdateRequest) (*agentapi.UpdateResponse, error) {
	return nil, status.Error(codes.Unimplemented, "update")
}

func (a *agent) ContainerStats(context.Context, *agentapi.ContainerStatsRequest) (*agentapi.ContainerStatsResponse, error) {
	return nil, status.Error(codes.Unimplemented, "container stats")
}

func (a *agent) WaitOOM(context.Context, *agentapi.WaitOOMRequest) (*agentapi.WaitOOMResponse, error) {
	return nil, status.Error(codes.Unimplemented, "wait for oom")
}

func (a *agent) SetSize(context.Context, *agentapi.SetSizeRequest) (*agentapi.SetSizeResponse, error) {
	return nil, status.Error(codes.Unimplemented, "set size")
}
