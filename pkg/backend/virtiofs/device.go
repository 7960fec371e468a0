// SPDX-License-Identifier: Apache-2.0

package virtiofs

import (
	"errors"
	"slices"

	"github.com/xcontainer/xcontainer/pkg/backend/vfs"
	"github.com/xcontainer/xcontainer/pkg/backend/virtio"
	"github.com/xcontainer/xcontainer/pkg/backend/virtq"
)

// Queues of the device in the order of the device page. Forget requests come by
// the first, all others by the second.
const (
	queueHiprio = iota
	queueRequest
	numQueues
)

// workers is how many requests are carried out at once. Each may wait for a
// disk, and the processors of the host are not the bound then.
const workers = 16

// errNoQueue says that the driver started the device without a queue for
// requests.
var errNoQueue = errors.New("virtiofs: no request queue")

// Device is the device of one domain. It implements virtio.Device.
type Device struct {
	srv *vfs.Server

	// workers are what one Start made and Stop ends; nil in between. The
	// loop's calls never overlap, so they need no lock.
	workers *virtio.Workers
}

var _ virtio.Device = (*Device)(nil)

// New returns a device whose requests srv carries out. The caller keeps srv and
// its file system; Stop resets srv.
func New(srv *vfs.Server) *Device { return &Device{srv: srv} }

// Start implements virtio.Device.
func (d *Device) Start(queues []*virtq.Queue, _ uint64, env virtio.Env) error {
	if len(queues) < numQueues || queues[queueRequest] == nil {
		return errNoQueue
	}
	used := slices.DeleteFunc(slices.Clone(queues[:numQueues]), func(q *virtq.Queue) bool { return q == nil })
	d.workers = virtio.StartWorkers(workers, used, env, func(c *virtq.Chain) (uint32, error) {
		return uint32(d.srv.Handle(c.Readable, c.Writable)), nil
	})
	return nil
}

// Kick implements virtio.Device.
func (d *Device) Kick() {
	if d.workers != nil {
		d.workers.Kick()
	}
}

// Stop implements virtio.Device. It waits for requests under way, then closes
// every file of the guest and forgets its nodes.
func (d *Device) Stop() {
	if d.workers == nil {
		return
	}
	d.workers.Stop()
	d.workers = nil
	d.srv.Reset()
}
