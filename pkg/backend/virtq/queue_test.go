// SPDX-License-Identifier: Apache-2.0

package virtq_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/xcontainer/xcontainer/pkg/backend/virtq"
	"github.com/xcontainer/xcontainer/pkg/backend/virtq/virtqtest"
)

const (
	outPages = 16
	inPages  = 16
	secPage  = 1 // page 0 and the last belong to another device
	pages    = secPage + outPages + inPages + 1

	outStart = secPage * 4096
	inStart  = (secPage + outPages) * 4096
	inEnd    = (secPage + outPages + inPages) * 4096
)

func pair(t testing.TB, num int, eventIdx bool) (*virtq.Queue, *virtqtest.Driver) {
	t.Helper()
	pool := virtqtest.NewPool(t, pages)
	d := virtqtest.NewSection(pool, secPage, outPages, inPages).NewDriver(num, eventIdx)
	q, err := virtq.New(pool, d.Config())
	if err != nil {
		t.Fatal(err)
	}
	return q, d
}

func TestRoundTrip(t *testing.T) {
	for _, eventIdx := range []bool{false, true} {
		q, d := pair(t, 8, eventIdx)
		for i := range 70000 { // the indices wrap
			want := []byte{byte(i), byte(i >> 8)}
			head, err := d.Add([][]byte{want, {0xff}}, []int{3})
			if err != nil {
				t.Fatal(err)
			}
			c, err := q.Pop()
			if err != nil || c == nil {
				t.Fatalf("pop %d: %v, %v", i, c, err)
			}
			if len(c.Readable) != 2 || !bytes.Equal(c.Readable[0], want) || len(c.Writable) != 1 {
				t.Fatalf("chain %d: %+v", i, c)
			}
			if c.ReadLen() != 3 || c.WriteLen() != 3 {
				t.Fatalf("lengths %d, %d", c.ReadLen(), c.WriteLen())
			}
			copy(c.Writable[0], want)
			if err := q.Push(c, 2); err != nil {
				t.Fatal(err)
			}
			got, data, ok := d.Used()
			if !ok || got != head || !bytes.Equal(data, want) {
				t.Fatalf("used %d: %v, %v, %v", i, got, data, ok)
			}
		}
		if c, err := q.Pop(); c != nil || err != nil {
			t.Fatalf("pop of an empty queue: %v, %v", c, err)
		}
	}
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	q, d := pair(t, 8, true)
	d.WriteDesc(0, outStart+8192, 10, 1, 1)
	d.WriteDesc(1, inStart, 10, 2, 0)
	n := testing.AllocsPerRun(100, func() {
		d.Publish(0)
		c, err := q.Pop()
		if err != nil {
			t.Fatal(err)
		}
		q.Push(c, 1)
		q.NeedSignal()
		q.Arm()
	})
	if n != 0 {
		t.Errorf("%v allocations per buffer", n)
	}
}

func TestSuppression(t *testing.T) {
	for _, eventIdx := range []bool{false, true} {
		q, d := pair(t, 8, eventIdx)
		use := func() {
			c, err := q.Pop()
			if err != nil || c == nil {
				t.Fatal(c, err)
			}
			q.Push(c, 0)
		}
		add := func() {
			if _, err := d.Add([][]byte{{1}}, nil); err != nil {
				t.Fatal(err)
			}
		}
		// guest to host
		if q.Arm() {
			t.Fatal("empty queue has buffers")
		}
		add()
		if !d.NeedKick() {
			t.Error("armed device wants no kick")
		}
		if !q.Arm() {
			t.Error("Arm overlooks a buffer")
		}
		q.Disarm()
		use()
		add()
		if eventIdx {
			d.NeedKick() // the event index is where Arm left it
			add()
			use()
		}
		if d.NeedKick() {
			t.Error("polling device wants a kick")
		}
		use()
		if q.Arm() {
			t.Error("drained queue has buffers")
		}
		// host to guest
		for _, _, ok := d.Used(); ok; _, _, ok = d.Used() {
		}
		q.NeedSignal()
		if d.Arm() {
			t.Error("drained used ring has entries")
		}
		if q.NeedSignal() {
			t.Error("signal without a used buffer")
		}
		add()
		use()
		if !q.NeedSignal() {
			t.Error("armed driver gets no signal")
		}
		if q.NeedSignal() {
			t.Error("second signal for one buffer")
		}
		d.Disarm()
		add()
		use()
		if q.NeedSignal() {
			t.Error("driver that polls gets a signal")
		}
	}
}

func TestHostile(t *testing.T) {
	const buf = outStart + 8192
	for name, f := range map[string]func(d *virtqtest.Driver){
		"index jumps":       func(d *virtqtest.Driver) { d.SetAvail(9) },
		"index goes back":   func(d *virtqtest.Driver) { d.SetAvail(0xffff) },
		"head out of range": func(d *virtqtest.Driver) { d.Publish(8) },
		"loop to itself":    func(d *virtqtest.Driver) { d.WriteDesc(0, buf, 1, 1, 0); d.Publish(0) },
		"loop":              func(d *virtqtest.Driver) { d.WriteDesc(0, buf, 1, 1, 1); d.WriteDesc(1, buf, 1, 1, 0); d.Publish(0) },
		"next out of range": func(d *virtqtest.Driver) { d.WriteDesc(0, buf, 1, 1, 8); d.Publish(0) },
		"zero length":       func(d *virtqtest.Driver) { d.WriteDesc(0, buf, 0, 0, 0); d.Publish(0) },
		"below section":     func(d *virtqtest.Driver) { d.WriteDesc(0, outStart-1, 2, 0, 0); d.Publish(0) },
		"other device":      func(d *virtqtest.Driver) { d.WriteDesc(0, 0, 1, 0, 0); d.Publish(0) },
		"past out":          func(d *virtqtest.Driver) { d.WriteDesc(0, inStart-1, 2, 0, 0); d.Publish(0) },
		"readable in in":    func(d *virtqtest.Driver) { d.WriteDesc(0, inStart, 1, 0, 0); d.Publish(0) },
		"writable in out":   func(d *virtqtest.Driver) { d.WriteDesc(0, buf, 1, 2, 0); d.Publish(0) },
		"past in":           func(d *virtqtest.Driver) { d.WriteDesc(0, inEnd-1, 2, 2, 0); d.Publish(0) },
		"past pool":         func(d *virtqtest.Driver) { d.WriteDesc(0, pages*4096, 1, 2, 0); d.Publish(0) },
		"address wraps":     func(d *virtqtest.Driver) { d.WriteDesc(0, ^uint64(0), 2, 0, 0); d.Publish(0) },
		"largest length":    func(d *virtqtest.Driver) { d.WriteDesc(0, buf, ^uint32(0), 0, 0); d.Publish(0) },
		"indirect":          func(d *virtqtest.Driver) { d.WriteDesc(0, buf, 16, 4, 0); d.Publish(0) },
		"readable after writed": func(d *virtqtest.Driver) {
			d.WriteDesc(0, inStart, 1, 3, 1)
			d.WriteDesc(1, buf, 1, 0, 0)
			d.Publish(0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			q, d := pair(t, 8, true)
			f(d)
			if !q.Arm() {
				t.Error("Arm hides that something is there")
			}
			if c, err := q.Pop(); !errors.Is(err, virtq.ErrGuest) || c != nil {
				t.Fatalf("pop: %v, %v, want ErrGuest", c, err)
			}
			d.SetAvail(0)
			if _, err := q.Pop(); !errors.Is(err, virtq.ErrGuest) {
				t.Errorf("the queue recovers: %v", err)
			}
			if q.NeedSignal() {
				t.Error("a broken queue signals")
			}
		})
	}
}

func TestSameHeadTwice(t *testing.T) {
	q, d := pair(t, 8, true)
	d.WriteDesc(0, outStart+8192, 1, 0, 0)
	d.Publish(0)
	d.Publish(0)
	c, err := q.Pop()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.Pop(); !errors.Is(err, virtq.ErrGuest) {
		t.Fatalf("head in use accepted: %v", err)
	}
	if err := q.Push(c, 0); !errors.Is(err, virtq.ErrGuest) {
		t.Errorf("push on a broken queue: %v", err)
	}
}

func TestMoreThanNumOutstanding(t *testing.T) {
	q, d := pair(t, 4, true)
	for i := range uint16(4) {
		d.WriteDesc(i, outStart+8192, 1, 0, 0)
		d.Publish(i)
		if _, err := q.Pop(); err != nil {
			t.Fatal(err)
		}
	}
	d.Publish(0)
	if _, err := q.Pop(); !errors.Is(err, virtq.ErrGuest) {
		t.Fatalf("fifth of four buffers: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		f     func(c *virtq.Config)
		guest bool
	}{
		"no size":          {func(c *virtq.Config) { c.Num = 0 }, true},
		"odd size":         {func(c *virtq.Config) { c.Num = 3 }, true},
		"too large":        {func(c *virtq.Config) { c.Num = 1 << 16 }, true},
		"huge":             {func(c *virtq.Config) { c.Num = 1 << 31 }, true},
		"ring too long":    {func(c *virtq.Config) { c.Num = 32768 }, true},
		"desc unaligned":   {func(c *virtq.Config) { c.Desc += 8 }, true},
		"avail unaligned":  {func(c *virtq.Config) { c.Avail++ }, true},
		"used unaligned":   {func(c *virtq.Config) { c.Used += 2 }, true},
		"desc below":       {func(c *virtq.Config) { c.Desc = 0 }, true},
		"desc at the end":  {func(c *virtq.Config) { c.Desc = inStart - 16 }, true},
		"avail in in":      {func(c *virtq.Config) { c.Avail = inStart }, true},
		"used at 4 GiB":    {func(c *virtq.Config) { c.Used = 0xfffffffc }, true},
		"section past end": {func(c *virtq.Config) { c.InLen += 8192 }, false},
		"section wraps":    {func(c *virtq.Config) { c.OutOff = ^uint64(0) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			pool := virtqtest.NewPool(t, pages)
			cfg := virtqtest.NewSection(pool, secPage, outPages, inPages).NewDriver(8, true).Config()
			c.f(&cfg)
			_, err := virtq.New(pool, cfg)
			if err == nil || errors.Is(err, virtq.ErrGuest) != c.guest {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestStop(t *testing.T) {
	q, d := pair(t, 8, true)
	d.Add([][]byte{{1}}, nil)
	c, err := q.Pop()
	if err != nil {
		t.Fatal(err)
	}
	q.Stop()
	q.Stop()
	if err := q.Push(c, 0); !errors.Is(err, virtq.ErrStopped) {
		t.Errorf("push: %v", err)
	}
	if _, err := q.Pop(); !errors.Is(err, virtq.ErrStopped) {
		t.Errorf("pop: %v", err)
	}
	if _, _, ok := d.Used(); ok {
		t.Error("the used ring was written after Stop")
	}
}

// TestConcurrent runs both halves at once: every buffer comes back once, and
// suppression loses no wake-up.
func TestConcurrent(t *testing.T) {
	q, d := pair(t, 16, true)
	kick, signal := make(chan struct{}, 1), make(chan struct{}, 1)
	poke := func(c chan struct{}) {
		select {
		case c <- struct{}{}:
		default:
		}
	}
	const n = 50000
	errs := make(chan error, 1)
	go func() {
		for done := 0; done < n; {
			c, err := q.Pop()
			if err != nil {
				errs <- err
				return
			}
			if c == nil {
				if !q.Arm() {
					<-kick
				}
				continue
			}
			copy(c.Writable[0], c.Readable[0])
			q.Push(c, 1)
			done++
			if q.NeedSignal() {
				poke(signal)
			}
		}
		errs <- nil
	}()
	for sent, got := 0, 0; got < n; {
		if sent < n {
			if _, err := d.Add([][]byte{{byte(sent)}}, []int{1}); err == nil {
				sent++
				if d.NeedKick() {
					poke(kick)
				}
				continue
			}
		}
		if _, data, ok := d.Used(); ok {
			if data[0] != byte(got) {
				t.Fatalf("buffer %d holds %d", got, data[0])
			}
			got++
		} else if !d.Arm() {
			<-signal
		}
	}
	if err := <-errs; err != nil {
		t.Fatal(err)
	}
}
