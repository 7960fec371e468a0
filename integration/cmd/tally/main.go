// SPDX-License-Identifier: Apache-2.0

// Tally reads what `go test -json` writes, passes on what a person reads of it,
// and ends with one line: N passed, N failed, N skipped. Tests with subtests
// count by those. It exits non-zero when anything failed or nothing ran.
//
//	go test -json ./... | tally
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/xcontainer/xcontainer/integration/internal/tally"
)

func main() {
	os.Exit(run(os.Stdin, os.Stdout))
}

func run(in io.Reader, out io.Writer) int {
	c := newCount()
	r := bufio.NewReader(in)
	for {
		line, err := r.ReadBytes('\n')
		if len(line) > 0 {
			io.WriteString(out, c.line(line))
		}
		if err != nil {
			break
		}
	}
	t := c.totals()
	for _, name := range c.failures {
		fmt.Fprintf(out, "failed: %s\n", name)
	}
	fmt.Fprintln(out, t)
	if t.Failed > 0 || t.Passed == 0 {
		return 1
	}
	return 0
}

// event is one line of `go test -json` (go doc test2json).
type event struct {
	Action, Package, Test, Output string
}

// count keeps the outcome of each test.
type count struct {
	outcome  map[string]string // of "package test"
	parent   map[string]bool   // tests that have subtests
	failures []string
}

func newCount() *count { return &count{outcome: map[string]string{}, parent: map[string]bool{}} }

// line takes one line and returns what to show of it. A line that is no event is
// a message of the go command, for a person.
func (c *count) line(b []byte) string {
	var e event
	if json.Unmarshal(b, &e) != nil || e.Action == "" {
		return string(b)
	}
	switch e.Action {
	case "output", "build-output":
		return e.Output
	case "pass", "fail", "skip":
		c.end(e)
	}
	return ""
}

func (c *count) end(e event) {
	if e.Test == "" {
		// A package fails without a failing test when it does not build, panics
		// or takes too long.
		if e.Action == "fail" && !c.failedIn(e.Package) {
			c.set(e.Package, "fail")
		}
		return
	}
	for i, b := range []byte(e.Test) {
		if b == '/' { // it may also be in the name of a test between the two
			c.parent[e.Package+" "+e.Test[:i]] = true
		}
	}
	c.set(e.Package+" "+e.Test, e.Action)
}

func (c *count) set(name, outcome string) {
	c.outcome[name] = outcome
	if outcome == "fail" {
		c.failures = append(c.failures, name)
	}
}

func (c *count) failedIn(pkg string) bool {
	for _, f := range c.failures {
		if strings.HasPrefix(f, pkg+" ") {
			return true
		}
	}
	return false
}

// totals counts the tests without subtests, and those that failed by themselves.
func (c *count) totals() tally.Tally {
	var t tally.Tally
	for name, outcome := range c.outcome {
		if c.parent[name] && (outcome != "fail" || c.failedBelow(name)) {
			continue
		}
		switch outcome {
		case "pass":
			t.Passed++
		case "skip":
			t.Skipped++
		default:
			t.Failed++
		}
	}
	return t
}

func (c *count) failedBelow(name string) bool {
	for _, f := range c.failures {
		if strings.HasPrefix(f, name+"/") {
			return true
		}
	}
	return false
}
