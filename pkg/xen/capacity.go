// SPDX-License-Identifier: Apache-2.0

package xen

import (
	"fmt"

	"github.com/xcontainer/xcontainer/pkg/xen/abi"
)

// Capacity is what the machine has for domains, and what is left of it.
type Capacity struct {
	CPUs      uint32
	Total     uint64 // bytes of memory, dom0's included
	Free      uint64 // bytes that new domains can have
	Scheduler string // of virtual CPUs, by Xen's name for it
}

// schedulers are XEN_SCHEDULER_* of domctl.h.
var schedulers = map[uint32]string{5: "credit", abi.SchedulerCredit2: "credit2", 7: "arinc653", 8: "rtds", 9: "null"}

// Capacity asks Xen.
func (h *Host) Capacity() (Capacity, error) {
	info, err := h.hv.HostInfo()
	if err != nil {
		return Capacity{}, prefixed(err)
	}
	c := Capacity{
		CPUs:      info.CPUs,
		Total:     info.TotalPages * abi.PageSize,
		Free:      (info.FreePages - min(info.FreePages, info.ClaimedPages)) * abi.PageSize,
		Scheduler: schedulers[info.Scheduler],
	}
	if c.Scheduler == "" {
		c.Scheduler = fmt.Sprintf("scheduler %d", info.Scheduler)
	}
	return c, nil
}
