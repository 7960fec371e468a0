// SPDX-License-Identifier: Apache-2.0

package xen

import (
	"fmt"
	"time"

	"github.com/xcontainer/xcontainer/pkg/noxs"
	"github.com/xcontainer/xcontainer/pkg/xen/abi"
	"github.com/xcontainer/xcontainer/pkg/xen/pv"
)

// MaxVCPUs of a domain: how many have their state in the shared page. A guest with
// more must move it before the others can run.
const MaxVCPUs = abi.LegacyVCPUs

// MaxMemoryKiB bounds a domain to 512 GiB.
const MaxMemoryKiB = 512 << 20

// Config says what domain to build.
type Config struct {
	UUID      abi.UUID // chosen by the caller, not zero
	Kernel    *pv.Kernel
	Initramfs []byte
	Cmdline   string
	MemoryKiB uint64 // rounded down to pages; all of it is the guest's
	VCPUs     uint32 // 1 to 32; the first runs from the start, the guest starts others

	// Weight and Cap are the credit2 scheduler's: 0 leaves Xen's default
	// weight of 256, and no cap. The cap is in hundredths of a CPU; one above
	// what all virtual CPUs can take is none.
	Weight, Cap uint16

	// Layout names devices and pool; Create allocates the ports.
	Layout noxs.Layout

	// Created, if set, hears of the domain's id right after it exists and
	// before it has any memory, so that the caller can write it down. An
	// error ends the build.
	Created func(abi.DomID) error

	// Step, if set, hears how long each step took: createdomain, populate,
	// ports, load, tables, devices, pin.
	Step func(name string, d time.Duration)
}

func (c *Config) check() error {
	var what string
	memory := checkMemory(c.MemoryKiB)
	switch {
	case c.UUID == abi.UUID{}:
		what = "no uuid"
	case c.Kernel == nil:
		what = "no kernel"
	case c.VCPUs < 1 || c.VCPUs > MaxVCPUs:
		what = fmt.Sprintf("%d virtual CPUs, want 1 to %d", c.VCPUs, MaxVCPUs)
	case memory != nil:
		return memory
	case len(c.Cmdline) > abi.StartInfoMaxCmdLength:
		what = fmt.Sprintf("kernel command line of %d bytes, limit %d", len(c.Cmdline), abi.StartInfoMaxCmdLength)
	case len(c.Layout.Devices) > noxs.MaxDevices:
		what = fmt.Sprintf("%d devices, limit %d", len(c.Layout.Devices), noxs.MaxDevices)
	default:
		return nil
	}
	return fmt.Errorf("%w: %s", ErrConfig, what)
}

func checkMemory(kib uint64) error {
	if kib < 4 || kib > MaxMemoryKiB {
		return fmt.Errorf("%w: memory of %d KiB, want 4 to %d", ErrConfig, kib, uint64(MaxMemoryKiB))
	}
	return nil
}

// ports are the guest's ends of a domain's event channels.
type ports struct {
	console, doorbell abi.Port
	devices           []abi.Port
}

// withPorts is a copy of l that names p.
func withPorts(l noxs.Layout, p ports) noxs.Layout {
	l.DoorbellPort = uint32(p.doorbell)
	devices := make([]noxs.Device, len(l.Devices))
	for i, d := range l.Devices {
		d.Port = uint32(p.devices[i])
		devices[i] = d
	}
	l.Devices = devices
	return l
}
