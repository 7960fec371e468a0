// SPDX-License-Identifier: Apache-2.0

package suites

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Status is what a test came to.
type Status string

// What a test can come to.
const (
	Pass Status = "pass"
	Fail Status = "fail"
	Skip Status = "skip"
	// Broken: the unit did not end in its time, its container ended, or it has no
	// test in its output. That is never the same as anything.
	Broken Status = "broken"
	// Missing: there is no such test in this mode.
	Missing Status = "missing"
)

// Results are those of tests by their names.
type Results map[string]Status

// String is a line "STATUS TEST" for each, in the order of the tests.
func (r Results) String() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(r)) {
		fmt.Fprintf(&b, "%-7s %s\n", r[name], name)
	}
	return b.String()
}

// ReadResults reads what String has made.
func ReadResults(text string) (Results, error) {
	r := Results{}
	for line := range strings.Lines(text) {
		status, test, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch Status(status) {
		case Pass, Fail, Skip, Broken:
		default:
			ok = false
		}
		if !ok {
			return nil, fmt.Errorf("suites: line %q is not a status and a test", line)
		}
		r[strings.TrimLeft(test, " ")] = Status(status)
	}
	return r, nil
}

// Of are the results of units.
func (r Results) Of(units []string) Results {
	out := maps.Clone(r)
	maps.DeleteFunc(out, func(name string, _ Status) bool { return !slices.Contains(units, unitOf(name)) })
	return out
}

// Output is what a unit left.
type Output struct {
	Text string // standard output and error, mixed
	Code int    // as a shell tells it
	// Broken says why the unit did not end by itself, or is empty.
	Broken string
}

// Parser returns the tests in a unit's output, by their names in the unit.
type Parser func(o Output) Results

// Results are those of a unit: of its tests, and of the whole.
func (s *Suite) Results(unit string, o Output) Results {
	if o.Broken != "" {
		return Results{unit: Broken}
	}
	r := Results{}
	for name, status := range s.Parse(o) {
		r[unit+":"+name] = status
	}
	r[unit] = s.whole(o, len(r))
	return r
}

// notRun is in the output of a program that the dynamic linker has given up.
var notRun = regexp.MustCompile(`error while loading shared libraries|: version .?GLIBC_[0-9.]+. not found`)

// whole judges a unit by its exit code. One that could not be run has tested nothing:
// a shell then says 126 or 127.
func (s *Suite) whole(o Output, tests int) Status {
	switch {
	case o.Code == 126 || o.Code == 127 || tests == 0 && notRun.MatchString(o.Text):
		return Broken
	case s.SkipCode != 0 && o.Code == s.SkipCode:
		return Skip
	case tests == 0 && !s.CodeOnly:
		return Broken
	case o.Code != 0:
		return Fail
	}
	return Pass
}

// put enters a test. A name that is there already gets a number, by its place: the
// same in each mode.
func (r Results) put(name string, s Status) {
	unique := name
	for n := 2; ; n++ {
		if _, ok := r[unique]; !ok {
			break
		}
		unique = name + " #" + strconv.Itoa(n)
	}
	r[unique] = s
}
