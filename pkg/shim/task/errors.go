// SPDX-License-Identifier: Apache-2.0

package task

import (
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"github.com/xcontainer/xcontainer/pkg/io/stdio"
	"github.com/xcontainer/xcontainer/pkg/shim/bundle"
)

// toRPC gives an error the code by which containerd and its clients know it.
// What is not supported is an invalid argument: NotImplemented would make
// containerd ask again with version 2 of the service.
func toRPC(err error) error {
	if err == nil {
		return nil
	}
	for _, m := range []struct{ is, code error }{
		{bundle.ErrInvalid, errdefs.ErrInvalidArgument},
		{bundle.ErrUnsupported, errdefs.ErrInvalidArgument},
		{bundle.ErrNotFound, errdefs.ErrNotFound},
		{stdio.ErrUnsupported, errdefs.ErrInvalidArgument},
		{ErrHostPath, errdefs.ErrInvalidArgument},
	} {
		if errors.Is(err, m.is) {
			return errgrpc.ToGRPCf(m.code, "%s", err)
		}
	}
	return errgrpc.ToGRPC(err)
}

// refusal is an error in words for the user with an identity for the code.
type refusal struct {
	kind error
	text string
}

func (r *refusal) Error() string { return r.text }

// Unwrap gives the identity.
func (r *refusal) Unwrap() error { return r.kind }

// fromAgent is an error of the agent in its own words.
func fromAgent(err error) error { return errgrpc.ToNative(err) }

func notFound(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), errdefs.ErrNotFound)
}

func precondition(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), errdefs.ErrFailedPrecondition)
}

func notImplemented(what string) error {
	return toRPC(fmt.Errorf("%s is not supported yet: %w", what, errdefs.ErrNotImplemented))
}
