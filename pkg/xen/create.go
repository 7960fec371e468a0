// SPDX-License-Identifier: Apache-2.0

package xen

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/xcontainer/xcontainer/pkg/noxs"
	"github.com/xcontainer/xcontainer/pkg/xen/abi"
	"github.com/xcontainer/xcontainer/pkg/xen/pv"
)

const (
	// MemorySlackKiB is what a domain may hold above its memory; libxl gives
	// the same. Info.MaxPages includes it.
	MemorySlackKiB = 1024
	// bigOrder is the order of 2 MiB extents.
	bigOrder = 9
	bigPages = 1 << bigOrder
	// undoTimeout bounds the removal of a domain whose build failed.
	undoTimeout = 30 * time.Second
)

// builder is one run of Create.
type builder struct {
	hv     Hypervisor
	config Config
	plan   *pv.Plan
	dom    *Domain
	info   Info
}

// Create builds a domain and leaves it paused. On any error, and when ctx ends
// before the domain is built, nothing of it is left behind.
func (h *Host) Create(ctx context.Context, c Config) (*Domain, error) {
	d, err := h.create(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("xen: create domain %s: %w", c.UUID, err)
	}
	return d, nil
}

func (h *Host) create(ctx context.Context, c Config) (*Domain, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	plan, err := pv.NewPlan(c.Kernel, pv.Sizes{
		Pages:     c.MemoryKiB * 1024 / abi.PageSize,
		Pool:      uint64(c.Layout.PoolPages),
		Initramfs: uint64(len(c.Initramfs)),
	})
	if err != nil {
		return nil, err
	}
	b := &builder{hv: h.hv, config: c, plan: plan, dom: &Domain{hv: h.hv, uuid: c.UUID}}
	if err := b.timed(ctx, "createdomain", b.empty); err != nil {
		return nil, err
	}
	if err := b.build(ctx); err != nil {
		// ctx may be the reason for the failure.
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		return nil, errors.Join(err, b.dom.Destroy(undo))
	}
	return b.dom, nil
}

// timed runs a step unless ctx has ended.
func (b *builder) timed(ctx context.Context, name string, step func() error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("before step %s: %w", name, err)
	}
	start := time.Now()
	err := step()
	if b.config.Step != nil {
		b.config.Step(name, time.Since(start))
	}
	return err
}

// empty makes the domain without anything in it. It is the only step that has
// nothing to undo when it fails.
func (b *builder) empty() error {
	id, err := b.hv.CreateDomain(abi.CreateDomain{
		Handle:             b.config.UUID,
		MaxVCPUs:           b.config.VCPUs,
		MaxEvtchnPort:      abi.MaxEvtchnPortDefault,
		MaxGrantFrames:     -1,
		MaxMaptrackFrames:  -1,
		MaxGrantTabVersion: 1,
	})
	b.dom.id = id
	return err
}

// build does everything after the domain exists.
func (b *builder) build(ctx context.Context) error {
	if b.config.Created != nil {
		if err := b.config.Created(b.dom.id); err != nil {
			return fmt.Errorf("record the new domain %d: %w", b.dom.id, err)
		}
	}
	if err := b.limits(); err != nil {
		return err
	}
	if err := b.timed(ctx, "populate", b.populate); err != nil {
		return err
	}
	if err := b.fill(ctx); err != nil {
		return err
	}
	return b.timed(ctx, "pin", b.start)
}

func (b *builder) limits() error {
	id := b.dom.id
	if err := b.hv.SetMaxVCPUs(id, b.config.VCPUs); err != nil {
		return err
	}
	// As programs of a container read it under runc. Xen's default is a trap for
	// each reading if CPUs' counters differ or may stop; the guest's kernel needs
	// none of that, as Xen tells it the counter's relation to time for each CPU.
	if err := b.hv.SetTSC(id, abi.TSCModeNative); err != nil {
		return err
	}
	if b.config.Weight != 0 || b.config.Cap != 0 {
		if err := setSchedule(b.hv, id, b.config.VCPUs, b.config.Weight, b.config.Cap); err != nil {
			return err
		}
	}
	return b.hv.SetMaxMem(id, b.config.MemoryKiB+MemorySlackKiB)
}

// populate gives the domain its memory, in 2 MiB pieces as far as there are any.
// The claim makes several builds at once fail early instead of all half way.
func (b *builder) populate() error {
	id, pages := b.dom.id, b.plan.NrPages
	if err := b.hv.Claim(id, pages); err != nil {
		return err
	}
	frames := make([]abi.MFN, 0, pages)
	var big []abi.PFN
	for p := uint64(0); p+bigPages <= pages; p += bigPages {
		big = append(big, abi.PFN(p))
	}
	if len(big) > 0 {
		got, err := b.hv.Populate(id, bigOrder, big)
		if err != nil {
			return err
		}
		for _, first := range got {
			for i := range abi.MFN(bigPages) {
				frames = append(frames, first+i)
			}
		}
	}
	if rest := pages - uint64(len(frames)); rest > 0 {
		small := make([]abi.PFN, rest)
		for i := range small {
			small[i] = abi.PFN(len(frames) + i)
		}
		got, err := b.hv.Populate(id, 0, small)
		if err != nil {
			return err
		}
		frames = append(frames, got...)
	}
	if n := uint64(len(frames)); n < pages {
		return fmt.Errorf("populate %d KiB: Xen had %d KiB: %w", pages*4, n*4, ErrNoMemory)
	}
	b.dom.frames = frames
	return nil
}

// fill writes the domain's memory. Its mapping ends before the page tables are
// pinned, which Xen refuses while anybody maps them writable.
func (b *builder) fill(ctx context.Context) (err error) {
	info, err := infoOf(b.hv, b.dom.id, b.dom.uuid)
	if err != nil {
		return err
	}
	b.info = info
	var page []byte
	if err = b.timed(ctx, "ports", func() (err error) { page, err = b.devicePage(); return err }); err != nil {
		return err
	}
	var img *pv.Image
	unmap := func() error { return nil }
	defer func() { err = errors.Join(err, unmap()) }()
	if err = b.timed(ctx, "load", func() (err error) {
		if img, unmap, err = b.mapImage(page); err == nil {
			img.Load()
		}
		return err
	}); err != nil {
		return err
	}
	if err = b.timed(ctx, "tables", func() error { img.Tables(); return nil }); err != nil {
		return err
	}
	return b.timed(ctx, "devices", func() error {
		img.Devices()
		return errors.Join(unmap(), b.sharedInfo())
	})
}

// mapImage maps what the plan wants written. unmap is never nil.
func (b *builder) mapImage(page []byte) (img *pv.Image, unmap func() error, err error) {
	none := func() error { return nil }
	var frames []abi.MFN
	for _, r := range b.plan.LoadRanges() {
		frames = append(frames, b.dom.frames[r.First:uint64(r.First)+r.Pages]...)
	}
	mem, unmap, err := b.hv.Map(b.dom.id, frames, true)
	if err != nil {
		return nil, none, err
	}
	img, err = b.plan.NewImage(mem, pv.Values{
		Frames:      b.dom.frames,
		SharedInfo:  b.info.sharedInfo,
		ConsolePort: b.dom.ports.console,
		CmdLine:     b.config.Cmdline,
		DevicePage:  page,
		Initramfs:   b.config.Initramfs,
	})
	return img, unmap, err
}

// devicePage allocates the domain's event channels and encodes the device page.
func (b *builder) devicePage() ([]byte, error) {
	p := &b.dom.ports
	p.devices = make([]abi.Port, len(b.config.Layout.Devices))
	all := []*abi.Port{&p.console, &p.doorbell}
	for i := range p.devices {
		all = append(all, &p.devices[i])
	}
	for _, port := range all {
		var err error
		if *port, err = b.hv.AllocPort(b.dom.id); err != nil {
			return nil, err
		}
	}
	var seed [noxs.SeedSize]byte
	// It never fails; the runtime ends the program instead.
	_, _ = rand.Read(seed[:])
	return noxs.Encode(withPorts(b.config.Layout, *p), seed)
}

func (b *builder) sharedInfo() error {
	mem, unmap, err := b.hv.Map(b.dom.id, []abi.MFN{b.info.sharedInfo}, true)
	if err != nil {
		return err
	}
	abi.PutSharedInfo(mem)
	return unmap()
}

// start makes the page tables known to Xen and sets the first virtual CPU.
func (b *builder) start() error {
	d, p := b.dom, b.plan
	if err := b.hv.PinL4(d.id, d.frames[p.Root()]); err != nil {
		return err
	}
	if err := b.hv.SetVCPU(d.id, p.Entry(d.frames)); err != nil {
		return err
	}
	// Of all frames only these are needed from here on.
	d.share = makeShare(d, p)
	d.frames = nil
	return nil
}
