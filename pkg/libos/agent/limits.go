// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

func (s service) SetSize(context.Context, *agentapi.SetSizeRequest) (*agentapi.SetSizeResponse, error) {
	return nil, status.Error(codes.Unimplemented, "set size")
}
