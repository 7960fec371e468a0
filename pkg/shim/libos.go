// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"errors"
	"fmt"

	"github.com/xcontainer/xcontainer/pkg/libos"
	"github.com/xcontainer/xcontainer/pkg/shim/task"
	"github.com/xcontainer/xcontainer/pkg/xen/abi"
)

// Libos are the parts for domains on Xen.
func Libos() Parts {
	return Parts{
		Boot:    bootLibos,
		Destroy: func(ctx context.Context, uuid [16]byte) error { return libos.Destroy(ctx, uuid) },
		Backend: libos.RunBackend,
	}
}

func bootLibos(ctx context.Context, c task.BootConfig) (task.Guest, error) {
	g, err := libos.Boot(ctx, libos.Config{
		Share:         c.Share,
		ConsolePath:   c.ConsoleLog,
		UUID:          c.UUID,
		MemoryBytes:   c.MemoryBytes,
		VCPUs:         c.VCPUs,
		Weight:        c.Weight,
		Cap:           c.Cap,
		Record:        func(id abi.DomID) error { return c.Record(uint16(id)) },
		RecordBackend: c.RecordBackend,
		Step:          c.Step,
	})
	if err != nil {
		return nil, guestError(err)
	}
	return guest{g}, nil
}

// guest gives a libos.Guest the types that a container knows.
type guest struct{ *libos.Guest }

func (g guest) Stream(ctx context.Context) (uint64, task.Stream, error) { return g.Guest.Stream(ctx) }

func (g guest) Death() error { return guestError(g.Guest.Death()) }

// guestError tells a container which of its two kinds of end err is.
func guestError(err error) error {
	switch {
	case errors.Is(err, libos.ErrDestroyed):
		return fmt.Errorf("%w: %w", task.ErrGuestDestroyed, err)
	case errors.Is(err, libos.ErrCrashed), errors.Is(err, libos.ErrStopped), errors.Is(err, libos.ErrBackend):
		return fmt.Errorf("%w: %w", task.ErrGuestCrashed, err)
	}
	return err
}
