// SPDX-License-Identifier: Apache-2.0

package task

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"github.com/xcontainer/xcontainer/pkg/io/stdio"
	"github.com/xcontainer/xcontainer/pkg/shim/bundle"
	"github.com/xcontainer/xcontainer/pkg/shim/hostcgroup"
	"github.com/xcontainer/xcontainer/pkg/shim/netns"
	"github.com/xcontainer/xcontainer/pkg/shim/refusal"
)

// maxErrorText bounds the words of an error, in bytes: the agent may send much.
const maxErrorText = 2048

// toRPC gives an error the code by which containerd and its clients know it, in
// one line and without structure: clients would show the parts again. A setting
// that is not supported is an invalid argument: NotImplemented from Create would
// make containerd ask again with version 2 of the service.
func toRPC(err error) error {
	if err == nil {
		return nil
	}
	kind := errdefs.Resolve(err)
	for _, m := range []struct{ is, code error }{
		{bundle.ErrInvalid, errdefs.ErrInvalidArgument},
		{bundle.ErrUnsupported, errdefs.ErrInvalidArgument},
		{bundle.ErrNotFound, errdefs.ErrNotFound},
		{stdio.ErrUnsupported, errdefs.ErrInvalidArgument},
		{ErrHostPath, errdefs.ErrInvalidArgument},
		{hostcgroup.ErrInvalid, errdefs.ErrInvalidArgument},
		{hostcgroup.ErrInUse, errdefs.ErrFailedPrecondition},
		{netns.ErrNotFound, errdefs.ErrInvalidArgument},
		{netns.ErrInvalid, errdefs.ErrInvalidArgument},
	} {
		if errors.Is(err, m.is) {
			kind = m.code
			break
		}
	}
	return errgrpc.ToGRPC(refusal.New(kind, line(err)))
}

// fromAgent is an error of the agent in its own words, which are the guest's and
// so may be anything.
func fromAgent(err error) error {
	if err == nil {
		return nil
	}
	err = errgrpc.ToNative(err)
	kind := errdefs.Resolve(err)
	return refusal.New(kind, strings.TrimSuffix(line(err), ": "+kind.Error()))
}

// line is the text of an error on one line that no terminal takes for commands.
func line(err error) string {
	text := err.Error()
	if len(text) > maxErrorText {
		text = text[:maxErrorText] + "…"
	}
	text = strings.ReplaceAll(strings.TrimSpace(text), "\n", "; ")
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}

func notFound(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), errdefs.ErrNotFound)
}

func precondition(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), errdefs.ErrFailedPrecondition)
}

func notImplemented(what string) error {
	return fmt.Errorf("%s is not supported yet: %w", what, errdefs.ErrNotImplemented)
}
