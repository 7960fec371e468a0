// SPDX-License-Identifier: Apache-2.0

package clienttests

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/xcontainer/xcontainer/integration/lab"
)

// Names of runtimes.
const (
	OurRuntime  = "io.containerd.xcontainer.v2"
	RuncRuntime = "io.containerd.runc.v2"
)

// reboots is how often a run goes on in a new machine after the machine failed.
const reboots = 2

// Options of a run.
type Options struct {
	Lab     lab.Options
	Runtime string
	// Tests are the tests to run; those of never-run.txt are left out.
	Tests []string
	// Retry lists tests that get a second chance when they fail, each in a
	// program of its own.
	Retry func(name string) bool
	// Group is how many tests share one program and daemon.
	Group int
	// Bound is how long one test may take.
	Bound time.Duration
	// Keep leaves the lab running, and uses one that was kept.
	Keep bool
	// Logs is the directory for what the programs print.
	Logs string
	// Each is called as soon as a test has ended for good or will be tried again.
	Each func(name, status string, took time.Duration, why string, again bool)
}

// Inputs are the built test program and what it needs.
type Inputs struct{ in machineInputs }

// Build makes the inputs. scratch is a directory that outlives the lab.
func Build(ctx context.Context, o lab.Options, scratch string) (Inputs, error) {
	in, err := buildInputs(ctx, o.Checkout, scratch, o.Progress)
	return Inputs{in}, err
}

// Tests lists all tests that the program has.
func (i Inputs) Tests() []string { return i.in.tests }

// Run runs the tests and returns the outcome of each, by name: the better of two
// where Retry says so.
func (i Inputs) Run(ctx context.Context, o Options) (map[string]Outcome, error) {
	if err := os.MkdirAll(o.Logs, 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of the logs: %w", err)
	}
	m, err := openMachine(ctx, o.Lab, i.in, o.Runtime, o.Keep)
	if err != nil {
		return nil, err
	}
	s := &session{o: o, in: i.in, m: m, results: map[string]Outcome{}}
	err = s.all(ctx)
	if s.m == nil {
		return s.results, err
	}
	return s.results, errors.Join(err, s.m.close(o.Keep))
}

// Outcome is how a test ended.
type Outcome struct {
	Status string // PASS, FAIL or SKIP
	Took   time.Duration
	Why    string // in one line, if the test program did not print it
	Log    string // file with what the program printed
}

// session is one run of the tests.
type session struct {
	o       Options
	in      machineInputs
	m       *machine // nil while there is none
	results map[string]Outcome
	boots   int // after the first
	logs    int
}

// all runs every test, and once more those that failed.
func (s *session) all(ctx context.Context) error {
	for group := range slices.Chunk(s.o.Tests, s.o.Group) {
		if err := s.group(ctx, group, true); err != nil {
			return err
		}
	}
	for _, name := range s.o.Tests {
		if s.results[name].Status != string(failed) || !s.o.Retry(name) {
			continue
		}
		if err := s.group(ctx, []string{name}, false); err != nil {
			return err
		}
	}
	return nil
}

// group runs some tests in one program if nothing goes wrong.
func (s *session) group(ctx context.Context, tests []string, first bool) error {
	s.logs++
	path := filepath.Join(s.o.Logs, fmt.Sprintf("%03d-%s.log", s.logs, tests[0]))
	log, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("make a log: %w", err)
	}
	defer log.Close()
	for len(tests) > 0 {
		if s.m == nil {
			if s.m, err = openMachine(ctx, s.o.Lab, s.in, s.o.Runtime, false); err != nil {
				return err
			}
		}
		s.m.log = log
		g := &groupRun{runner: s.m, bound: s.o.Bound, log: log, each: func(name string, o outcome) {
			s.results[name] = Outcome{Status: string(o.status), Took: o.took, Why: o.why, Log: path}
			again := first && o.status == failed && s.o.Retry(name)
			s.o.Each(name, string(o.status), o.took, o.why, again)
		}}
		tests, err = g.run(ctx, tests)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || !errors.Is(err, errMachine) || s.boots == reboots {
			return err
		}
		s.boots++
		fmt.Fprintln(log, err)
		s.o.Lab.Progress(fmt.Sprintf("%v; go on in a new machine", err))
		s.saveConsole(log)
		if err := s.m.close(false); err != nil {
			return err
		}
		s.m = nil
	}
	return nil
}

// saveConsole adds the machine's last words to the log.
func (s *session) saveConsole(log io.Writer) {
	const last = 8 << 10
	b, err := s.m.lab.Console()
	if err != nil {
		fmt.Fprintln(log, err)
		return
	}
	fmt.Fprintf(log, "console of the machine:\n%s\n", b[max(0, len(b)-last):])
}
