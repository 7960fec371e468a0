// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"

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
		logCrash(err)
		return nil, guestError(err)
	}
	return guest{g, new(sync.Once)}, nil
}

// guest gives a libos.Guest the types that a container knows.
type guest struct {
	*libos.Guest
	logged *sync.Once
}

func (g guest) Stream(ctx context.Context) (uint64, task.Stream, error) { return g.Guest.Stream(ctx) }

// Pause and its like are not yet offered by libos.
func (g guest) Pause(context.Context) error { return errNotYet("pause") }

func (g guest) Resume(context.Context) error { return errNotYet("resume") }

func (g guest) SetMaxMemory(context.Context, uint64) error { return errNotYet("change of memory") }

func (g guest) SetSchedule(context.Context, uint16, uint16) error {
	return errNotYet("change of scheduling")
}

func (g guest) Usage(context.Context) (task.Usage, error) {
	return task.Usage{}, errNotYet("usage of the domain")
}

func errNotYet(what string) error {
	return fmt.Errorf("%s is not supported yet: %w", what, errdefs.ErrNotImplemented)
}

func (g guest) Death() error {
	err := g.Guest.Death()
	if err != nil {
		g.logged.Do(func() { logCrash(err) })
	}
	return guestError(err)
}

// logCrash writes the kernel log of a guest that crashed to the shim's.
func logCrash(err error) {
	if crash := (*libos.CrashError)(nil); errors.As(err, &crash) {
		log.L.WithError(err).Errorf("end of the guest's kernel log:\n%s", crash.Console)
	}
}

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
