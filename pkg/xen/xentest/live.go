// SPDX-License-Identifier: Apache-2.0

package xentest

import (
	"errors"
	"sync"
	"time"

	"github.com/xcontainer/xcontainer/pkg/xen"
	"github.com/xcontainer/xcontainer/pkg/xen/abi"
	"github.com/xcontainer/xcontainer/pkg/xen/hypercall"
)

// These cases are about what changes while a domain lives.

// info is what the domain says of itself.
func (s *suite) info(d *xen.Domain) xen.Info {
	s.Helper()
	info, err := d.Info()
	s.must(err)
	return info
}

func (s *suite) wantState(d *xen.Domain, want xen.State) {
	s.Helper()
	if info := s.info(d); info.State != want || info.Paused != (want == xen.Paused) {
		s.Errorf("state %v, paused %v; want %v", info.State, info.Paused, want)
	}
}

func pauses(s *suite) {
	d := s.create(s.config("idle"))
	s.wantState(d, xen.Paused) // as it is created
	s.must(d.Pause())
	s.must(d.Unpause())
	s.wantState(d, xen.Running)
	s.must(d.Unpause())
	s.wantState(d, xen.Running)
	for range 3 {
		s.must(d.Pause())
		s.wantState(d, xen.Paused)
	}
	s.must(d.Unpause())
	s.wantState(d, xen.Running)

	// A domain that was looked up is the same domain.
	other, err := s.Host.Lookup(d.ID(), d.UUID())
	s.must(err)
	s.must(d.Pause())
	s.must(other.Pause())
	s.must(other.Unpause())
	s.wantState(d, xen.Running)
}

func pausesAtOnce(s *suite) {
	d := s.create(s.config("idle"))
	s.must(d.Unpause())
	for range 5 {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if err := d.Pause(); err != nil {
					s.Error(err)
				}
			})
		}
		wg.Wait()
		s.wantState(d, xen.Paused)
		s.must(d.Unpause())
		s.wantState(d, xen.Running)
	}
}

func destroyPaused(s *suite) {
	d := s.create(s.config("idle"))
	s.must(d.Unpause())
	s.must(d.Pause())
	s.must(d.Destroy(s.ctx))
	for name, call := range map[string]func() error{
		"Pause":        d.Pause,
		"Unpause":      d.Unpause,
		"SetMaxMemory": func() error { return d.SetMaxMemory(guestKiB) },
		"SetSchedule":  func() error { return d.SetSchedule(1, 0) },
	} {
		if err := call(); !errors.Is(err, xen.ErrNotFound) {
			s.Errorf("%s after Destroy: %v", name, err)
		}
	}
}

// memoryLimit lowers and raises what a domain may have, and looks whether Xen
// keeps to it.
func memoryLimit(s *suite) {
	d := s.create(s.config("idle"))
	limit := func(kib uint64) {
		s.Helper()
		s.must(d.SetMaxMemory(kib))
		if info := s.info(d); info.MaxPages != (kib+xen.MemorySlackKiB)/4 || info.Pages != guestKiB/4 {
			s.Errorf("with a limit of %d KiB: %+v", kib, info)
		}
	}
	populate := func() error {
		got, err := s.Raw.Populate(d.ID(), 0, []abi.PFN{guestKiB/4 + 512})
		if err == nil && len(got) == 0 {
			err = hypercall.ErrNoMemory
		}
		return err
	}
	limit(guestKiB)
	limit(guestKiB / 2) // less than it has: allowed, and nothing is taken away
	s.mustNot("memory past a lowered limit", populate())
	limit(2 * guestKiB)
	s.must(populate())
	if info := s.info(d); info.Pages != guestKiB/4+1 {
		s.Errorf("after one more page: %+v", info)
	}
	for _, kib := range []uint64{0, 3, 1 << 40} {
		if err := d.SetMaxMemory(kib); !errors.Is(err, xen.ErrConfig) {
			s.Errorf("limit of %d KiB: %v", kib, err)
		}
	}
}

func schedules(s *suite) {
	c := s.config("idle")
	c.VCPUs, c.Cap = 2, 300
	d := s.create(c)
	type schedule struct{ weight, limit uint16 }
	wantSchedule := func(want schedule) {
		s.Helper()
		weight, limit, err := s.Raw.Credit2(d.ID())
		s.must(err)
		if got := (schedule{weight, limit}); got != want {
			s.Errorf("Xen has %+v, want %+v", got, want)
		}
	}
	wantSchedule(schedule{abi.Credit2WeightNormal, 0}) // more than two CPUs can take
	s.must(d.Unpause())
	for _, set := range []struct{ ask, want schedule }{
		{schedule{512, 150}, schedule{512, 150}},
		{schedule{1, 0}, schedule{1, 0}},
		{schedule{65535, 200}, schedule{65535, 200}},
		{schedule{100, 201}, schedule{100, 0}},
		{schedule{0, 50}, schedule{abi.Credit2WeightNormal, 50}}, // 0 is Xen's default
	} {
		s.must(d.SetSchedule(set.ask.weight, set.ask.limit))
		wantSchedule(set.want)
	}
	s.mustNot("a cap above all virtual CPUs", s.Raw.SetCredit2(d.ID(), 100, 201))
}

func readsTheCPUsCounter(s *suite) {
	mode, err := s.Raw.TSC(s.shell())
	s.must(err)
	if mode != abi.TSCModeDefault {
		s.Errorf("an empty domain has mode %d", mode)
	}
	mode, err = s.Raw.TSC(s.create(s.config("idle")).ID())
	s.must(err)
	if mode != abi.TSCModeNative {
		s.Errorf("a domain that was built has mode %d, want %d", mode, abi.TSCModeNative)
	}
}

func pausedTakesNoTime(s *suite) {
	c := s.config("spin")
	c.VCPUs = 2
	d := s.create(c)
	if info := s.info(d); info.CPUTime != 0 {
		s.Errorf("before it ran: %+v", info)
	}
	// The hypervisor runs it when it likes, and counts its time by clocks that
	// differ a little between processors: what a running domain seems to have had
	// may be less once it is paused.
	var before xen.Info
	for end := time.Now().Add(patience); ; {
		s.must(d.Unpause())
		time.Sleep(5 * time.Millisecond)
		s.must(d.Pause())
		if before = s.info(d); before.CPUTime > 0 || time.Now().After(end) {
			break
		}
	}
	if before.CPUTime <= 0 || before.VCPUs != 1 || before.MaxVCPUs != 2 {
		s.Errorf("after it ran: %+v", before)
	}
	for range 10 {
		if after := s.info(d); after != before {
			s.Fatalf("it changed while paused: %+v, then %+v", before, after)
		}
	}
}
