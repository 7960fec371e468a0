// SPDX-License-Identifier: Apache-2.0

package abi

import "encoding/binary"

var le = binary.LittleEndian

// Hypercall numbers, xen.h.
const (
	HypercallMemoryOp       = 12
	HypercallXenVersion     = 17
	HypercallMMUExtOp       = 26
	HypercallSchedOp        = 29
	HypercallEventChannelOp = 32
	HypercallSysctl         = 35
	HypercallDomctl         = 36
)

// Commands of xen_version, version.h.
const (
	XenVerVersion      = 0
	XenVerExtraVersion = 1
	ExtraVersionLen    = 16
)

// Commands of memory_op, memory.h.
const (
	MemOpPopulatePhysmap = 6
	MemOpClaimPages      = 24
)

// struct xen_memory_reservation, memory.h.
const (
	SizeofMemoryReservation = 32
	ReservationExtents      = 0
	ReservationNrExtents    = 8
	ReservationOrder        = 16
	ReservationMemFlags     = 20
	ReservationDomID        = 24
)

// PutMemoryReservation encodes struct xen_memory_reservation. extents is the
// address of an array of n guest frame numbers, each the first of 2^order pages.
func PutMemoryReservation(b []byte, dom DomID, extents uint64, n uint64, order uint32) {
	clear(b[:SizeofMemoryReservation])
	le.PutUint64(b[ReservationExtents:], extents)
	le.PutUint64(b[ReservationNrExtents:], n)
	le.PutUint32(b[ReservationOrder:], order)
	le.PutUint16(b[ReservationDomID:], uint16(dom))
}

// struct mmuext_op, xen.h.
const (
	MMUExtPinL4Table = 3

	SizeofMMUExtOp = 24
	MMUExtCmd      = 0
	MMUExtArg1     = 8
)

// PutPinL4 encodes the mmuext_op that pins mfn as a top-level page table.
func PutPinL4(b []byte, mfn MFN) {
	clear(b[:SizeofMMUExtOp])
	le.PutUint32(b[MMUExtCmd:], MMUExtPinL4Table)
	le.PutUint64(b[MMUExtArg1:], uint64(mfn))
}

// struct evtchn_alloc_unbound, event_channel.h.
const (
	EvtchnOpAllocUnbound = 6

	SizeofAllocUnbound   = 8
	AllocUnboundDom      = 0
	AllocUnboundRemote   = 2
	AllocUnboundPort     = 4
	MaxEvtchnPortDefault = 1023
)

// PutAllocUnbound encodes struct evtchn_alloc_unbound: a new port of dom that
// only remote may bind to.
func PutAllocUnbound(b []byte, dom, remote DomID) {
	clear(b[:SizeofAllocUnbound])
	le.PutUint16(b[AllocUnboundDom:], uint16(dom))
	le.PutUint16(b[AllocUnboundRemote:], uint16(remote))
}

// GetAllocUnboundPort is the answer of EVTCHNOP_alloc_unbound.
func GetAllocUnboundPort(b []byte) Port { return Port(le.Uint32(b[AllocUnboundPort:])) }

// struct xen_sysctl and its getdomaininfolist, sysctl.h.
const (
	SysctlInterfaceVersion  = 0x15 // Xen 4.17 to 4.20
	SysctlGetDomainInfoList = 6

	SizeofSysctl          = 136
	SysctlCmd             = 0
	SysctlVersion         = 4
	SysctlU               = 8
	InfoListFirstDomain   = 0
	InfoListMaxDomains    = 4
	InfoListBuffer        = 8
	InfoListNumDomains    = 16
	SizeofDomainInfoList  = 24
	SysctlNumDomainsField = SysctlU + InfoListNumDomains
)

// PutDomainInfoList encodes the sysctl that describes up to max domains with
// ids of at least first into the array of getdomaininfo at address buf.
func PutDomainInfoList(b []byte, first DomID, max uint32, buf uint64) {
	PutSysctl(b, SysctlGetDomainInfoList)
	u := b[SysctlU:]
	le.PutUint16(u[InfoListFirstDomain:], uint16(first))
	le.PutUint32(u[InfoListMaxDomains:], max)
	le.PutUint64(u[InfoListBuffer:], buf)
}

// GetDomainInfoCount is the number of domains a getdomaininfolist answered.
func GetDomainInfoCount(b []byte) uint32 { return le.Uint32(b[SysctlNumDomainsField:]) }
