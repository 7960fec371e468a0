// SPDX-License-Identifier: Apache-2.0

package soak

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/xcontainer/xcontainer/integration/internal/ctrbox"
	"github.com/xcontainer/xcontainer/integration/internal/ctrd"
)

// What containers of lives have at first, and after an update.
const (
	smallMemory, largeMemory = 64 << 20, 160 << 20 // bytes
	period                   = 100_000             // microseconds, as the next two
	smallQuota, largeQuota   = 50_000, 150_000     // one virtual CPU, two
	smallCPUs, largeCPUs     = "1", "2"
)

// lives makes containers that are busy with system calls, with X-LibOS and without
// by turns, pauses, updates and kills them.
func (s *soak) lives(ctx context.Context) error {
	items, err := ctrd.Here.Take()
	if err != nil {
		return err
	}
	begin := time.Now()
	for n := range s.Lives {
		mode := []string{ctrbox.XLibOSFull, ctrbox.XLibOSOff}[n%2]
		l := &life{soak: s, id: fmt.Sprintf("soak-life-%d", n), mode: mode, out: new(ctrd.Output)}
		if err := l.run(ctx); err != nil {
			return fmt.Errorf("container %d, X-LibOS %s: %w", n+1, mode, err)
		}
		if (n+1)%20 == 0 {
			s.Say("life %d, %.2f s each", n+1, time.Since(begin).Seconds()/float64(n+1))
		}
	}
	s.Check(true, "%d containers were paused, updated and killed at work, with X-LibOS and without, %.2f s each",
		s.Lives, time.Since(begin).Seconds()/float64(s.Lives))
	s.left(items, "lives")
	return nil
}

// life is that of one container.
type life struct {
	*soak
	id, mode string
	out      *ctrd.Output
	task     client.Task
	process  *specs.Process // for execs
	execs    int
}

// work is two processes that make a system call for each byte.
const work = "for i in 1 2; do dd if=/dev/zero of=/dev/null bs=1 & done; echo ready; wait"

func (l *life) run(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctrd.With(ctx), 2*callTimeout)
	defer cancel()
	defer func() {
		if err != nil {
			err = errors.Join(err, l.remove(ctx, l.id))
		}
	}()
	c, err := l.host.NewWith(ctx, l.id, []oci.SpecOpts{
		oci.WithMemoryLimit(smallMemory), oci.WithCPUCFS(smallQuota, period),
		oci.WithAnnotations(map[string]string{"io.xcontainer.xlibos": l.mode}),
	}, "sh", "-c", work)
	if err != nil {
		return err
	}
	spec, err := c.Spec(ctx)
	if err != nil {
		return err
	}
	l.process = spec.Process
	if l.task, err = c.NewTask(ctx, ctrd.Streams(fifoDir, nil, l.out)); err != nil {
		return err
	}
	ended, err := l.task.Wait(ctx)
	if err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{l.task.Start, l.ready, l.pause, l.grow, l.shrink, l.counters} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if err := l.task.Kill(ctx, syscall.SIGKILL); err != nil {
		return err
	}
	select {
	case status := <-ended:
		if code, _, err := status.Result(); err != nil || code != 128+uint32(syscall.SIGKILL) {
			return fmt.Errorf("exit status %d, error %v after SIGKILL", code, err)
		}
	case <-ctx.Done():
		return fmt.Errorf("no end after SIGKILL: %w", ctx.Err())
	}
	if _, err := l.task.Delete(ctx); err != nil {
		return err
	}
	return c.Delete(ctx, client.WithSnapshotCleanup)
}

// ready waits for the processes to have been started.
func (l *life) ready(ctx context.Context) error {
	for !strings.Contains(l.out.String(), "ready\n") {
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

func (l *life) pause(ctx context.Context) error {
	if err := l.task.Pause(ctx); err != nil {
		return err
	}
	if st, err := l.task.Status(ctx); err != nil || st.Status != client.Paused {
		return fmt.Errorf("after a pause: %v, error %v", st.Status, err)
	}
	if err := l.task.Resume(ctx); err != nil {
		return err
	}
	return l.working(ctx, smallCPUs)
}

func (l *life) grow(ctx context.Context) error {
	return l.update(ctx, largeMemory, largeQuota, largeCPUs)
}

func (l *life) shrink(ctx context.Context) error {
	return l.update(ctx, smallMemory, smallQuota, smallCPUs)
}

// update changes limits, which the processes have to survive.
func (l *life) update(ctx context.Context, memory, quota int64, cpus string) error {
	p := uint64(period)
	err := l.task.Update(ctx, client.WithResources(&specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &memory},
		CPU:    &specs.LinuxCPU{Quota: &quota, Period: &p},
	}))
	if err != nil {
		return fmt.Errorf("update: %w", err)
	}
	return l.working(ctx, cpus)
}

// working wants the processes to be alive, on so many CPUs.
func (l *life) working(ctx context.Context, cpus string) error {
	got, err := l.exec(ctx, "nproc; pidof dd | wc -w")
	if want := cpus + "\n2\n"; err != nil || got != want {
		return fmt.Errorf("number of CPUs and of processes at work: %q, want %q; error %v", got, want, err)
	}
	return nil
}

// counters wants the mode to be the one that was asked for.
func (l *life) counters(ctx context.Context) error {
	text, err := l.exec(ctx, "cat /proc/xlibos")
	if err != nil {
		return err
	}
	x, err := ctrbox.ParseXLibOS(text)
	if on := l.mode == ctrbox.XLibOSFull; err != nil || x.On() != on || (x.Direct() > 0) != on {
		return fmt.Errorf("X-LibOS is to be %s and says: %v; error %v", l.mode, x, err)
	}
	return nil
}

// exec runs a script in the container, which has to succeed, and returns its output.
func (l *life) exec(ctx context.Context, script string) (string, error) {
	p := *l.process
	p.Args = []string{"sh", "-c", script}
	l.execs++
	out := new(ctrd.Output)
	x, err := l.task.Exec(ctx, fmt.Sprintf("x%d", l.execs), &p, ctrd.Streams(fifoDir, nil, out))
	if err != nil {
		return "", err
	}
	status, err := ctrd.RunProcess(ctx, x)
	if err != nil {
		return "", err
	}
	x.IO().Wait()
	if code, _, err := status.Result(); err != nil || code != 0 {
		return "", fmt.Errorf("%s: exit status %d, error %v: %.200q", script, code, err, out.String())
	}
	_, err = x.Delete(ctx)
	return out.String(), err
}
