// SPDX-License-Identifier: Apache-2.0

package abi

// Requests of /dev/xen/privcmd, linux uapi xen/privcmd.h.
const (
	IoctlPrivcmdHypercall   = 0x305000
	IoctlPrivcmdMmapBatchV2 = 0x205004
	IoctlPrivcmdRestrict    = 0x25006

	SizeofPrivcmdHypercall = 48

	SizeofMmapBatchV2 = 32
	MmapBatchNum      = 0
	MmapBatchDom      = 4
	MmapBatchAddr     = 8
	MmapBatchArr      = 16
	MmapBatchErr      = 24
)

// Requests of /dev/xen/evtchn, linux uapi xen/evtchn.h.
const (
	IoctlEvtchnBindInterdomain = 0x84501
	IoctlEvtchnUnbind          = 0x44503
	IoctlEvtchnNotify          = 0x44504
	IoctlEvtchnRestrictDomID   = 0x24506
)
