// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// envRequireHeaders makes missing headers or a missing compiler a failure.
// `make test` sets it; a plain `go test` on a machine without libxen-dev checks
// the recorded values below only.
const envRequireHeaders = "XCONTAINER_REQUIRE_HEADERS"

// headerValues pairs a C expression over Xen's public headers with our number.
var headerValues = []struct {
	expr string
	got  int
}{
	{"__HYPERVISOR_memory_op", HypercallMemoryOp},
	{"__HYPERVISOR_xen_version", HypercallXenVersion},
	{"__HYPERVISOR_mmuext_op", HypercallMMUExtOp},
	{"__HYPERVISOR_sched_op", HypercallSchedOp},
	{"__HYPERVISOR_event_channel_op", HypercallEventChannelOp},
	{"__HYPERVISOR_sysctl", HypercallSysctl},
	{"__HYPERVISOR_domctl", HypercallDomctl},
	{"XENVER_version", XenVerVersion},
	{"XENVER_extraversion", XenVerExtraVersion},
	{"sizeof(xen_extraversion_t)", ExtraVersionLen},
	{"XENMEM_populate_physmap", MemOpPopulatePhysmap},
	{"XENMEM_claim_pages", MemOpClaimPages},
	{"DOMID_SELF", int(DomIDSelf)},
	{"DOMID_FIRST_RESERVED", int(FirstReservedDomID)},

	{"sizeof(struct xen_memory_reservation)", SizeofMemoryReservation},
	{"offsetof(struct xen_memory_reservation, extent_start)", ReservationExtents},
	{"offsetof(struct xen_memory_reservation, nr_extents)", ReservationNrExtents},
	{"offsetof(struct xen_memory_reservation, extent_order)", ReservationOrder},
	{"offsetof(struct xen_memory_reservation, mem_flags)", ReservationMemFlags},
	{"offsetof(struct xen_memory_reservation, domid)", ReservationDomID},

	{"MMUEXT_PIN_L4_TABLE", MMUExtPinL4Table},
	{"sizeof(struct mmuext_op)", SizeofMMUExtOp},
	{"offsetof(struct mmuext_op, cmd)", MMUExtCmd},
	{"offsetof(struct mmuext_op, arg1)", MMUExtArg1},

	{"EVTCHNOP_alloc_unbound", EvtchnOpAllocUnbound},
	{"sizeof(struct evtchn_alloc_unbound)", SizeofAllocUnbound},
	{"offsetof(struct evtchn_alloc_unbound, dom)", AllocUnboundDom},
	{"offsetof(struct evtchn_alloc_unbound, remote_dom)", AllocUnboundRemote},
	{"offsetof(struct evtchn_alloc_unbound, port)", AllocUnboundPort},

	{"XEN_SYSCTL_INTERFACE_VERSION", SysctlInterfaceVersion},
	{"XEN_SYSCTL_getdomaininfolist", SysctlGetDomainInfoList},
	{"sizeof(struct xen_sysctl)", SizeofSysctl},
	{"offsetof(struct xen_sysctl, cmd)", SysctlCmd},
	{"offsetof(struct xen_sysctl, interface_version)", SysctlVersion},
	{"offsetof(struct xen_sysctl, u)", SysctlU},
	{"sizeof(struct xen_sysctl_getdomaininfolist)", SizeofDomainInfoList},
	{"offsetof(struct xen_sysctl_getdomaininfolist, first_domain)", InfoListFirstDomain},
	{"offsetof(struct xen_sysctl_getdomaininfolist, max_domains)", InfoListMaxDomains},
	{"offsetof(struct xen_sysctl_getdomaininfolist, buffer)", InfoListBuffer},
	{"offsetof(struct xen_sysctl_getdomaininfolist, num_domains)", InfoListNumDomains},

	{"XEN_SYSCTL_physinfo", SysctlPhysInfo},
	{"XEN_SYSCTL_sched_id", SysctlSchedID},
	{"sizeof(struct xen_sysctl_physinfo)", SizeofPhysInfo},
	{"offsetof(struct xen_sysctl_physinfo, nr_cpus)", PhysInfoCPUs},
	{"offsetof(struct xen_sysctl_physinfo, total_pages)", PhysInfoTotalPages},
	{"offsetof(struct xen_sysctl_physinfo, free_pages)", PhysInfoFreePages},
	{"offsetof(struct xen_sysctl_physinfo, scrub_pages)", PhysInfoScrubPages},
	{"offsetof(struct xen_sysctl_physinfo, outstanding_pages)", PhysInfoClaimedPages},
	{"offsetof(struct xen_sysctl_sched_id, sched_id)", SchedIDScheduler},

	{"XEN_DOMCTL_createdomain", DomctlCreateDomain},
	{"XEN_DOMCTL_destroydomain", DomctlDestroyDomain},
	{"XEN_DOMCTL_pausedomain", DomctlPauseDomain},
	{"XEN_DOMCTL_unpausedomain", DomctlUnpauseDomain},
	{"XEN_DOMCTL_getdomaininfo", DomctlGetDomainInfo},
	{"XEN_DOMCTL_max_mem", DomctlMaxMem},
	{"XEN_DOMCTL_setvcpucontext", DomctlSetVCPUContext},
	{"XEN_DOMCTL_max_vcpus", DomctlMaxVCPUs},
	{"XEN_DOMCTL_scheduler_op", DomctlSchedulerOp},
	{"XEN_DOMCTL_gettscinfo", DomctlGetTSCInfo},
	{"XEN_DOMCTL_settscinfo", DomctlSetTSCInfo},
	{"sizeof(struct xen_domctl_tsc_info)", SizeofTSCInfo},
	{"offsetof(struct xen_domctl_tsc_info, tsc_mode)", TSCInfoMode},
	{"sizeof(struct xen_domctl)", SizeofDomctl},
	{"offsetof(struct xen_domctl, cmd)", DomctlCmd},
	{"offsetof(struct xen_domctl, interface_version)", DomctlVersion},
	{"offsetof(struct xen_domctl, domain)", DomctlDomain},
	{"offsetof(struct xen_domctl, u)", DomctlU},

	{"offsetof(struct xen_domctl_createdomain, ssidref)", CreateSSIDRef},
	{"offsetof(struct xen_domctl_createdomain, handle)", CreateHandle},
	{"offsetof(struct xen_domctl_createdomain, flags)", CreateFlags},
	{"offsetof(struct xen_domctl_createdomain, iommu_opts)", CreateIOMMUOpts},
	{"offsetof(struct xen_domctl_createdomain, max_vcpus)", CreateMaxVCPUs},
	{"offsetof(struct xen_domctl_createdomain, max_evtchn_port)", CreateMaxEvtchnPort},
	{"offsetof(struct xen_domctl_createdomain, max_grant_frames)", CreateMaxGrantFrames},
	{"offsetof(struct xen_domctl_createdomain, max_maptrack_frames)", CreateMaxMaptrack},
	{"offsetof(struct xen_domctl_createdomain, grant_opts)", CreateGrantOpts},
	{"offsetof(struct xen_domctl_createdomain, vmtrace_size)", CreateVersionedTail},
	{"sizeof(struct xen_domctl_createdomain)", SizeofCreateDomain},

	{"XEN_DOMINF_dying", DomInfDying},
	{"XEN_DOMINF_hvm_guest", DomInfHVM},
	{"XEN_DOMINF_shutdown", DomInfShutdown},
	{"XEN_DOMINF_paused", DomInfPaused},
	{"XEN_DOMINF_blocked", DomInfBlocked},
	{"XEN_DOMINF_running", DomInfRunning},
	{"XEN_DOMINF_shutdownshift", DomInfShutdownShift},
	{"XEN_DOMINF_shutdownmask", DomInfShutdownMask},
	{"SHUTDOWN_poweroff", ShutdownPowerOff},
	{"SHUTDOWN_reboot", ShutdownReboot},
	{"SHUTDOWN_suspend", ShutdownSuspend},
	{"SHUTDOWN_crash", ShutdownCrash},
	{"SHUTDOWN_watchdog", ShutdownWatchdog},
	{"SHUTDOWN_soft_reset", ShutdownSoftReset},

	{"sizeof(struct xen_domctl_getdomaininfo)", SizeofDomainInfo},
	{"offsetof(struct xen_domctl_getdomaininfo, domain)", InfoDomain},
	{"offsetof(struct xen_domctl_getdomaininfo, flags)", InfoFlags},
	{"offsetof(struct xen_domctl_getdomaininfo, tot_pages)", InfoTotPages},
	{"offsetof(struct xen_domctl_getdomaininfo, max_pages)", InfoMaxPages},
	{"offsetof(struct xen_domctl_getdomaininfo, shared_info_frame)", InfoSharedInfoFrame},
	{"offsetof(struct xen_domctl_getdomaininfo, cpu_time)", InfoCPUTime},
	{"offsetof(struct xen_domctl_getdomaininfo, nr_online_vcpus)", InfoOnlineVCPUs},
	{"offsetof(struct xen_domctl_getdomaininfo, max_vcpu_id)", InfoMaxVCPUID},
	{"offsetof(struct xen_domctl_getdomaininfo, handle)", InfoHandle},

	{"XEN_SCHEDULER_CREDIT2", SchedulerCredit2},
	{"XEN_DOMCTL_SCHEDOP_putinfo", SchedulerOpPutInfo},
	{"XEN_DOMCTL_SCHEDOP_getinfo", SchedulerOpGetInfo},
	{"sizeof(struct xen_domctl_scheduler_op)", SizeofSchedulerOp},
	{"offsetof(struct xen_domctl_scheduler_op, sched_id)", SchedulerID},
	{"offsetof(struct xen_domctl_scheduler_op, cmd)", SchedulerCmd},
	{"offsetof(struct xen_domctl_scheduler_op, u.credit2.weight)", SchedulerC2Weight},
	{"offsetof(struct xen_domctl_scheduler_op, u.credit2.cap)", SchedulerC2Cap},
	{"sizeof(struct xen_domctl_vcpucontext)", SizeofVCPUContextOp},
	{"offsetof(struct xen_domctl_vcpucontext, vcpu)", VCPUContextVCPU},
	{"offsetof(struct xen_domctl_vcpucontext, ctxt)", VCPUContextPtr},
	{"offsetof(struct xen_domctl_max_mem, max_memkb)", MaxMemKiB},
	{"offsetof(struct xen_domctl_max_vcpus, max)", MaxVCPUsMax},

	{"XEN_ELFNOTE_ENTRY", NoteEntry},
	{"XEN_ELFNOTE_HYPERCALL_PAGE", NoteHypercallPage},
	{"XEN_ELFNOTE_VIRT_BASE", NoteVirtBase},
	{"XEN_ELFNOTE_PADDR_OFFSET", NotePaddrOffset},
	{"XEN_ELFNOTE_XEN_VERSION", NoteXenVersion},
	{"XEN_ELFNOTE_GUEST_OS", NoteGuestOS},
	{"XEN_ELFNOTE_INIT_P2M", NoteInitP2M},
	{"XEN_ELFNOTE_MOD_START_PFN", NoteModStartPFN},
	{"XEN_ELFNOTE_PHYS32_ENTRY", NotePhys32Entry},

	{"sizeof(struct start_info)", SizeofStartInfo},
	{"offsetof(struct start_info, magic)", StartInfoMagic},
	{"offsetof(struct start_info, nr_pages)", StartInfoNrPages},
	{"offsetof(struct start_info, shared_info)", StartInfoSharedInfo},
	{"offsetof(struct start_info, flags)", StartInfoFlags},
	{"offsetof(struct start_info, store_mfn)", StartInfoStoreMFN},
	{"offsetof(struct start_info, store_evtchn)", StartInfoStoreEvtchn},
	{"offsetof(struct start_info, console.domU.mfn)", StartInfoConsMFN},
	{"offsetof(struct start_info, console.domU.evtchn)", StartInfoConsEvtchn},
	{"offsetof(struct start_info, pt_base)", StartInfoPTBase},
	{"offsetof(struct start_info, nr_pt_frames)", StartInfoNrPTFrames},
	{"offsetof(struct start_info, mfn_list)", StartInfoMFNList},
	{"offsetof(struct start_info, mod_start)", StartInfoModStart},
	{"offsetof(struct start_info, mod_len)", StartInfoModLen},
	{"offsetof(struct start_info, cmd_line)", StartInfoCmdLine},
	{"MAX_GUEST_CMDLINE", StartInfoCmdLineSize},
	{"offsetof(struct start_info, first_p2m_pfn)", StartInfoFirstP2MPFN},
	{"offsetof(struct start_info, nr_p2m_frames)", StartInfoNrP2MFrames},
	{"SIF_MOD_START_PFN", StartInfoModStartPFN},

	{"sizeof(struct shared_info)", SizeofSharedInfo},
	{"sizeof(struct vcpu_info)", SizeofVCPUInfo},
	{"offsetof(struct vcpu_info, evtchn_upcall_mask)", VCPUUpcallMask},
	{"XEN_LEGACY_MAX_VCPUS", LegacyVCPUs},
	{"sizeof(struct vcpu_guest_context)", SizeofVCPUGuestContext},
	{"offsetof(struct vcpu_guest_context, flags)", ContextFlags},
	{"offsetof(struct vcpu_guest_context, user_regs)", ContextUserRegs},
	{"offsetof(struct vcpu_guest_context, kernel_ss)", ContextKernelSS},
	{"offsetof(struct vcpu_guest_context, kernel_sp)", ContextKernelSP},
	{"offsetof(struct vcpu_guest_context, ctrlreg)", ContextCtrlReg},
	{"offsetof(struct vcpu_guest_context, debugreg)", ContextDebugReg},
	{"sizeof(struct cpu_user_regs)", SizeofUserRegs},
	{"offsetof(struct cpu_user_regs, rsi)", RegRSI},
	{"offsetof(struct cpu_user_regs, rip)", RegRIP},
	{"offsetof(struct cpu_user_regs, cs)", RegCS},
	{"offsetof(struct cpu_user_regs, rflags)", RegRFlags},
	{"offsetof(struct cpu_user_regs, rsp)", RegRSP},
	{"offsetof(struct cpu_user_regs, ss)", RegSS},
	{"VGCF_in_kernel", ContextInKernel},
	{"VGCF_online", ContextOnline},
	{"FLAT_KERNEL_CS", FlatKernelCS},
	{"FLAT_KERNEL_SS", FlatKernelSS},

	{"sizeof(struct xencons_interface)", SizeofConsole},
	{"offsetof(struct xencons_interface, in)", ConsoleIn},
	{"sizeof(((struct xencons_interface *)0)->in)", ConsoleInSize},
	{"offsetof(struct xencons_interface, out)", ConsoleOut},
	{"sizeof(((struct xencons_interface *)0)->out)", ConsoleOutSize},
	{"offsetof(struct xencons_interface, in_cons)", ConsoleInCons},
	{"offsetof(struct xencons_interface, in_prod)", ConsoleInProd},
	{"offsetof(struct xencons_interface, out_cons)", ConsoleOutCons},
	{"offsetof(struct xencons_interface, out_prod)", ConsoleOutProd},

	{"IOCTL_PRIVCMD_HYPERCALL", IoctlPrivcmdHypercall},
	{"IOCTL_PRIVCMD_MMAPBATCH_V2", IoctlPrivcmdMmapBatchV2},
	{"IOCTL_PRIVCMD_RESTRICT", IoctlPrivcmdRestrict},
	{"sizeof(struct privcmd_hypercall)", SizeofPrivcmdHypercall},
	{"sizeof(struct privcmd_mmapbatch_v2)", SizeofMmapBatchV2},
	{"offsetof(struct privcmd_mmapbatch_v2, num)", MmapBatchNum},
	{"offsetof(struct privcmd_mmapbatch_v2, dom)", MmapBatchDom},
	{"offsetof(struct privcmd_mmapbatch_v2, addr)", MmapBatchAddr},
	{"offsetof(struct privcmd_mmapbatch_v2, arr)", MmapBatchArr},
	{"offsetof(struct privcmd_mmapbatch_v2, err)", MmapBatchErr},
	{"IOCTL_EVTCHN_BIND_INTERDOMAIN", IoctlEvtchnBindInterdomain},
	{"IOCTL_EVTCHN_UNBIND", IoctlEvtchnUnbind},
	{"IOCTL_EVTCHN_NOTIFY", IoctlEvtchnNotify},
	{"IOCTL_EVTCHN_RESTRICT_DOMID", IoctlEvtchnRestrictDomID},
}

const headerPrologue = `#define __XEN_TOOLS__ 1
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/types.h>
#include <xen/xen.h>
#include <xen/domctl.h>
#include <xen/sysctl.h>
#include <xen/memory.h>
#include <xen/event_channel.h>
#include <xen/sched.h>
#include <xen/version.h>
#include <xen/elfnote.h>
#include <xen/io/console.h>
#include <xen/sys/privcmd.h>
#include <xen/sys/evtchn.h>
int main(void) {
`

func TestNumbersMatchXenHeaders(t *testing.T) {
	gcc, err := exec.LookPath("gcc")
	if err == nil {
		_, err = os.Stat("/usr/include/xen/domctl.h")
	}
	if err != nil {
		if os.Getenv(envRequireHeaders) == "1" {
			t.Fatalf("%v; remedy: apt-get install gcc libxen-dev", err)
		}
		t.Logf("headers not compared: %v (apt-get install gcc libxen-dev)", err)
		return
	}
	var src strings.Builder
	src.WriteString(headerPrologue)
	for _, v := range headerValues {
		fmt.Fprintf(&src, "printf(\"%%lld\\n\", (long long)(%s));\n", v.expr)
	}
	src.WriteString("return 0; }\n")
	dir := t.TempDir()
	file, bin := filepath.Join(dir, "abi.c"), filepath.Join(dir, "abi")
	if err := os.WriteFile(file, []byte(src.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(gcc, "-o", bin, file).CombinedOutput(); err != nil {
		t.Fatalf("compile against Xen's headers: %v\n%s", err, out)
	}
	out, err := exec.Command(bin).Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(string(out))
	if len(lines) != len(headerValues) {
		t.Fatalf("%d values from C, want %d", len(lines), len(headerValues))
	}
	for i, v := range headerValues {
		want, err := strconv.Atoi(lines[i])
		if err != nil {
			t.Fatal(err)
		}
		if v.got != want {
			t.Errorf("%s = %d, have %d", v.expr, want, v.got)
		}
	}
}
