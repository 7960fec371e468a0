// SPDX-License-Identifier: Apache-2.0

package task

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
)

// TestErrorsOfAnAgent: what the guest says reaches a terminal as one harmless
// line of bounded length.
func TestErrorsOfAnAgent(t *testing.T) {
	tests := []struct {
		name string
		err  error
		kind error
		want string
	}{
		{"plain", errgrpc.ToGRPCf(errdefs.ErrNotFound, `exec: "x": executable file not found in $PATH`), errdefs.ErrNotFound,
			`exec: "x": executable file not found in $PATH`},
		{"without code", errgrpc.ToGRPC(errors.New("odd")), errdefs.ErrUnknown, "odd"},
		{"lines", errors.New("one\ntwo\n"), errdefs.ErrUnknown, "one; two"},
		{"escape", errgrpc.ToGRPC(fmt.Errorf("\x1b[2Jx\x00 %w", errdefs.ErrAlreadyExists)), errdefs.ErrAlreadyExists, "\ufffd[2Jx\ufffd already exists"},
		{"long", errors.New(strings.Repeat("x", 1<<20)), errdefs.ErrUnknown, strings.Repeat("x", maxErrorText) + "…"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := fromAgent(tt.err)
			if !errors.Is(err, tt.kind) || err.Error() != tt.want {
				t.Errorf("got %v", err)
			}
			// And so does the client see it.
			if got := errgrpc.ToNative(toRPC(err)); !errors.Is(got, tt.kind) || got.Error() != tt.want {
				t.Errorf("the client gets %q", got)
			}
		})
	}
	if fromAgent(nil) != nil || toRPC(nil) != nil {
		t.Error("an error from nothing")
	}
}

// TestJoinedErrors: structure is not shown twice.
func TestJoinedErrors(t *testing.T) {
	err := toRPC(errors.Join(fmt.Errorf("%w: %w", errors.New("boot"), errdefs.ErrResourceExhausted), errors.New("undo")))
	if got := errgrpc.ToNative(err); !errors.Is(got, errdefs.ErrResourceExhausted) || strings.Count(got.Error(), "boot") != 1 || strings.Contains(got.Error(), "\n") {
		t.Errorf("got %q", got)
	}
}
