// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"errors"
	"fmt"
	"sync"

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
	var disks []libos.Disk
	for _, d := range c.Disks {
		disks = append(disks, libos.Disk(d))
	}
	g, err := libos.Boot(ctx, libos.Config{
		Share:         c.Share,
		ConsolePath:   c.ConsoleLog,
		UUID:          c.UUID,
		MemoryBytes:   c.MemoryBytes,
		VCPUs:         c.VCPUs,
		MaxVCPUs:      c.MaxVCPUs,
		Weight:        c.Weight,
		XLibOS:        libos.XLibOS(c.XLibOS),
		Disks:         disks,
		Record:        func(id abi.DomID) error { return c.Record(uint16(id)) },
		RecordBackend: c.RecordBackend,
		Step:          c.Step,
		ConsoleLine:   consoleLine(c.ID),
	})
	if err != nil {
		logCrash(err)
		return nil, guestError(err)
	}
	return guest{g, new(sync.Once)}, nil
}

// consoleLine brings the guest's kernel log to the shim's, when that is to have
// debug messages.
func consoleLine(id string) func(string) {
	if log.GetLevel() < log.DebugLevel {
		return nil
	}
	return func(line string) { log.L.WithField("id", id).Debugf("guest: %s", line) }
}

// guest gives a libos.Guest the types that a container knows.
type guest struct {
	*libos.Guest
	logged *sync.Once
}

func (g guest) Stream(ctx context.Context) (uint64, task.Stream, error) { return g.Guest.Stream(ctx) }

func (g guest) Usage(ctx context.Context) (task.Usage, error) {
	u, err := g.Guest.Usage(ctx)
	if err != nil {
		return task.Usage{}, err
	}
	return task.Usage{
		CPUTime:        u.CPUTime,
		MemoryBytes:    u.MemoryBytes,
		MaxMemoryBytes: u.MaxMemoryBytes,
		VCPUs:          u.VCPUs,
		IO: task.IO{
			ReadBytes: u.ReadBytes, WriteBytes: u.WriteBytes,
			ReadOps: u.ReadOps, WriteOps: u.WriteOps,
		},
	}, nil
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
