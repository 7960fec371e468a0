// SPDX-License-Identifier: Apache-2.0

package libos

import (
	"context"
	"fmt"
	"time"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
	"github.com/xcontainer/xcontainer/pkg/xen"
	"github.com/xcontainer/xcontainer/pkg/xen/abi"
)

// Usage is what a guest takes of its host, by the hypervisor and the back-end.
type Usage struct {
	CPUTime        time.Duration // of all virtual CPUs together, since the boot
	MemoryBytes    uint64        // what the domain holds
	MaxMemoryBytes uint64        // what it may hold
	VCPUs          uint32        // online

	// What the back-end has read and written for the guest's file systems and
	// disks since the boot.
	ReadBytes, WriteBytes uint64
	ReadOps, WriteOps     uint64
}

// Pause stops all of the guest's virtual CPUs. Calls of the agent wait until
// Resume, and streams stand still; the back-end runs on. Pausing a paused guest
// is no error. The guest's clocks go on, as they do for a frozen container.
func (g *Guest) Pause(ctx context.Context) error {
	return g.live(ctx, "pause", g.dom.Pause)
}

// Resume lets a paused guest go on; one that runs is left alone.
func (g *Guest) Resume(ctx context.Context) error {
	return g.live(ctx, "resume", g.dom.Unpause)
}

// SetMaxMemory sets the most memory that the domain may have, in bytes. It
// neither gives nor takes any: the agent's SetSize does. To grow, raise the limit
// first; to shrink, lower it last.
func (g *Guest) SetMaxMemory(ctx context.Context, bytes uint64) error {
	return g.live(ctx, "set the memory limit of", func() error { return g.dom.SetMaxMemory(bytes / 1024) })
}

// SetSchedule sets credit2's weight and cap, as in Config.
func (g *Guest) SetSchedule(ctx context.Context, weight, cap uint16) error {
	return g.live(ctx, "set the scheduling of", func() error { return g.dom.SetSchedule(weight, cap) })
}

// live makes a change of the domain, which takes no time.
func (g *Guest) live(ctx context.Context, what string, change func() error) error {
	err := ctx.Err()
	if err == nil {
		err = change()
	}
	if err != nil {
		return fmt.Errorf("%s the guest: %w", what, err)
	}
	return nil
}

// Usage asks hypervisor and back-end, and works for a paused guest too.
func (g *Guest) Usage(ctx context.Context) (Usage, error) {
	info, err := g.dom.Info()
	if err != nil {
		return Usage{}, fmt.Errorf("read the guest's usage: %w", err)
	}
	io, err := g.backend.client.Stats(ctx)
	if err != nil {
		return Usage{}, fmt.Errorf("read the guest's usage: %w", err)
	}
	return Usage{
		CPUTime:        info.CPUTime,
		MemoryBytes:    info.Pages * abi.PageSize,
		MaxMemoryBytes: (info.MaxPages - min(info.MaxPages, xen.MemorySlackKiB/4)) * abi.PageSize,
		VCPUs:          info.VCPUs,
		ReadBytes:      io.ReadBytes, WriteBytes: io.WriteBytes,
		ReadOps: io.ReadOps, WriteOps: io.WriteOps,
	}, nil
}

// startCPUs has the agent bring up the virtual CPUs that are wanted from the
// start. While it boots, the kernel patches its own code, with some care if other
// processors may be running it; with one there is nothing to go wrong.
func (g *Guest) startCPUs(ctx context.Context, n uint32) error {
	if n <= 1 {
		return nil
	}
	r, err := g.agent.SetSize(ctx, &agentapi.SetSizeRequest{Vcpus: n})
	if err != nil {
		return fmt.Errorf("start the guest's virtual CPUs: %w", err)
	}
	if r.GetVcpus() != n {
		return fmt.Errorf("start the guest's virtual CPUs: %d of %d run", r.GetVcpus(), n)
	}
	return nil
}
