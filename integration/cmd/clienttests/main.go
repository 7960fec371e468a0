// SPDX-License-Identifier: Apache-2.0

// clienttests runs containerd's client tests in the lab; see
// docs/client-tests.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/xcontainer/xcontainer/integration/clienttests"
	"github.com/xcontainer/xcontainer/integration/internal/labrun"
)

// labName keeps this machine apart from others.
const labName = "client-tests"

// options are the command line.
type options struct {
	runtime, run, part, record string
	short, keep                bool
	group                      int
	bound                      time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.runtime, "runtime", clienttests.OurRuntime, "containerd `runtime` to test")
	flag.BoolVar(&o.short, "short", false, "run the fixed choice of short.txt")
	flag.StringVar(&o.run, "run", "", "run only tests that match the `regexp`")
	flag.StringVar(&o.part, "part", "", "run only the part `I/N` of the tests")
	flag.StringVar(&o.record, "record", "", "add what passes to the list in `file`")
	flag.BoolVar(&o.keep, "keep", false, "leave the lab running, and use one that was kept")
	flag.IntVar(&o.group, "group", 12, "how many tests share a daemon")
	flag.DurationVar(&o.bound, "bound", 5*time.Minute, "how long one test may take")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	ok, err := run(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "clienttests:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// run runs the tests and reports whether none failed.
func run(ctx context.Context, o options) (bool, error) {
	lists, err := clienttests.Committed()
	if err == nil && o.runtime != clienttests.RuncRuntime {
		err = lists.Check()
	}
	if err != nil {
		return false, err
	}
	var say labrun.Checks
	say.Begin()
	lo, err := labrun.Options(labName, &say)
	if err != nil {
		return false, err
	}
	scratch := filepath.Join(lo.Checkout, "build", labName)
	in, err := clienttests.Build(ctx, lo, scratch)
	if err != nil {
		return false, err
	}
	tests, err := choose(o, lists, in.Tests())
	if err != nil {
		return false, err
	}
	ours := o.runtime != clienttests.RuncRuntime
	results, err := in.Run(ctx, clienttests.Options{
		Lab: lo, Runtime: o.runtime, Tests: runnable(tests, lists, ours), Group: o.group, Bound: o.bound, Keep: o.keep,
		Logs: filepath.Join(scratch, o.runtime),
		// An exception is expected to fail; once is enough.
		Retry: func(name string) bool { _, ok := lists.Exceptions[name]; return !ours || !ok },
		Each: func(name, status string, took time.Duration, why string, again bool) {
			line := fmt.Sprintf("%s %s (%.1f s) %s", status, name, took.Seconds(), why)
			if again {
				line = strings.TrimSpace(line) + ", to be tried again"
			}
			say.Say("%s", strings.TrimSpace(line))
		},
	})
	judge := clienttests.JudgeOurs
	if !ours {
		judge = clienttests.JudgeRunc
	}
	v := judge(lists, tests, results)
	for _, line := range v.Lines {
		fmt.Println(line)
	}
	if err == nil && v.Tally.Passed+v.Tally.Failed == 0 {
		err = errors.New("no test was run, which proves nothing")
	}
	if o.record != "" {
		err = errors.Join(err, record(o.record, results))
	}
	return v.Tally.End("clienttests", err), nil
}

// choose returns the tests that the options ask for, in the program's order.
func choose(o options, lists clienttests.Lists, all []string) ([]string, error) {
	if o.short {
		return lists.Short, nil
	}
	re, err := regexp.Compile(o.run)
	if err != nil {
		return nil, fmt.Errorf("-run: %w", err)
	}
	tests := slices.DeleteFunc(slices.Clone(all), func(n string) bool { return !re.MatchString(n) })
	if o.part == "" {
		return tests, nil
	}
	var i, n int
	if _, err := fmt.Sscanf(o.part, "%d/%d", &i, &n); err != nil || n < 1 || i < 1 || i > n {
		return nil, fmt.Errorf("-part %q is not like 1/3", o.part)
	}
	return tests[len(tests)*(i-1)/n : len(tests)*i/n], nil
}

// runnable leaves out what is never run and, for our runtime, what does not pass
// with runc.
func runnable(tests []string, l clienttests.Lists, ours bool) []string {
	return slices.DeleteFunc(slices.Clone(tests), func(n string) bool {
		_, never := l.NeverRun[n]
		return never || ours && !slices.Contains(l.RuncPasses, n)
	})
}

// record adds the names of tests that passed to a list, in order.
func record(file string, results map[string]clienttests.Outcome) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	head, names := []string{}, []string{}
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "#") {
			head = append(head, line)
		} else if line != "" {
			names = append(names, line)
		}
	}
	for name, r := range results {
		if r.Status == "PASS" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	text := strings.Join(append(head, names...), "\n") + "\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	return nil
}
