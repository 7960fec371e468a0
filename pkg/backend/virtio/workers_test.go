// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/backend/virtq"
	"github.com/xcontainer/xcontainer/pkg/backend/virtq/virtqtest"
)

// queueNum is the size of each queue.
const queueNum = 16

// driver is the guest's half of some queues.
type driver struct {
	t      *testing.T
	halves []*virtqtest.Driver
	queues []*virtq.Queue
	events chan struct{}
	fails  chan error
}

func newDriver(t *testing.T, queues int) *driver {
	t.Helper()
	pool := virtqtest.NewPool(t, 128)
	sec := virtqtest.NewSection(pool, 0, 64, 64)
	d := &driver{t: t, events: make(chan struct{}, 1000), fails: make(chan error, 1000)}
	for range queues {
		h := sec.NewDriver(queueNum, true)
		q, err := virtq.New(pool, h.Config())
		if err != nil {
			t.Fatal(err)
		}
		d.halves, d.queues = append(d.halves, h), append(d.queues, q)
	}
	return d
}

func (d *driver) env() Env {
	return Env{
		Notify: func() { d.events <- struct{}{} },
		Fail:   func(err error) { d.fails <- err },
	}
}

// add posts a request of one byte with room for size bytes.
func (d *driver) add(queue int, id byte, size int) {
	d.t.Helper()
	if _, err := d.halves[queue].Add([][]byte{{id}}, []int{size}); err != nil {
		d.t.Fatal(err)
	}
}

// used waits for the next answer in a queue.
func (d *driver) used(queue int) []byte {
	d.t.Helper()
	for late := time.After(10 * time.Second); ; {
		if _, data, ok := d.halves[queue].Used(); ok {
			return data
		}
		if d.halves[queue].Arm() {
			continue
		}
		select {
		case <-d.events:
		case err := <-d.fails:
			d.t.Fatalf("failed: %v", err)
		case <-late:
			d.t.Fatal("no answer")
		}
	}
}

// end stops all as the loop does.
func (d *driver) end(w *Workers) {
	for _, q := range d.queues {
		q.Stop()
	}
	w.Stop()
}

// failure waits for what is reported.
func (d *driver) failure() error {
	d.t.Helper()
	select {
	case err := <-d.fails:
		return err
	case <-time.After(10 * time.Second):
		d.t.Fatal("no failure is reported")
		return nil
	}
}

// noMore sees to it that nothing else has been reported. It comes after end.
func (d *driver) noMore() {
	d.t.Helper()
	select {
	case err := <-d.fails:
		d.t.Errorf("reported too: %v", err)
	default:
	}
}

// TestWorkersOrder: a request of an earlier queue comes first, those of a queue
// in their order.
func TestWorkersOrder(t *testing.T) {
	d := newDriver(t, 3)
	var got []byte
	for _, r := range []struct {
		queue int
		id    byte
	}{{2, 'e'}, {1, 'c'}, {0, 'a'}, {2, 'f'}, {1, 'd'}, {0, 'b'}} {
		d.add(r.queue, r.id, 4)
	}
	w := StartWorkers(1, d.queues, d.env(), func(c *virtq.Chain) (uint32, error) {
		got = append(got, c.Readable[0][0])
		return uint32(copy(c.Writable[0], []byte{c.Readable[0][0], '!'})), nil
	})
	w.Kick()
	for i, want := range [][]string{{"a!", "b!"}, {"c!", "d!"}, {"e!", "f!"}} {
		for _, s := range want {
			if data := d.used(i); string(data) != s {
				t.Errorf("queue %d: answer %q, want %q", i, data, s)
			}
		}
	}
	d.end(w)
	if string(got) != "abcdef" {
		t.Errorf("carried out %q", got)
	}
	d.noMore()
}

// TestWorkersSideBySide: as many requests as there are workers are carried out
// at once, with one kick.
func TestWorkersSideBySide(t *testing.T) {
	const n = 4
	d := newDriver(t, 2)
	var wg sync.WaitGroup
	wg.Add(n)
	w := StartWorkers(n, d.queues, d.env(), func(*virtq.Chain) (uint32, error) {
		wg.Done()
		wg.Wait() // until all are here
		return 1, nil
	})
	for i := range n {
		d.add(i%2, 'x', 1)
	}
	w.Kick()
	for i := range n {
		d.used(i % 2)
	}
	d.end(w)
	d.noMore()
}

// TestWorkersStopWaits: Stop returns when the request under way is done, which is
// no failure though its queue has been stopped.
func TestWorkersStopWaits(t *testing.T) {
	d := newDriver(t, 1)
	begun, goOn := make(chan struct{}), make(chan struct{})
	var done atomic.Bool
	w := StartWorkers(3, d.queues, d.env(), func(*virtq.Chain) (uint32, error) {
		close(begun)
		<-goOn
		done.Store(true)
		return 1, nil
	})
	d.add(0, 'x', 1)
	w.Kick()
	<-begun
	stopped := make(chan bool)
	go func() {
		d.end(w)
		stopped <- done.Load()
	}()
	select {
	case <-stopped:
		t.Error("stopped with a request under way")
	case <-time.After(20 * time.Millisecond):
	}
	close(goOn)
	if !<-stopped {
		t.Error("stopped before the request was done")
	}
	if _, _, ok := d.halves[0].Used(); ok {
		t.Error("a stopped queue has an answer")
	}
	d.noMore()
}

// TestWorkersFailOnce: of the failures of all workers one is reported.
func TestWorkersFailOnce(t *testing.T) {
	const n = 4
	own := errors.New("own")
	gone, err := unix.Mmap(-1, 0, 4096, unix.PROT_NONE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(gone)
	for name, c := range map[string]struct {
		fail  func() error
		check func(error) bool
	}{
		"error": {func() error { return own }, func(err error) bool { return err == own }},
		"fault": {func() error { gone[1] = 1; return nil }, func(err error) bool { return err != nil && err != own }},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDriver(t, 1)
			var wg sync.WaitGroup
			wg.Add(n)
			w := StartWorkers(n, d.queues, d.env(), func(*virtq.Chain) (uint32, error) {
				wg.Done()
				wg.Wait()
				return 0, c.fail()
			})
			for range n {
				d.add(0, 'x', 1)
			}
			w.Kick()
			if err := d.failure(); !c.check(err) {
				t.Errorf("reported %v", err)
			}
			d.end(w)
			d.noMore()
		})
	}
}

// TestWorkersBrokenRing: what the guest does to any of the queues ends all.
func TestWorkersBrokenRing(t *testing.T) {
	for _, broken := range []int{0, 1} {
		d := newDriver(t, 2)
		w := StartWorkers(3, d.queues, d.env(), func(*virtq.Chain) (uint32, error) { return 0, nil })
		d.halves[broken].Publish(queueNum + 1)
		w.Kick()
		if err := d.failure(); !errors.Is(err, virtq.ErrGuest) {
			t.Errorf("queue %d: reported %v", broken, err)
		}
		d.end(w)
		d.noMore()
	}
}

// TestWorkersKick does not block, whatever the workers do.
func TestWorkersKick(t *testing.T) {
	d := newDriver(t, 1)
	begun, goOn := make(chan struct{}), make(chan struct{})
	var ids []byte
	w := StartWorkers(1, d.queues, d.env(), func(c *virtq.Chain) (uint32, error) {
		ids = append(ids, c.Readable[0][0])
		begun <- struct{}{}
		<-goOn
		return 0, nil
	})
	d.add(0, '1', 1)
	w.Kick()
	<-begun
	d.add(0, '2', 1)
	for range 10 {
		w.Kick()
	}
	close(goOn)
	<-begun
	d.used(0)
	d.used(0)
	d.end(w)
	if !slices.Equal(ids, []byte("12")) {
		t.Errorf("carried out %q", ids)
	}
	d.noMore()
}
