// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"errors"
	"sync"

	"github.com/xcontainer/xcontainer/pkg/backend/virtq"
)

// Workers carry out the requests of a device, which are answered in whatever
// order they are done. All are alike: one that is idle is woken, takes a request,
// wakes the next if there is more, and carries out its own, so that a lone
// request changes goroutines once and a slow one holds up no other.
type Workers struct {
	queues []*virtq.Queue
	env    Env
	handle func(*virtq.Chain) (written uint32, err error)
	wake   chan struct{} // holds one token: somebody look at the queues
	stop   chan struct{}
	wg     sync.WaitGroup
	failed sync.Once
}

// StartWorkers starts n workers on the queues, of which the earlier come first.
// handle carries out one request, on any of their goroutines, and says how many
// bytes it has written; an error means that the device cannot go on. So does a
// fault on guest memory, as with Guard.
func StartWorkers(n int, queues []*virtq.Queue, env Env, handle func(*virtq.Chain) (written uint32, err error)) *Workers {
	w := &Workers{
		queues: queues,
		env:    env,
		handle: handle,
		wake:   make(chan struct{}, 1),
		stop:   make(chan struct{}),
	}
	for range n {
		w.wg.Go(w.work)
	}
	return w
}

// Kick says that there may be requests. It does not block.
func (w *Workers) Kick() {
	select {
	case w.wake <- struct{}{}:
	default: // whoever takes the token that is there will see it all
	}
}

// Stop ends the workers and waits for the requests under way. It is called once.
func (w *Workers) Stop() {
	close(w.stop)
	w.wg.Wait()
}

// work is one worker. A queue that was stopped is no failure: Stop follows.
func (w *Workers) work() {
	err := Guard(w.serve)
	if err != nil && !errors.Is(err, virtq.ErrStopped) {
		w.failed.Do(func() { w.env.Fail(err) })
	}
}

// serve carries out requests until the device is stopped.
func (w *Workers) serve() error {
	for {
		select {
		case <-w.stop:
			return nil
		default:
		}
		q, c, err := w.take()
		if err != nil {
			return err
		}
		if c == nil {
			select {
			case <-w.wake:
				continue
			case <-w.stop:
				return nil
			}
		}
		n, err := w.handle(c)
		if err != nil {
			return err
		}
		if err := q.Push(c, n); err != nil {
			return err
		}
		if q.NeedSignal() {
			w.env.Notify()
		}
	}
}

// take returns the next request and its queue, or no chain if there is none.
// Before it returns, each queue is armed, or another worker woken.
func (w *Workers) take() (*virtq.Queue, *virtq.Chain, error) {
	for {
		var from *virtq.Queue
		var chain *virtq.Chain
		for _, q := range w.queues {
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
		for _, q := range w.queues {
			more = q.Arm() || more
		}
		if more && chain == nil {
			continue
		}
		if more {
			w.Kick()
		}
		return from, chain, nil
	}
}
