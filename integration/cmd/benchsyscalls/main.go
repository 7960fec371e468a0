// SPDX-License-Identifier: Apache-2.0

// Benchsyscalls measures what system calls cost a container, in one run: with runc
// on plain Linux with and without page table isolation, in a guest as on any Xen,
// with X-LibOS, and with X-LibOS on an X-Kernel.
//
//	benchsyscalls [-only NAME,...] [-seconds N] [-xen VERSION] [-out FOLDER]
//
// It boots one lab after the other, runs the program of integration/xlibos/bench
// and a command in containers there, and reads in /proc/xlibos how many system
// calls Xen did not see. The table goes to stdout; table and plot go to syscalls.md
// and syscalls.svg in FOLDER, by default build/bench.
package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
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
	only := flags.String("only", "", "measure in `NAMES`, with commas, of: "+strings.Join(names(environments(inputs.DefaultXen)), " "))
	seconds := flags.Int("seconds", 2, "`seconds` for each thing that is measured, at least")
	xen := flags.String("xen", inputs.DefaultXen, "`version` of Xen and of the X-Kernel")
	folder := flags.String("out", "", "`folder` for the table and the plot")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *seconds < 1 || *seconds > 600 {
		return fmt.Errorf("%d seconds: use 1 to 600", *seconds)
	}
	envs, err := choose(environments(*xen), *only)
	if err != nil {
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
	program := filepath.Join(tmp, programName)
	if err := buildProgram(ctx, filepath.Join(checkout, programSource), program); err != nil {
		return err
	}
	r := &report{libc: libcVersion(ctx)}
	dir := cmp.Or(*folder, filepath.Join(checkout, "build", "bench"))
	err = measureAll(ctx, r, envs, program, *seconds, dir)
	if len(r.columns) == 0 {
		return err
	}
	_, werr := io.WriteString(out, r.markdown())
	return errors.Join(err, werr)
}

// measureAll measures in one environment after the other. What there is so far is
// saved after each: a lab that fails later costs nothing of it.
func measureAll(ctx context.Context, r *report, envs []environment, program string, seconds int, dir string) error {
	var errs []error
	for _, e := range envs {
		columns, err := e.measure(ctx, program, seconds)
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

const (
	programName   = "sysbench"
	programSource = "integration/xlibos/bench" // in the checkout
)

// buildProgram compiles the program that is run in containers.
func buildProgram(ctx context.Context, source, out string) error {
	files, err := filepath.Glob(filepath.Join(source, "*.c"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("build %s: no source in %s", programName, source)
	}
	args := append([]string{"-O2", "-static", "-Wall", "-Wextra", "-Werror", "-o", out}, files...)
	if text, err := exec.CommandContext(ctx, "gcc", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", programName, err, bytes.TrimSpace(text))
	}
	return nil
}

// libcVersion is the C library of this machine, which the program is linked with,
// or "" if that does not tell.
func libcVersion(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "getconf", "GNU_LIBC_VERSION").Output()
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(out))
}
