// SPDX-License-Identifier: Apache-2.0

package suites

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/xcontainer/xcontainer/integration/internal/ctrbox"
	"github.com/xcontainer/xcontainer/integration/internal/tally"
)

// Comparison is what tests came to in each of several modes.
type Comparison struct {
	Modes   []string
	Results map[string]Results // by mode
}

// Difference is a test that did not come to the same in all modes, or that is
// broken.
type Difference struct {
	Test   string
	Status []Status // in the order of the modes
}

// String is "name: full fail, off pass".
func (c Comparison) String(d Difference) string {
	var parts []string
	for i, m := range c.Modes {
		parts = append(parts, m+" "+string(d.Status[i]))
	}
	return d.Test + ": " + strings.Join(parts, ", ")
}

// tests are the names of all, in order.
func (c Comparison) tests() []string {
	all := map[string]bool{}
	for _, r := range c.Results {
		for name := range r {
			all[name] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// status is what a test came to, by mode.
func (c Comparison) status(test string) []Status {
	out := make([]Status, len(c.Modes))
	for i, m := range c.Modes {
		s, ok := c.Results[m][test]
		if !ok {
			s = Missing
		}
		out[i] = s
	}
	return out
}

// same tells whether a test came to the same in all modes.
func same(status []Status) bool {
	for _, s := range status {
		if s != status[0] || s == Broken {
			return false
		}
	}
	return true
}

// Differences are those that there are, known ones too.
func (c Comparison) Differences() []Difference {
	var out []Difference
	for _, name := range c.tests() {
		if s := c.status(name); !same(s) {
			out = append(out, Difference{name, s})
		}
	}
	return out
}

// Units are those that differences are in, in order.
func Units(ds []Difference) []string {
	units := map[string]bool{}
	for _, d := range ds {
		units[unitOf(d.Test)] = true
	}
	return slices.Sorted(maps.Keys(units))
}

// unitOf is the unit of a test.
func unitOf(test string) string {
	unit, _, _ := strings.Cut(test, ":")
	return unit
}

// Replace puts the results of a second run of units in the place of those of the
// first, in the modes that were run again.
func (c Comparison) Replace(units []string, again map[string]Results) {
	for m, results := range again {
		maps.DeleteFunc(c.Results[m], func(name string, _ Status) bool { return slices.Contains(units, unitOf(name)) })
		maps.Copy(c.Results[m], results)
	}
}

// Verdict is what is said about a comparison.
type Verdict struct {
	Tally tally.Tally
	Alike int      // how many of those that passed fail in all modes
	Lines []string // one for each of these, each failure, and each known difference
}

// explain finds the entry for a test. One of a mode's list is only for a test that
// came to the same in all others.
func (c Comparison) explain(known Lists, test string, status []Status) (mode, entry string, ok bool) {
	if entry, ok := known[AnyMode].find(test); ok {
		return AnyMode, entry, true
	}
	for i, mode := range c.Modes {
		if entry, ok := known[mode].find(test); ok && same(slices.Delete(slices.Clone(status), i, i+1)) {
			return mode, entry, true
		}
	}
	return "", "", false
}

// shows tells whether the modes that are compared are those between which the known
// differences of one, or AnyMode, are.
func (c Comparison) shows(mode string) bool {
	if mode != AnyMode {
		return len(c.Modes) > 1
	}
	return slices.Contains(c.Modes, ctrbox.XLibOSOff) && (slices.Contains(c.Modes, ctrbox.XLibOSFull) || slices.Contains(c.Modes, ctrbox.XLibOSEntry))
}

// Judge counts a test with the same result in all modes as passed, if it was not
// skipped in all, and a known difference as skipped. That a test fails in all is said.
// A difference that is not known has failed, and so has an entry of known that explains
// none; units are those that were run, and only their entries are looked at.
func (c Comparison) Judge(known Lists, units []string) Verdict {
	var v Verdict
	used := map[[2]string]bool{}
	for _, name := range c.tests() {
		s := c.status(name)
		mode, entry, ok := c.explain(known, name, s)
		switch {
		case same(s) && s[0] == Skip:
			v.Tally.Skipped++
		case same(s):
			v.Tally.Passed++
			if s[0] == Fail {
				v.Alike++
				v.Lines = append(v.Lines, "fails   "+c.String(Difference{name, s}))
			}
		case ok:
			used[[2]string{mode, entry}] = true
			v.Tally.Skipped++
			v.Lines = append(v.Lines, "known   "+c.String(Difference{name, s})+" ("+known[mode][entry]+")")
		default:
			v.Tally.Failed++
			v.Lines = append(v.Lines, "DIFFERS "+c.String(Difference{name, s}))
		}
	}
	for _, mode := range slices.Sorted(maps.Keys(known)) {
		if !c.shows(mode) {
			continue
		}
		for _, entry := range slices.Sorted(maps.Keys(known[mode])) {
			if !used[[2]string{mode, entry}] && slices.Contains(units, unitOf(entry)) {
				v.Tally.Failed++
				v.Lines = append(v.Lines, fmt.Sprintf("STALE   %s is listed as a difference and is none: %s", entry, known[mode][entry]))
			}
		}
	}
	if v.Tally.Passed+v.Tally.Failed == 0 {
		v.Tally.Failed++
		v.Lines = append(v.Lines, "EMPTY   no test was compared, which proves nothing")
	}
	return v
}

// Summary says how often each status stands in a mode's results.
func (r Results) Summary() string {
	n := map[Status]int{}
	for _, s := range r {
		n[s]++
	}
	return fmt.Sprintf("%d pass, %d fail, %d skip, %d broken", n[Pass], n[Fail], n[Skip], n[Broken])
}
