// SPDX-License-Identifier: Apache-2.0

package xen

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/xcontainer/xcontainer/pkg/xen/abi"
	"github.com/xcontainer/xcontainer/pkg/xen/evtchn"
	"github.com/xcontainer/xcontainer/pkg/xen/hypercall"
)

// Version names the Xen that Open found.
type Version = hypercall.Version

// Hypervisor is what the toolstack asks of Xen: *hypercall.Door, or the
// hypervisor in memory of package xentest. Methods are documented at Door.
type Hypervisor interface {
	Version() hypercall.Version
	CreateDomain(abi.CreateDomain) (abi.DomID, error)
	DestroyDomain(abi.DomID) error
	PauseDomain(abi.DomID) error
	UnpauseDomain(abi.DomID) error
	DomainInfo(abi.DomID) (abi.DomainInfo, error)
	DomainInfos() ([]abi.DomainInfo, error)
	HostInfo() (abi.HostInfo, error)
	SetMaxMem(dom abi.DomID, kib uint64) error
	SetMaxVCPUs(dom abi.DomID, n uint32) error
	SetCredit2(dom abi.DomID, weight, limit uint16) error
	SetTSC(abi.DomID, abi.TSCMode) error
	SetVCPU(abi.DomID, abi.EntryContext) error
	Claim(dom abi.DomID, pages uint64) error
	Populate(dom abi.DomID, order uint32, pfns []abi.PFN) ([]abi.MFN, error)
	Map(dom abi.DomID, frames []abi.MFN, writable bool) ([]byte, func() error, error)
	PinL4(dom abi.DomID, root abi.MFN) error
	AllocPort(abi.DomID) (abi.Port, error)
	OpenForeign(abi.DomID) (*os.File, error)
	OpenEvents() (Events, error)
	Close() error
}

// Events is a descriptor for event channels: *evtchn.Channels or its like.
type Events interface {
	Bind(remote abi.DomID, port abi.Port) (abi.Port, error)
	Restrict(abi.DomID) error
	File() *os.File
	Close() error
}

// machine is the real Xen.
type machine struct{ *hypercall.Door }

func (machine) OpenEvents() (Events, error) {
	c, err := evtchn.Open()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Host is a machine on which domains can be built. Its methods may be used from
// several goroutines.
type Host struct {
	hv Hypervisor
}

// Open opens Xen. The error is ErrNoXen on a machine without it, and ErrVersion
// if it is a release this package does not know.
func Open() (*Host, error) {
	door, err := hypercall.Open()
	if err != nil {
		return nil, err
	}
	return New(machine{door}), nil
}

// New makes a Host of any hypervisor, which it owns from then on.
func New(hv Hypervisor) *Host { return &Host{hv: hv} }

// Close releases what Open opened; domains stay. It may be called twice.
func (h *Host) Close() error { return h.hv.Close() }

// Version names the Xen that Open found.
func (h *Host) Version() Version { return h.hv.Version() }

// List describes all domains, dom0 included, in the order of their ids.
func (h *Host) List(ctx context.Context) ([]Info, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	raw, err := h.hv.DomainInfos()
	if err != nil {
		return nil, prefixed(err)
	}
	infos := make([]Info, len(raw))
	for i, r := range raw {
		infos[i] = makeInfo(r)
	}
	return infos, nil
}

// Lookup finds a domain by what Config.Created was told and Config.UUID. It is
// ErrNotFound if that domain is gone, whoever has its id now.
func (h *Host) Lookup(id abi.DomID, uuid abi.UUID) (*Domain, error) {
	d := &Domain{hv: h.hv, id: id, uuid: uuid}
	if _, err := d.Info(); err != nil {
		return nil, err
	}
	return d, nil
}

// Destroy is Lookup and Domain.Destroy of what that finds. A domain that is gone
// is no error, whoever has its id now.
func (h *Host) Destroy(ctx context.Context, id abi.DomID, uuid abi.UUID) error {
	d, err := h.Lookup(id, uuid)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return d.Destroy(ctx)
}

// infoOf describes the domain that has both id and uuid.
func infoOf(hv Hypervisor, id abi.DomID, uuid abi.UUID) (Info, error) {
	raw, err := hv.DomainInfo(id)
	if errors.Is(err, hypercall.ErrNoDomain) || err == nil && raw.Handle != uuid {
		return Info{}, fmt.Errorf("look up domain %d with uuid %s: %w", id, uuid, ErrNotFound)
	}
	if err != nil {
		return Info{}, err
	}
	return makeInfo(raw), nil
}
