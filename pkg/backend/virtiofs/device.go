// SPDX-License-Identifier: Apache-2.0

package virtiofs

import (
	"errors"
	"sync"

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

	// run is what one Start made and Stop ends; nil in between. The loop's
	// calls never overlap, so it needs no lock.
	run *run
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
	r := &run{
		srv:  d.srv,
		env:  env,
		wake: make(chan struct{}, 1),
		stop: make(chan struct{}),
	}
	for _, q := range queues[:numQueues] {
		if q != nil {
			r.queues = append(r.queues, q)
		}
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

// Stop implements virtio.Device. It waits for requests under way, then closes
// every file of the guest and forgets its nodes.
func (d *Device) Stop() {
	if d.run == nil {
		return
	}
	close(d.run.stop)
	d.run.wg.Wait()
	d.run = nil
	d.srv.Reset()
}

// run is the device between Start and Stop: workers that are all alike. One
// that is idle is woken, takes a request, wakes the next if there is more, and
// carries out its own, so that a lone request changes goroutines once and a slow
// one holds up no other.
type run struct {
	srv    *vfs.Server
	env    virtio.Env
	queues []*virtq.Queue
	wake   chan struct{} // holds one token: somebody look at the queues
	stop   chan struct{}
	wg     sync.WaitGroup
	failed sync.Once
}

func (r *run) signal() {
	select {
	case r.wake <- struct{}{}:
	default: // whoever takes the token that is there will see it all
	}
}

func (r *run) work() {
	for {
		q, c, err := r.take()
		switch {
		case err != nil:
			r.fail(err)
			return
		case c != nil:
			n := r.srv.Handle(c.Readable, c.Writable)
			if q.Push(c, uint32(n)) == nil && q.NeedSignal() {
				r.env.Notify()
			}
		default:
			select {
			case <-r.wake:
			case <-r.stop:
				return
			}
		}
		select {
		case <-r.stop:
			return
		default:
		}
	}
}

// take returns the next request and its queue, or no chain if there is none.
// Before it returns, each queue is armed, or another worker woken.
func (r *run) take() (*virtq.Queue, *virtq.Chain, error) {
	for {
		var from *virtq.Queue
		var chain *virtq.Chain
		for _, q := range r.queues {
			c, err := q.Pop()
			if err != nil {
				return nil, nil, err
			}
			if c != nil {
				from, chain = q, c
				break
			}
		}
		more := false
		for _, q := range r.queues {
			more = q.Arm() || more
		}
		if more && chain == nil {
			continue
		}
		if more {
			r.signal()
		}
		return from, chain, nil
	}
}

// fail reports why the device cannot go on, once. A queue that was stopped is no
// failure: Stop follows.
func (r *run) fail(err error) {
	if errors.Is(err, virtq.ErrStopped) {
		return
	}
	r.failed.Do(func() { r.env.Fail(err) })
}
