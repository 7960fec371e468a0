// SPDX-License-Identifier: Apache-2.0

package xen

import (
	"errors"
	"fmt"
	"os"

	"github.com/xcontainer/xcontainer/pkg/xen/abi"
	"github.com/xcontainer/xcontainer/pkg/xen/foreign"
	"github.com/xcontainer/xcontainer/pkg/xen/pv"
)

// Ports are the near ends of a domain's event channels: numbers of the calling
// domain, valid for copies of BackendHandles.Evtchn. They travel as JSON.
type Ports struct {
	Console  abi.Port   `json:"console"`
	Doorbell abi.Port   `json:"doorbell"`
	Devices  []abi.Port `json:"devices"` // in the order of the layout
}

// BackendHandles are what a domain's back-end process gets. The receiver of
// BackendHandles owns the files; passing them on copies them.
type BackendHandles struct {
	// Privcmd can map the domain's memory and can do nothing else.
	Privcmd *os.File
	// Evtchn holds all near ends; its closing in the last process ends them.
	Evtchn *os.File
	Map    foreign.MapSpec
	Ports  Ports
}

// Close closes both files. It may be called twice.
func (h BackendHandles) Close() error {
	var err error
	for _, f := range []*os.File{h.Privcmd, h.Evtchn} {
		if cerr := f.Close(); !errors.Is(cerr, os.ErrClosed) {
			err = errors.Join(err, cerr)
		}
	}
	return err
}

// share is what a builder knows of the memory that back-ends map.
type share struct {
	spec foreign.MapSpec
}

func makeShare(d *Domain, p *pv.Plan) *share {
	pool := d.frames[p.Device+1 : p.Device+1+abi.PFN(p.PoolPages)]
	return &share{spec: foreign.MapSpec{
		DomID:   d.id,
		Page:    d.frames[p.Device],
		Pool:    append([]abi.MFN(nil), pool...),
		Console: d.frames[p.Console],
	}}
}

// BackendHandles binds the domain's event channels and opens the way to its
// shared memory. Call it once, before Unpause: what the guest sends to a port
// that nobody has bound is lost, and a port is bound only once.
func (d *Domain) BackendHandles() (BackendHandles, error) {
	h, err := d.backendHandles()
	if err != nil {
		return h, fmt.Errorf("xen: open back-end of domain %d: %w", d.id, err)
	}
	return h, nil
}

func (d *Domain) backendHandles() (h BackendHandles, err error) {
	if d.share == nil {
		return h, ErrNotBuilder
	}
	if _, err := infoOf(d.hv, d.id, d.uuid); err != nil {
		return h, err
	}
	events, err := d.hv.OpenEvents()
	if err != nil {
		return h, err
	}
	near, err := d.bind(events)
	if err == nil {
		err = events.Restrict(d.id)
	}
	if err != nil {
		return h, errors.Join(err, events.Close())
	}
	privcmd, err := d.hv.OpenForeign(d.id)
	if err != nil {
		return h, errors.Join(err, events.Close())
	}
	return BackendHandles{Privcmd: privcmd, Evtchn: events.File(), Map: d.share.spec, Ports: near}, nil
}

func (d *Domain) bind(e Events) (Ports, error) {
	near := Ports{Devices: make([]abi.Port, len(d.ports.devices))}
	type end struct {
		far  abi.Port
		near *abi.Port
	}
	all := []end{{d.ports.console, &near.Console}, {d.ports.doorbell, &near.Doorbell}}
	for i, far := range d.ports.devices {
		all = append(all, end{far, &near.Devices[i]})
	}
	for _, p := range all {
		var err error
		if *p.near, err = e.Bind(d.id, p.far); err != nil {
			return near, err
		}
	}
	return near, nil
}
