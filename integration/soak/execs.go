// SPDX-License-Identifier: Apache-2.0

package soak

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/xcontainer/xcontainer/integration/internal/ctrd"
	"github.com/xcontainer/xcontainer/pkg/shim/record"
)

// execs runs many processes in one container, one after the other.
func (s *soak) execs(ctx context.Context) (err error) {
	const id = "soak-execs"
	defer func() {
		err = errors.Join(err, s.remove(ctx, id))
	}()
	task, spec, err := s.start(ctx, id)
	if err != nil {
		return err
	}
	rec, err := record.Read(ctrd.Bundle(id))
	if err != nil || rec == nil {
		return fmt.Errorf("record of %s: %v, %w", id, rec, err)
	}
	var base baseline
	begin := time.Now()
	for n := 1; n <= s.Execs; n++ {
		if err := s.exec(ctx, task, spec, n); err != nil {
			return fmt.Errorf("exec %d: %w", n, err)
		}
		if n == s.From {
			if base, err = takeBaseline(rec); err != nil {
				return err
			}
			s.Say("exec %d: %v", n, base)
		} else if n%100 == 0 {
			s.Say("exec %d, %.2f s each", n, time.Since(begin).Seconds()/float64(n))
		}
	}
	s.Check(true, "%d execs gave their output and exit status, %.2f s each", s.Execs, time.Since(begin).Seconds()/float64(s.Execs))
	s.compare(base, rec)
	return nil
}

// start starts a container that sleeps, and returns its process for execs.
func (s *soak) start(ctx context.Context, id string) (client.Task, *specs.Process, error) {
	ctx, cancel := context.WithTimeout(ctrd.With(ctx), callTimeout)
	defer cancel()
	c, err := s.host.New(ctx, id, false, "sleep", "100000")
	if err != nil {
		return nil, nil, err
	}
	spec, err := c.Spec(ctx)
	if err != nil {
		return nil, nil, err
	}
	task, err := c.NewTask(ctx, ctrd.Streams(fifoDir, nil, new(ctrd.Output)))
	if err != nil {
		return nil, nil, err
	}
	return task, spec.Process, task.Start(ctx)
}

// exec runs process n, which says so; every tenth also reads its input.
func (s *soak) exec(ctx context.Context, task client.Task, spec *specs.Process, n int) error {
	ctx, cancel := context.WithTimeout(ctrd.With(ctx), callTimeout)
	defer cancel()
	p := *spec
	want := fmt.Sprintf("exec %d\n", n)
	p.Args = []string{"sh", "-c", fmt.Sprintf("echo exec %d; exit %d", n, n%200)}
	var in *bytes.Reader
	if n%10 == 0 {
		text := bytes.Repeat([]byte("0123456789abcde\n"), 4096)
		in = bytes.NewReader(text)
		p.Args = []string{"sh", "-c", fmt.Sprintf("cat; exit %d", n%200)}
		want = string(text)
	}
	out := new(ctrd.Output)
	x, err := task.Exec(ctx, fmt.Sprintf("x%d", n), &p, ctrd.Streams(fifoDir, in, out))
	if err != nil {
		return err
	}
	ended, err := x.Wait(ctx)
	if err != nil {
		return err
	}
	if err := x.Start(ctx); err != nil {
		return err
	}
	if in != nil {
		// The client copies the input first; the end of it is this call alone.
		for in.Len() > 0 && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		if err := x.CloseIO(ctx, client.WithStdinCloser); err != nil {
			return err
		}
	}
	var status client.ExitStatus
	select {
	case status = <-ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	x.IO().Wait()
	if code, _, err := status.Result(); err != nil || int(code) != n%200 || out.String() != want {
		return fmt.Errorf("exit status %d, error %v, output %.100q", code, err, out.String())
	}
	_, err = x.Delete(ctx)
	return err
}

// baseline is what may not grow.
type baseline struct {
	shim, backend usage
	goroutines    int64
	domains       int64
	ports, daemon int64 // of the host
}

func (b baseline) String() string {
	return fmt.Sprintf("shim %s, %d fds, %d mappings, %d goroutines; back-end %s, %d fds, %d mappings; %d domains, %d event channels",
		number(b.shim.rss), b.shim.fds, b.shim.maps, b.goroutines, number(b.backend.rss), b.backend.fds, b.backend.maps, b.domains, b.ports)
}

func takeBaseline(r *record.Record) (b baseline, err error) {
	// What the last exec left is on its way out.
	time.Sleep(3 * time.Second)
	if b.shim, err = use(r.Shim.PID); err != nil {
		return b, err
	}
	if b.backend, err = use(r.Backend.PID); err != nil {
		return b, err
	}
	if b.goroutines, err = goroutines(r.Shim.PID); err != nil {
		return b, err
	}
	if b.domains, err = domains(); err != nil {
		return b, err
	}
	if b.ports, err = ports(); err != nil {
		return b, err
	}
	b.daemon, err = daemonFDs()
	return b, err
}

// compare checks what the container's processes have now.
func (s *soak) compare(b baseline, r *record.Record) {
	of := func(pid int, get func(usage) int64) func() (int64, error) {
		return func() (int64, error) {
			u, err := use(pid)
			return get(u), err
		}
	}
	shim, back := r.Shim.PID, r.Backend.PID
	s.same("shim: memory", b.shim.rss, shimGrowth, of(shim, func(u usage) int64 { return u.rss }))
	s.same("shim: descriptors", b.shim.fds, 0, of(shim, func(u usage) int64 { return u.fds }))
	s.sameMaps("shim", b.shim.maps, shim)
	s.same("shim: goroutines", b.goroutines, 0, func() (int64, error) { return goroutines(shim) })
	s.same("back-end: memory", b.backend.rss, backendGrowth, of(back, func(u usage) int64 { return u.rss }))
	s.same("back-end: descriptors", b.backend.fds, 0, of(back, func(u usage) int64 { return u.fds }))
	s.sameMaps("back-end", b.backend.maps, back)
	s.same("back-end: mappings of the domain", b.backend.devices, 0, of(back, func(u usage) int64 { return u.devices }))
	s.same("domains", b.domains, 0, domains)
	s.same("event channels", b.ports, 0, ports)
	s.same("containerd: descriptors", b.daemon, 0, daemonFDs)
}

// sameMaps compares mappings, and shows those there are if there are more than were.
func (s *soak) sameMaps(name string, was int64, pid int) {
	var lines []string
	failed := s.Failed
	s.same(name+": mappings of files and of shared memory", was, 0, func() (n int64, err error) {
		lines, err = mappings(pid)
		return int64(len(lines)), err
	})
	if s.Failed == failed {
		return
	}
	for _, line := range lines {
		s.Say("%s", line)
	}
}
