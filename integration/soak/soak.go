// SPDX-License-Identifier: Apache-2.0

package soak

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/xcontainer/xcontainer/integration/internal/ctrd"
	"github.com/xcontainer/xcontainer/integration/internal/labrun"
)

// Config says how long a soak is.
type Config struct {
	Execs  int // in one container
	From   int // the exec from which on nothing may grow
	Cycles int // containers, one after the other
	Warm   int // containers before them
	Lives  int // containers that are paused, updated and killed
}

// Long and Short are the two forms.
var (
	Long  = Config{Execs: 1000, From: 100, Cycles: 300, Warm: 20, Lives: 200}
	Short = Config{Execs: 40, From: 20, Cycles: 8, Warm: 4, Lives: 2}
)

// Tolerances, in bytes: a heap that is collected now and then, dom0's other
// programs and the kernel's caches come to no exact number. A shim and a back-end
// have been seen to have up to 1.3 MiB more at the end of a run of either form.
const (
	shimGrowth    = 2 << 20
	backendGrowth = 2 << 20
	dom0Growth    = 16 << 20
	slabGrowth    = 4 << 20
)

const pageSize = 4096 // of Xen, in bytes

const (
	callTimeout = 2 * time.Minute  // of one call to containerd, under emulation
	settleTime  = 30 * time.Second // for a number to come back to where it was
	settlePoll  = 500 * time.Millisecond
	leftTime    = 2 * time.Minute // the same for what containers left: package inventory says why
	// fifoDir has the named pipes of our processes.
	fifoDir = "/run/soak"
)

// soak is one run.
type soak struct {
	Config
	labrun.Checks
	host *ctrd.Host
}

// Run does it all, shows it, and tells whether everything was well.
func Run(ctx context.Context, c Config) bool {
	s := &soak{Config: c}
	s.Begin()
	err := s.run(ctx)
	os.RemoveAll(fifoDir)
	return s.End(err)
}

func (s *soak) run(ctx context.Context) (err error) {
	if s.host, err = ctrd.Open(ctx); err != nil {
		return err
	}
	defer s.host.Close()
	before, err := ctrd.Here.Take()
	if err != nil {
		return err
	}
	if err := s.execs(ctx); err != nil {
		return fmt.Errorf("execs: %w", err)
	}
	s.left(before, "execs")
	if err := s.cycles(ctx); err != nil {
		return fmt.Errorf("cycles: %w", err)
	}
	if err := s.lives(ctx); err != nil {
		return fmt.Errorf("lives: %w", err)
	}
	return nil
}

// same waits until now, which may fail for a moment, is at most was+allow, and
// checks that.
func (s *soak) same(what string, was, allow int64, now func() (int64, error)) {
	var got int64
	var err error
	for deadline := time.Now().Add(settleTime); ; time.Sleep(settlePoll) {
		if got, err = now(); err == nil && got <= was+allow {
			break
		}
		if time.Now().After(deadline) {
			break
		}
	}
	if err != nil {
		s.Check(false, "%s: %v", what, err)
		return
	}
	s.Check(got <= was+allow, "%s: %s, was %s%s", what, number(got), number(was), allowance(allow))
}

func allowance(allow int64) string {
	if allow == 0 {
		return ""
	}
	return fmt.Sprintf(", may grow by %s", number(allow))
}

// number renders a count, or bytes if it is that large.
func number(n int64) string {
	if n > -1<<16 && n < 1<<16 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%.2f MiB", float64(n)/(1<<20))
}

// remove deletes a container whose life is over, also for who was interrupted, and does
// not wait for ever for a shim that hangs.
func (s *soak) remove(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	return s.host.Remove(ctx, id)
}
