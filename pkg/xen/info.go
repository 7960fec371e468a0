// SPDX-License-Identifier: Apache-2.0

package xen

import (
	"fmt"
	"time"

	"github.com/xcontainer/xcontainer/pkg/xen/abi"
)

// State is what a domain is doing.
type State int

// States of a domain. A domain that was built and not yet unpaused is paused.
const (
	Running  State = iota // or waiting for an event
	Paused                // by the toolstack
	Shutdown              // ended by itself; memory and identity are still there
	Dying                 // destroyed, not yet gone
)

func (s State) String() string {
	switch s {
	case Running:
		return "running"
	case Paused:
		return "paused"
	case Shutdown:
		return "shutdown"
	case Dying:
		return "dying"
	}
	return fmt.Sprintf("state %d", int(s))
}

// Reason is how a domain ended.
type Reason int

// Reasons, as the guest or Xen gave them; Destroyed means that somebody ended
// the domain from outside.
const (
	PowerOff  Reason = abi.ShutdownPowerOff
	Reboot    Reason = abi.ShutdownReboot
	Suspend   Reason = abi.ShutdownSuspend
	Crash     Reason = abi.ShutdownCrash
	Watchdog  Reason = abi.ShutdownWatchdog
	SoftReset Reason = abi.ShutdownSoftReset
	Destroyed Reason = 256
)

func (r Reason) String() string {
	switch r {
	case PowerOff:
		return "power off"
	case Reboot:
		return "reboot"
	case Suspend:
		return "suspend"
	case Crash:
		return "crash"
	case Watchdog:
		return "watchdog"
	case SoftReset:
		return "soft reset"
	case Destroyed:
		return "destroyed"
	}
	return fmt.Sprintf("shutdown code %d", int(r))
}

// Info describes a domain at one moment.
type Info struct {
	ID       abi.DomID
	UUID     abi.UUID
	State    State
	Paused   bool          // by the toolstack, in whatever state
	Reason   Reason        // only in State Shutdown
	Pages    uint64        // memory the domain holds, pages of 4 KiB
	MaxPages uint64        // memory it may hold
	CPUTime  time.Duration // of all virtual CPUs together
	VCPUs    uint32        // online
	MaxVCPUs uint32

	sharedInfo abi.MFN
}

func makeInfo(r abi.DomainInfo) Info {
	i := Info{
		ID:         r.Domain,
		UUID:       r.Handle,
		Paused:     r.Flags&abi.DomInfPaused != 0,
		Pages:      r.TotPages,
		MaxPages:   r.MaxPages,
		CPUTime:    r.CPUTime,
		VCPUs:      r.OnlineVCPUs,
		MaxVCPUs:   r.MaxVCPUID + 1,
		sharedInfo: r.SharedInfo,
	}
	switch {
	case r.Flags&abi.DomInfDying != 0:
		i.State = Dying
	case r.Flags&abi.DomInfShutdown != 0:
		i.State = Shutdown
		i.Reason = Reason(r.Flags >> abi.DomInfShutdownShift & abi.DomInfShutdownMask)
	case i.Paused:
		i.State = Paused
	}
	return i
}
