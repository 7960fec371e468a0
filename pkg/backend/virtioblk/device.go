// SPDX-License-Identifier: Apache-2.0

package virtioblk

import (
	"errors"
	"os"

	"github.com/xcontainer/xcontainer/pkg/backend/iovec"
	"github.com/xcontainer/xcontainer/pkg/backend/virtio"
	"github.com/xcontainer/xcontainer/pkg/backend/virtq"
	"github.com/xcontainer/xcontainer/pkg/noxs"
)

// workers is how many requests of one disk are carried out at once. Each may
// wait for the host's disk.
const workers = 8

// errNoQueue says that the driver started the device without its queue.
var errNoQueue = errors.New("virtioblk: no queue")

// Device is one disk of one domain. It implements virtio.Device.
type Device struct {
	disk *disk

	// workers are what one Start made and Stop ends; nil in between. The
	// loop's calls never overlap, so they need no lock.
	workers *virtio.Workers
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

// Stats is what the disk has done since it exists. It may be called at any time.
func (d *Device) Stats() iovec.IO { return d.disk.stats.Load() }

// Start implements virtio.Device.
func (d *Device) Start(queues []*virtq.Queue, features uint64, env virtio.Env) error {
	if len(queues) == 0 || queues[0] == nil {
		return errNoQueue
	}
	d.workers = virtio.StartWorkers(workers, queues[:1], env, func(c *virtq.Chain) (uint32, error) {
		return uint32(c.WriteLen()), handle(d.disk, features, c)
	})
	return nil
}

// Kick implements virtio.Device.
func (d *Device) Kick() {
	if d.workers != nil {
		d.workers.Kick()
	}
}

// Stop implements virtio.Device. It waits for the requests under way.
func (d *Device) Stop() {
	if d.workers == nil {
		return
	}
	d.workers.Stop()
	d.workers = nil
}
