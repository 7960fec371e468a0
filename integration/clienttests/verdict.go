// SPDX-License-Identifier: Apache-2.0

package clienttests

import (
	"fmt"
	"slices"

	"github.com/xcontainer/xcontainer/integration/internal/tally"
)

// Verdict is what a run's outcomes mean.
type Verdict struct {
	Tally tally.Tally
	Lines []string // one for each thing that a reader should know
}

// JudgeOurs compares the outcomes of our runtime with the lists. tests are the
// ones that were meant to run.
func JudgeOurs(l Lists, tests []string, results map[string]Outcome) Verdict {
	var v Verdict
	for _, name := range tests {
		r, ran := results[name]
		reason, excepted := l.Exceptions[name]
		never, not := l.NeverRun[name]
		listed := slices.Contains(l.RuncPasses, name)
		switch {
		case not:
			v.skip("%s is not run: %s", name, never)
		case !listed:
			v.Tally.Skipped++ // does not pass with runc either
		case !ran:
			v.fail("%s did not run", name)
		case excepted && r.Status == string(passed):
			v.fail("%s passes, so it must leave exceptions.txt", name)
		case excepted:
			v.skip("%s is an exception: %s", name, reason)
		case r.Status == string(passed):
			v.Tally.Passed++
		default:
			v.fail("%s", r.describe(name))
		}
	}
	return v
}

// JudgeRunc compares the outcomes of runc with the list of what passes there.
func JudgeRunc(l Lists, tests []string, results map[string]Outcome) Verdict {
	var v Verdict
	for _, name := range tests {
		r, ran := results[name]
		listed := slices.Contains(l.RuncPasses, name)
		never, not := l.NeverRun[name]
		switch {
		case not:
			v.skip("%s is not run: %s", name, never)
		case ran && r.Status == string(passed):
			v.Tally.Passed++
			if !listed {
				v.Lines = append(v.Lines, name+" passes and is not in runc-passes.txt")
			}
		case listed && !ran:
			v.fail("%s did not run", name)
		case listed:
			v.fail("%s", r.describe(name))
		case ran && r.Status == string(failed):
			v.skip("%s fails here with runc too", name)
		case ran:
			v.skip("%s skips itself", name)
		default:
			v.skip("%s was not run", name)
		}
	}
	return v
}

func (v *Verdict) fail(format string, args ...any) {
	v.Tally.Failed++
	v.Lines = append(v.Lines, "FAILED: "+fmt.Sprintf(format, args...))
}

func (v *Verdict) skip(format string, args ...any) {
	v.Tally.Skipped++
	v.Lines = append(v.Lines, "skipped: "+fmt.Sprintf(format, args...))
}

// describe says in one line how a test failed.
func (o Outcome) describe(name string) string {
	s := name + " fails"
	if o.Status == string(skipped) {
		s = name + " skips itself"
	}
	if o.Why != "" {
		s += ": " + o.Why
	}
	return s + " (" + o.Log + ")"
}
