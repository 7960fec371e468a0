// SPDX-License-Identifier: Apache-2.0

package clienttests

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// outcome is how one test ended.
type outcome struct {
	status status
	took   time.Duration
	why    string // if the test program did not say it itself
}

// runner is what starts the test program. Its output, standard error included,
// goes to w. stop ends a program that hangs, after it has printed what it was
// doing; clean removes what the program left.
type runner interface {
	start(ctx context.Context, tests []string, w io.Writer) (wait func() error, err error)
	stop(ctx context.Context) error
	clean(ctx context.Context) error
}

// errMachine means that the machine failed, not a test.
var errMachine = errors.New("the machine under test failed")

// groupRun runs tests in one program after the other.
type groupRun struct {
	runner runner
	bound  time.Duration // of one test, and of what comes before the first
	log    io.Writer     // gets the programs' output
	each   func(name string, o outcome)
}

// run runs all tests and calls each once for every one of them. If the machine
// fails, the test that ran at that moment counts as failed, the rest is returned
// and the error is errMachine.
func (g *groupRun) run(ctx context.Context, tests []string) (rest []string, err error) {
	rest = slices.Clone(tests)
	for len(rest) > 0 {
		before := len(rest)
		culprit, why, err := g.once(ctx, &rest)
		if err == nil {
			err = g.runner.clean(ctx)
		}
		if culprit != "" {
			rest = g.end(rest, culprit, outcome{status: failed, why: why})
		}
		if err != nil {
			return rest, err
		}
		if culprit == "" && len(rest) > 0 && (len(rest) == before || why == "") {
			// It ended in order, or ran nothing: what is left will not come.
			if why == "" {
				why = "the test program did not run it"
			}
			for _, name := range slices.Clone(rest) {
				rest = g.end(rest, name, outcome{status: failed, why: why})
			}
		}
	}
	return nil, nil
}

// end reports a test and takes it off the list.
func (g *groupRun) end(rest []string, name string, o outcome) []string {
	i := slices.Index(rest, name)
	if i < 0 {
		return rest // a second word on it, or a test that nobody asked for
	}
	g.each(name, o)
	return slices.Delete(rest, i, i+1)
}

// once runs the test program once and takes what ended off the list. If it did
// not end in order, why says so, and culprit is the test that ran, if any.
func (g *groupRun) once(ctx context.Context, rest *[]string) (culprit, why string, err error) {
	events := make(chan event)
	quit := make(chan struct{})
	defer close(quit)
	var last string // the last line of the output with anything in it
	out := &lines{each: func(line string) {
		if t := strings.TrimSpace(line); t != "" {
			last = t
		}
		if e, ok := parseLine(line); ok {
			select {
			case events <- e:
			case <-quit:
			}
		}
	}}
	wait, err := g.runner.start(ctx, *rest, io.MultiWriter(g.log, out))
	if err != nil {
		return "", "", fmt.Errorf("%w: %w", errMachine, err)
	}
	done := make(chan error, 1)
	go func() { done <- wait() }()
	timer := time.NewTimer(g.bound)
	defer timer.Stop()
	hung := false
	current := ""
	for {
		select {
		case e := <-events:
			if hung {
				continue // the dying program's words count for nothing
			}
			timer.Reset(g.bound)
			if e.begins {
				current = e.name
				continue
			}
			current = ""
			*rest = g.end(*rest, e.name, outcome{status: e.status, took: e.took})
		case <-timer.C:
			if hung {
				return current, "hung and could not be ended", fmt.Errorf("%w: the test program does not die", errMachine)
			}
			hung = true
			timer.Reset(stopLimit)
			if err := g.runner.stop(ctx); err != nil {
				return current, "hung", fmt.Errorf("%w: %w", errMachine, err)
			}
		case err := <-done:
			return g.ended(err, last, current, hung)
		}
	}
}

// stopLimit is how long a stopped program may take to end.
const stopLimit = time.Minute

// ended judges the end of a test program.
func (g *groupRun) ended(err error, last, current string, hung bool) (culprit, why string, _ error) {
	var code exitCode
	switch {
	case err != nil && !errors.As(err, &code):
		return current, "the machine failed", fmt.Errorf("%w: %w", errMachine, err)
	case hung && current == "":
		return "", fmt.Sprintf("nothing happened for %v between tests", g.bound), nil
	case hung:
		return current, fmt.Sprintf("no end within %v", g.bound), nil
	case current != "":
		return current, "the test program died: " + last, nil
	case code != 0:
		// Because of a test that failed, or of a daemon that did not start.
		return "", fmt.Sprintf("the test program ended with code %d: %s", int(code), last), nil
	}
	return "", "", nil
}

// exitCode is the error of a program that ended with a code other than 0.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }
