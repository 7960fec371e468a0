// SPDX-License-Identifier: Apache-2.0

// Benchsyscalls measures what system calls cost a container, in one run: with runc
// on plain Linux with and without page table isolation, in a guest as on any Xen,
// with X-LibOS, and with X-LibOS on an X-Kernel.
//
//	benchsyscalls [-servers] [-only NAME,...] [-rows NAME,...] [-seconds N] [-xen VERSION] [-out FOLDER]
//
// It boots one lab after the other, runs the program of integration/xlibos/bench
// and a command in containers there, and reads in /proc/xlibos how many system
// calls Xen did not see. The table goes to stdout; table and plot go to syscalls.md
// and syscalls.svg in FOLDER, by default build/bench.
//
// With -servers it measures servers and their clients instead, in images made for
// it, and the files are servers.md and servers.svg.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/xcontainer/xcontainer/integration/internal/inputs"
	"github.com/xcontainer/xcontainer/integration/lab"
)

const command = "benchsyscalls"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", command, err)
		stop()
		os.Exit(1)
	}
}

// say tells the user what happens.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, command+": "+format+"\n", args...)
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet(command, flag.ContinueOnError)
	ofServers := flags.Bool("servers", false, "measure servers, not system calls")
	only := flags.String("only", "", "measure in `NAMES`, with commas, of: "+strings.Join(names(environments(inputs.DefaultXen)), " "))
	rows := flags.String("rows", "", "measure only the rows of these `NAMES`, with commas; a wrong one lists them")
	seconds := flags.Int("seconds", 0, "`seconds` for each thing that is measured, at least (default 2, of servers 5)")
	xen := flags.String("xen", inputs.DefaultXen, "`version` of Xen and of the X-Kernel")
	folder := flags.String("out", "", "`folder` for the table and the plot")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *seconds < 0 || *seconds > 600 {
		return fmt.Errorf("%d seconds: use 1 to 600", *seconds)
	}
	if _, err := choose(environments(*xen), *only); err != nil {
		return err
	}
	checkout, err := lab.FindCheckout(".")
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", command)
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	prepare := syscallSuite
	if *ofServers {
		prepare = serverSuite
	}
	s, err := prepare(ctx, checkout, tmp)
	if err != nil {
		return err
	}
	if err := s.keep(*rows); err != nil {
		return err
	}
	s.seconds = cmp.Or(*seconds, s.seconds)
	envs, err := choose(environments(*xen), cmp.Or(*only, s.only))
	if err != nil {
		return err
	}
	r := &report{suite: s}
	err = measureAll(ctx, r, envs, tmp, cmp.Or(*folder, filepath.Join(checkout, "build", "bench")))
	if len(r.columns) == 0 {
		return err
	}
	_, werr := io.WriteString(out, r.markdown())
	return errors.Join(err, werr)
}

// measureAll measures in one environment after the other, with the programs in a
// folder. What there is so far is saved in dir after each: a lab that fails later
// costs nothing of it.
func measureAll(ctx context.Context, r *report, envs []environment, programs, dir string) error {
	var errs []error
	for _, e := range envs {
		columns, err := e.measure(ctx, r.suite, programs)
		r.columns = append(r.columns, columns...)
		if err != nil {
			say("%s: %v", e.name, err)
			errs = append(errs, fmt.Errorf("%s: %w", e.name, err))
		}
		if len(r.columns) > 0 {
			if err := r.save(dir); err != nil {
				return errors.Join(append(errs, err)...)
			}
		}
		if ctx.Err() != nil {
			break
		}
	}
	if len(r.columns) > 0 {
		say("table and plot are in %s", dir)
	}
	return errors.Join(errs...)
}
