// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"fmt"
	"time"
)

// DomctlVersions are the interface versions of struct xen_domctl that this
// package's encodings are right for: 4.17, 4.18, and 4.19 with 4.20. They differ
// for our use in nothing but the number: createdomain grew a field at offset 48
// in 0x17, and every byte from there on is zero for the domains we create.
var DomctlVersions = [...]uint32{0x15, 0x16, 0x17}

// Commands of struct xen_domctl, domctl.h.
const (
	DomctlCreateDomain   = 1
	DomctlDestroyDomain  = 2
	DomctlPauseDomain    = 3
	DomctlUnpauseDomain  = 4
	DomctlGetDomainInfo  = 5
	DomctlMaxMem         = 11
	DomctlSetVCPUContext = 12
	DomctlMaxVCPUs       = 15
	DomctlSchedulerOp    = 16
	DomctlGetTSCInfo     = 59
	DomctlSetTSCInfo     = 60
)

// struct xen_domctl, domctl.h.
const (
	SizeofDomctl  = 144
	DomctlCmd     = 0
	DomctlVersion = 4
	DomctlDomain  = 8
	DomctlU       = 16
)

// PutDomctl clears b and encodes the head of struct xen_domctl. The union of the
// command starts at DomctlU.
func PutDomctl(b []byte, cmd, version uint32, dom DomID) {
	clear(b[:SizeofDomctl])
	le.PutUint32(b[DomctlCmd:], cmd)
	le.PutUint32(b[DomctlVersion:], version)
	le.PutUint16(b[DomctlDomain:], uint16(dom))
}

// GetDomctlDomain is the domain field of an answer.
func GetDomctlDomain(b []byte) DomID { return DomID(le.Uint16(b[DomctlDomain:])) }

// struct xen_domctl_createdomain, domctl.h. Fields from offset 48 on differ
// between versions and stay zero.
const (
	SizeofCreateDomain   = 64 // 68 from version 0x17 on
	CreateSSIDRef        = 0
	CreateHandle         = 4
	CreateFlags          = 20
	CreateIOMMUOpts      = 24
	CreateMaxVCPUs       = 28
	CreateMaxEvtchnPort  = 32
	CreateMaxGrantFrames = 36
	CreateMaxMaptrack    = 40
	CreateGrantOpts      = 44
	CreateVersionedTail  = 48
)

// CreateDomain is what a caller chooses of struct xen_domctl_createdomain.
type CreateDomain struct {
	Handle             UUID
	MaxVCPUs           uint32
	MaxEvtchnPort      uint32
	MaxGrantFrames     int32 // -1: the hypervisor's default
	MaxMaptrackFrames  int32 // -1: the hypervisor's default
	MaxGrantTabVersion uint32
}

// Put encodes c into the union of a struct xen_domctl. Neither IOMMU nor
// emulated devices are asked for.
func (c CreateDomain) Put(u []byte) {
	copy(u[CreateHandle:CreateHandle+16], c.Handle[:])
	le.PutUint32(u[CreateMaxVCPUs:], c.MaxVCPUs)
	le.PutUint32(u[CreateMaxEvtchnPort:], c.MaxEvtchnPort)
	le.PutUint32(u[CreateMaxGrantFrames:], uint32(c.MaxGrantFrames))
	le.PutUint32(u[CreateMaxMaptrack:], uint32(c.MaxMaptrackFrames))
	le.PutUint32(u[CreateGrantOpts:], c.MaxGrantTabVersion)
}

// Flags of struct xen_domctl_getdomaininfo, domctl.h.
const (
	DomInfDying    = 1 << 0
	DomInfHVM      = 1 << 1
	DomInfShutdown = 1 << 2
	DomInfPaused   = 1 << 3
	DomInfBlocked  = 1 << 4
	DomInfRunning  = 1 << 5

	DomInfShutdownShift = 16
	DomInfShutdownMask  = 255
)

// Shutdown codes, sched.h.
const (
	ShutdownPowerOff  = 0
	ShutdownReboot    = 1
	ShutdownSuspend   = 2
	ShutdownCrash     = 3
	ShutdownWatchdog  = 4
	ShutdownSoftReset = 5
)

// struct xen_domctl_getdomaininfo, domctl.h.
const (
	SizeofDomainInfo    = 112
	InfoDomain          = 0
	InfoFlags           = 4
	InfoTotPages        = 8
	InfoMaxPages        = 16
	InfoSharedInfoFrame = 48
	InfoCPUTime         = 56
	InfoOnlineVCPUs     = 64
	InfoMaxVCPUID       = 68
	InfoHandle          = 76
)

// DomainInfo is struct xen_domctl_getdomaininfo as far as it is used here.
type DomainInfo struct {
	Domain      DomID
	Flags       uint32
	TotPages    uint64
	MaxPages    uint64
	SharedInfo  MFN
	CPUTime     time.Duration
	OnlineVCPUs uint32
	MaxVCPUID   uint32 // 0xffffffff: the domain has no virtual CPU
	Handle      UUID
}

// GetDomainInfo decodes one struct xen_domctl_getdomaininfo.
func GetDomainInfo(b []byte) (DomainInfo, error) {
	if len(b) < SizeofDomainInfo {
		return DomainInfo{}, fmt.Errorf("decode getdomaininfo: %d bytes, want %d", len(b), SizeofDomainInfo)
	}
	i := DomainInfo{
		Domain:      DomID(le.Uint16(b[InfoDomain:])),
		Flags:       le.Uint32(b[InfoFlags:]),
		TotPages:    le.Uint64(b[InfoTotPages:]),
		MaxPages:    le.Uint64(b[InfoMaxPages:]),
		SharedInfo:  MFN(le.Uint64(b[InfoSharedInfoFrame:])),
		CPUTime:     time.Duration(le.Uint64(b[InfoCPUTime:])),
		OnlineVCPUs: le.Uint32(b[InfoOnlineVCPUs:]),
		MaxVCPUID:   le.Uint32(b[InfoMaxVCPUID:]),
	}
	copy(i.Handle[:], b[InfoHandle:])
	return i, nil
}

// struct xen_domctl_scheduler_op, domctl.h, for credit2 (sched.h).
const (
	SizeofSchedulerOp   = 24
	SchedulerID         = 0
	SchedulerCmd        = 4
	SchedulerC2Weight   = 8
	SchedulerC2Cap      = 10
	SchedulerCredit2    = 6
	SchedulerOpPutInfo  = 0
	SchedulerOpGetInfo  = 1
	Credit2WeightNormal = 256
)

// PutCredit2 encodes the scheduler_op that sets a domain's weight and cap. The
// cap is in hundredths of a CPU, 0 = none.
func PutCredit2(u []byte, weight, limit uint16) {
	le.PutUint32(u[SchedulerID:], SchedulerCredit2)
	le.PutUint32(u[SchedulerCmd:], SchedulerOpPutInfo)
	le.PutUint16(u[SchedulerC2Weight:], weight)
	le.PutUint16(u[SchedulerC2Cap:], limit)
}

// PutGetScheduler encodes the scheduler_op that reads credit2's values.
func PutGetScheduler(u []byte) {
	le.PutUint32(u[SchedulerID:], SchedulerCredit2)
	le.PutUint32(u[SchedulerCmd:], SchedulerOpGetInfo)
}

// GetCredit2 decodes the answer to PutGetScheduler.
func GetCredit2(u []byte) (weight, limit uint16) {
	return le.Uint16(u[SchedulerC2Weight:]), le.Uint16(u[SchedulerC2Cap:])
}

// struct xen_domctl_tsc_info, domctl.h; the mode is of xen/arch/x86/include/asm/time.h.
const (
	SizeofTSCInfo          = 24
	TSCInfoMode            = 0
	TSCModeDefault TSCMode = 0 // the CPU's if it is the same on all and never stops
	TSCModeNative  TSCMode = 2 // the CPU's
)

// TSCMode says what a domain reads as time stamp counter: Xen can emulate it, at the
// price of a trap each time.
type TSCMode uint32

// PutTSCInfo encodes struct xen_domctl_tsc_info for a domain that starts to count now.
func PutTSCInfo(u []byte, mode TSCMode) { le.PutUint32(u[TSCInfoMode:], uint32(mode)) }

// GetTSCInfo decodes the mode of struct xen_domctl_tsc_info.
func GetTSCInfo(u []byte) TSCMode { return TSCMode(le.Uint32(u[TSCInfoMode:])) }

// struct xen_domctl_vcpucontext, _max_mem and _max_vcpus, domctl.h.
const (
	SizeofVCPUContextOp = 16
	VCPUContextVCPU     = 0
	VCPUContextPtr      = 8
	MaxMemKiB           = 0
	MaxVCPUsMax         = 0
)

// PutVCPUContextOp encodes struct xen_domctl_vcpucontext.
func PutVCPUContextOp(u []byte, vcpu uint32, ctxt uint64) {
	le.PutUint32(u[VCPUContextVCPU:], vcpu)
	le.PutUint64(u[VCPUContextPtr:], ctxt)
}

// PutMaxMem encodes struct xen_domctl_max_mem.
func PutMaxMem(u []byte, kib uint64) { le.PutUint64(u[MaxMemKiB:], kib) }

// PutMaxVCPUs encodes struct xen_domctl_max_vcpus.
func PutMaxVCPUs(u []byte, n uint32) { le.PutUint32(u[MaxVCPUsMax:], n) }
