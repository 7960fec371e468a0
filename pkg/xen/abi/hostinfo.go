// SPDX-License-Identifier: Apache-2.0

package abi

// struct xen_sysctl_physinfo and xen_sysctl_sched_id, sysctl.h.
const (
	SysctlPhysInfo = 3
	SysctlSchedID  = 4

	SizeofPhysInfo       = 112
	PhysInfoCPUs         = 8
	PhysInfoTotalPages   = 40
	PhysInfoFreePages    = 48
	PhysInfoScrubPages   = 56
	PhysInfoClaimedPages = 64
	SchedIDScheduler     = 0
)

// HostInfo is what Xen says of the machine, as far as it is used here. Pages are
// of 4 KiB.
type HostInfo struct {
	CPUs         uint32 // online
	TotalPages   uint64
	FreePages    uint64 // those that wait for scrubbing included
	ClaimedPages uint64 // free, but promised to a domain that is being built
	Scheduler    uint32 // XEN_SCHEDULER_*, of the first CPU pool
}

// PutSysctl clears b and encodes the head of struct xen_sysctl, which is all of
// a command without arguments.
func PutSysctl(b []byte, cmd uint32) {
	clear(b[:SizeofSysctl])
	le.PutUint32(b[SysctlCmd:], cmd)
	le.PutUint32(b[SysctlVersion:], SysctlInterfaceVersion)
}

// GetPhysInfo decodes the answer to SysctlPhysInfo into i.
func (i *HostInfo) GetPhysInfo(b []byte) {
	u := b[SysctlU:]
	i.CPUs = le.Uint32(u[PhysInfoCPUs:])
	i.TotalPages = le.Uint64(u[PhysInfoTotalPages:])
	i.FreePages = le.Uint64(u[PhysInfoFreePages:])
	i.ClaimedPages = le.Uint64(u[PhysInfoClaimedPages:])
}

// GetSchedID decodes the answer to SysctlSchedID into i.
func (i *HostInfo) GetSchedID(b []byte) { i.Scheduler = le.Uint32(b[SysctlU+SchedIDScheduler:]) }
