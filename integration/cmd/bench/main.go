// SPDX-License-Identifier: Apache-2.0

// Bench measures what a container costs in time, in one lab and one run: whole
// runs of ctr with this project's runtime and with runc, turn by turn on the
// same dom0, and the steps of each creation from the shim's log.
//
//	bench [-n RUNS] [-attach] [-xen VERSION] [-disks]
//
// With -disks it measures instead what a container's files cost on a virtio block
// device and through virtio-fs. It prints a table and writes nothing. The lab is emulated: compare the rows
// of one table with each other, not with times of real machines.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/xcontainer/xcontainer/integration/internal/inputs"
	"github.com/xcontainer/xcontainer/integration/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	runs := flags.Int("n", 20, "number of `runs` with each runtime")
	attach := flags.Bool("attach", false, "use the lab that is up")
	disks := flags.Bool("disks", false, "compare a root file system on a disk with one through virtio-fs")
	xenVersion := flags.String("xen", "", "`version` of Xen to boot")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *runs < 1 || *runs > 1000 {
		return fmt.Errorf("%d runs: use 1 to 1000", *runs)
	}
	o := lab.Options{Xen: *xenVersion, Progress: func(what string) { fmt.Fprintln(os.Stderr, "bench:", what) }}
	l, done, err := open(ctx, o, *attach)
	if err != nil {
		return err
	}
	defer done()
	var table string
	if *disks {
		table, err = measureDisks(ctx, l, *runs)
	} else {
		var s *samples
		if s, err = measure(ctx, l, *runs); err == nil {
			table = s.table()
		}
	}
	if err != nil {
		return err
	}
	_, err = io.WriteString(out, table)
	return err
}

// open boots a lab of its own or attaches to a running one.
func open(ctx context.Context, o lab.Options, attach bool) (*lab.Lab, func(), error) {
	if attach {
		l, err := lab.Attach(ctx, o)
		if err != nil {
			return nil, nil, err
		}
		return l, func() { l.Close() }, nil
	}
	o.Name = cmp.Or(os.Getenv(lab.EnvName), "bench")
	l, err := lab.Fresh(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	return l, func() { l.Down() }, nil
}

const (
	ours = "io.containerd.xcontainer.v2"
	runc = "io.containerd.runc.v2"
)

// oneRun runs a container and prints the nanoseconds it took and, for ours, the
// shim's log line. The log is followed by size: nothing else logs meanwhile.
const oneRun = `
log=/var/log/containerd.log
at=$(($(wc -c <$log) + 1))
start=$(date +%s%N)
ctr run --rm --runtime RUNTIME IMAGE ID true || exit 1
echo $(($(date +%s%N) - start))
tail -c +$at $log | grep 'container started' | grep -F ID | tail -n 1`

// measure runs containers with both runtimes by turns.
func measure(ctx context.Context, l *lab.Lab, runs int) (*samples, error) {
	s := newSamples()
	started := time.Now().UnixMilli()
	for n := -1; n < runs; n++ { // the first turn warms caches up and does not count
		for _, runtime := range []string{runc, ours} {
			id := fmt.Sprintf("bench-%d-%d", started, n+1)
			line := strings.NewReplacer("RUNTIME", runtime, "IMAGE", inputs.BusyboxImage, "ID", id).Replace(oneRun)
			out, err := in(ctx, l, line)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", runtime, err)
			}
			if n < 0 {
				continue
			}
			if err := s.add(runtime, out); err != nil {
				return nil, err
			}
		}
		fmt.Fprintf(os.Stderr, "\rbench: %d of %d", n+1, runs)
	}
	fmt.Fprintln(os.Stderr)
	return s, nil
}
