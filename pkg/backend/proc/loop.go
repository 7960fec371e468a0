// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"fmt"
	"sync"

	"github.com/xcontainer/xcontainer/pkg/backend/virtio"
	"github.com/xcontainer/xcontainer/pkg/backend/virtq"
	"github.com/xcontainer/xcontainer/pkg/noxs"
)

// loop handles events and the guest's requests (docs/noxs.md 4).
type loop struct {
	p       *process
	devices []*device

	mu         sync.Mutex // held while events are handled, and by stop
	stopped    bool
	guestState uint32
}

// device is one entry of the device page.
type device struct {
	l     *loop
	index int
	decl  noxs.Device
	model virtio.Device

	// Guarded by loop.mu.
	lastReq    uint32
	features   uint64 // what the driver chose
	negotiated bool   // and what that is fit for use
	running    bool
	queues     []*virtq.Queue // nil where the driver uses none
}

func newLoop(p *process, l noxs.Layout) (*loop, error) {
	lp := &loop{p: p}
	seen := map[uint32]bool{}
	disks := p.disks
	for i, decl := range l.Devices {
		d := &device{l: lp, index: i, decl: decl}
		switch {
		case decl.ID == noxs.DeviceBlock && len(disks) > 0:
			d.model, disks = disks[0], disks[1:]
		case seen[decl.ID]:
		case decl.ID == noxs.DeviceVsock:
			d.model = p.vsock
		case decl.ID == noxs.DeviceFS && p.files != nil:
			d.model = p.files.virtio()
		}
		if d.model == nil {
			return nil, fmt.Errorf("device %d: no model for virtio id %d, or a second one", i, decl.ID)
		}
		seen[decl.ID] = true
		lp.devices = append(lp.devices, d)
	}
	return lp, nil
}

// run handles events until they are closed or something fails for good.
func (l *loop) run() {
	// What the guest did before this is seen without an event.
	buf := []int{Console, Doorbell}
	for i := range l.devices {
		buf = append(buf, i)
	}
	for {
		err := virtio.Guard(func() error { return l.handle(buf) })
		if err == nil {
			buf, err = l.p.h.Events.Next(buf[:0])
		}
		if err != nil {
			if !isClosed(err) {
				l.p.fail(fmt.Errorf("backend: events: %w", err))
			}
			return
		}
	}
}

func (l *loop) handle(sources []int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return nil
	}
	for _, s := range sources {
		switch {
		case s == Console:
			if l.p.console.Drain() {
				l.notify(Console)
			}
		case s == Doorbell:
			l.doorbell()
		case s >= 0 && s < len(l.devices):
			l.devices[s].event()
		default:
			return fmt.Errorf("event of unknown source %d", s)
		}
	}
	return nil
}

// notify sends the guest an event. A domain that has gone cannot take it, which
// the shim finds out in its own way.
func (l *loop) notify(source int) {
	if err := l.p.h.Events.Notify(source); err != nil && !isClosed(err) {
		l.p.o.Logf("backend: notify source %d: %v", source, err)
	}
}

// doorbell passes guest_state on. It only goes up, so that a guest that plays
// with it sends the shim no more than a handful of messages.
func (l *loop) doorbell() {
	if v := l.p.page.GuestState(); v > l.guestState && v <= noxs.GuestPowerOff {
		l.guestState = v
		l.p.server.GuestState(v) // fails only when the shim has gone
	}
}

// stop ends all devices; no event is handled afterwards.
func (l *loop) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
	for _, d := range l.devices {
		d.halt()
	}
}

// event handles an event of the device's port.
func (d *device) event() {
	page := d.l.p.page
	if seq := page.ReqSeq(d.index); seq != d.lastReq {
		d.lastReq = seq
		d.request(page.Status(d.index))
		page.SetAckSeq(d.index, seq)
		d.l.notify(d.index)
	}
	if d.running {
		d.model.Kick()
	}
}

// request carries out a change of status.
func (d *device) request(status uint32) {
	var err error
	switch {
	case status == 0 || status&noxs.StatusFailed != 0:
		d.halt()
		d.negotiated = false
		d.l.p.page.SetHostStatus(d.index, 0)
	case status&noxs.StatusDriverOK != 0:
		if !d.running {
			err = d.start()
		}
	case status&noxs.StatusFeaturesOK != 0:
		err = d.negotiate()
	}
	if err != nil {
		d.l.p.o.Logf("backend: device %d (virtio id %d): %v", d.index, d.decl.ID, err)
		d.needsReset()
	}
}

func (d *device) needsReset() {
	d.negotiated = false
	d.l.p.page.SetHostStatus(d.index, noxs.HostNeedsReset)
}

// negotiate takes the features that the driver chose.
func (d *device) negotiate() error {
	f := d.l.p.page.DriverFeatures(d.index)
	if f&^d.decl.Features != 0 || f&noxs.FeaturesRequired != noxs.FeaturesRequired {
		return fmt.Errorf("%w: features %#x of %#x", virtq.ErrGuest, f, d.decl.Features)
	}
	d.features, d.negotiated = f, true
	return nil
}

// start reads the queue blocks and starts the model.
func (d *device) start() error {
	if !d.negotiated {
		return fmt.Errorf("%w: started without features", virtq.ErrGuest)
	}
	queues := make([]*virtq.Queue, len(d.decl.Queues))
	for i, most := range d.decl.Queues {
		b := d.l.p.page.Queue(d.index, i)
		if b.Ready == 0 {
			continue
		}
		if b.Ready != 1 || b.Num > most {
			return fmt.Errorf("%w: queue %d: size %d of %d, ready %d", virtq.ErrGuest, i, b.Num, most, b.Ready)
		}
		q, err := virtq.New(d.l.p.h.Pool, d.queueConfig(b))
		if err != nil {
			return fmt.Errorf("queue %d: %w", i, err)
		}
		queues[i] = q
	}
	env := virtio.Env{
		Notify: func() { d.l.notify(d.index) },
		Fail:   func(err error) { go d.fail(err) },
	}
	if err := d.model.Start(queues, d.features, env); err != nil {
		return err
	}
	d.queues, d.running = queues, true
	return nil
}

func (d *device) queueConfig(b noxs.QueueBlock) virtq.Config {
	out := uint64(d.decl.SectionOff) * noxs.PageSize
	outLen := uint64(d.decl.OutPages) * noxs.PageSize
	return virtq.Config{
		Num: b.Num, Desc: b.Desc, Avail: b.Avail, Used: b.Used,
		OutOff: out, OutLen: outLen,
		InOff: out + outLen, InLen: uint64(d.decl.InPages) * noxs.PageSize,
		EventIdx: d.features&noxs.FeatureEventIdx != 0,
	}
}

// halt stops the model, if it runs. Nothing touches the device's rings or
// buffers afterwards.
func (d *device) halt() {
	if !d.running {
		return
	}
	d.running = false
	for _, q := range d.queues {
		if q != nil {
			q.Stop()
		}
	}
	d.model.Stop()
	d.queues = nil
}

// fail handles a device that cannot go on: the guest has broken the rules, and
// the domain is not served any further.
func (d *device) fail(err error) {
	d.l.mu.Lock()
	running := d.running
	if running {
		d.halt()
		d.needsReset()
		d.l.notify(d.index)
	}
	d.l.mu.Unlock()
	if running {
		d.l.p.fail(fmt.Errorf("backend: device %d (virtio id %d): %w", d.index, d.decl.ID, err))
	}
}
