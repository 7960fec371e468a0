// SPDX-License-Identifier: Apache-2.0

package virtioblk

import (
	"errors"
	"os"
	"sync"

	"github.com/xcontainer/xcontainer/pkg/backend/virtio"
	"github.com/xcontainer/xcontainer/pkg/backend/virtq"
	"github.com/xcontainer/xcontainer/pkg/noxs"
)

// workers is how many requests of one disk are carried out at once. Each may
// wait for the host's disk.
const workers = 8

// errNoQueue says that the driver started the device without its queue.
var errNoQueue = errors.New("virtioblk: no queue")

// Stats are what a disk has done since it exists.
type Stats struct {
	ReadOps, ReadBytes, WriteOps, WriteBytes uint64
}

// Device is one disk of one domain. It implements virtio.Device.
type Device struct {
	disk *disk

	// run is what one Start made and Stop ends; nil in between. The loop's
	// calls never overlap, so it needs no lock.
	run *run
}

var _ virtio.Device = (*Device)(nil)

// New returns a device that serves the regular file or block device f as d says.
// id is what the guest sees as the disk's serial number, of which it gets 20
// bytes. New owns f, also when it fails; Close closes it.
func New(f *os.File, id string, d noxs.Disk) (*Device, error) {
	k, err := newDisk(f, id, d)
	if err != nil {
		return nil, err
	}
	return &Device{disk: k}, nil
}

// Close closes the file. It comes after Stop.
func (d *Device) Close() error { return d.disk.file.Close() }

// Stats may be called at any time.
func (d *Device) Stats() Stats {
	s := &d.disk.stats
	return Stats{
		ReadOps: s.readOps.Load(), ReadBytes: s.readBytes.Load(),
		WriteOps: s.writeOps.Load(), WriteBytes: s.writeBytes.Load(),
	}
}

// Start implements virtio.Device.
func (d *Device) Start(queues []*virtq.Queue, features uint64, env virtio.Env) error {
	if len(queues) == 0 || queues[0] == nil {
		return errNoQueue
	}
	r := &run{
		disk:     d.disk,
		features: features,
		env:      env,
		queue:    queues[0],
		wake:     make(chan struct{}, 1),
		stop:     make(chan struct{}),
	}
	for range workers {
		r.wg.Go(r.work)
	}
	d.run = r
	return nil
}

// Kick implements virtio.Device.
func (d *Device) Kick() {
	if d.run != nil {
		d.run.signal()
	}
}

// Stop implements virtio.Device. It waits for the requests under way.
func (d *Device) Stop() {
	if d.run == nil {
		return
	}
	close(d.run.stop)
	d.run.wg.Wait()
	d.run = nil
}

// run is the device between Start and Stop: workers that are all alike. One
// that is idle is woken, takes a request, wakes the next if there is more, and
// carries out its own.
type run struct {
	disk     *disk
	features uint64
	env      virtio.Env
	queue    *virtq.Queue
	wake     chan struct{} // holds one token: somebody look at the queue
	stop     chan struct{}
	wg       sync.WaitGroup
	failed   sync.Once
}

func (r *run) signal() {
	select {
	case r.wake <- struct{}{}:
	default: // whoever takes the token that is there will see it all
	}
}

// work is one worker. A queue that was stopped is no failure: Stop follows.
func (r *run) work() {
	err := virtio.Guard(r.serve)
	if err != nil && !errors.Is(err, virtq.ErrStopped) {
		r.failed.Do(func() { r.env.Fail(err) })
	}
}

// serve carries out requests until the device is stopped.
func (r *run) serve() error {
	for {
		select {
		case <-r.stop:
			return nil
		default:
		}
		c, err := r.take()
		if err != nil {
			return err
		}
		if c == nil {
			select {
			case <-r.wake:
				continue
			case <-r.stop:
				return nil
			}
		}
		if err := handle(r.disk, r.features, c); err != nil {
			return err
		}
		if err := r.queue.Push(c, uint32(c.WriteLen())); err != nil {
			return err
		}
		if r.queue.NeedSignal() {
			r.env.Notify()
		}
	}
}

// take returns the next request, or none. Before it returns, the queue is
// armed, or another worker woken.
func (r *run) take() (*virtq.Chain, error) {
	for {
		c, err := r.queue.Pop()
		if err != nil {
			return nil, err
		}
		more := r.queue.Arm()
		if more && c == nil {
			continue
		}
		if more {
			r.signal()
		}
		return c, nil
	}
}
