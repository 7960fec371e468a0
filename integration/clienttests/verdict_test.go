// SPDX-License-Identifier: Apache-2.0

package clienttests

import (
	"strings"
	"testing"

	"github.com/xcontainer/xcontainer/integration/internal/tally"
)

var sampleLists = Lists{
	RuncPasses: []string{"TestA", "TestB", "TestC", "TestE"},
	Exceptions: map[string]string{"TestC": "needs a host process"},
	NeverRun:   map[string]string{"TestN": "hangs"},
}

func outcomes(s string) map[string]Outcome {
	m := map[string]Outcome{}
	for _, f := range strings.Fields(s) {
		name, st, _ := strings.Cut(f, "=")
		m[name] = Outcome{Status: st, Log: "log"}
	}
	return m
}

func TestJudge(t *testing.T) {
	all := []string{"TestA", "TestB", "TestC", "TestD", "TestE", "TestN"}
	for name, tc := range map[string]struct {
		judge    func(Lists, []string, map[string]Outcome) Verdict
		outcomes string
		want     tally.Tally
		says     string
	}{
		"ours, as it should be": {JudgeOurs, "TestA=PASS TestB=PASS TestC=FAIL TestE=PASS", tally.Tally{Passed: 3, Skipped: 3}, "TestC is an exception: needs"},
		"ours, one fails":       {JudgeOurs, "TestA=PASS TestB=FAIL TestC=FAIL TestE=PASS", tally.Tally{Passed: 2, Failed: 1, Skipped: 3}, "TestB fails (log)"},
		"ours, one skips":       {JudgeOurs, "TestA=PASS TestB=SKIP TestC=FAIL TestE=PASS", tally.Tally{Passed: 2, Failed: 1, Skipped: 3}, "TestB skips itself (log)"},
		"ours, one is missing":  {JudgeOurs, "TestA=PASS TestC=FAIL TestE=PASS", tally.Tally{Passed: 2, Failed: 1, Skipped: 3}, "TestB did not run"},
		"ours, exception passes": {JudgeOurs, "TestA=PASS TestB=PASS TestC=PASS TestE=PASS", tally.Tally{Passed: 3, Failed: 1, Skipped: 2},
			"TestC passes, so it must leave"},
		"runc, as it should be": {JudgeRunc, "TestA=PASS TestB=PASS TestC=PASS TestD=FAIL TestE=PASS", tally.Tally{Passed: 4, Skipped: 2}, "TestD fails here"},
		"runc, one fails":       {JudgeRunc, "TestA=FAIL TestB=PASS TestC=PASS TestD=SKIP TestE=PASS", tally.Tally{Passed: 3, Failed: 1, Skipped: 2}, "TestA fails (log)"},
		"runc, a new one":       {JudgeRunc, "TestA=PASS TestB=PASS TestC=PASS TestD=PASS TestE=PASS", tally.Tally{Passed: 5, Skipped: 1}, "TestD passes and is not in"},
	} {
		v := tc.judge(sampleLists, all, outcomes(tc.outcomes))
		if v.Tally != tc.want {
			t.Errorf("%s: %v, want %v", name, v.Tally, tc.want)
		}
		if s := strings.Join(v.Lines, "\n"); !strings.Contains(s, tc.says) {
			t.Errorf("%s: %q not in %q", name, tc.says, s)
		}
	}
}

func TestCommittedLists(t *testing.T) {
	l, err := Committed()
	if err == nil {
		err = l.Check()
	}
	if err != nil {
		t.Fatal(err)
	}
	if n := len(l.RuncPasses); n < 70 {
		t.Errorf("runc-passes.txt has %d tests, want at least 70", n)
	}
	if n := len(l.Short); n != 20 {
		t.Errorf("short.txt has %d tests, want 20", n)
	}
}

func TestListsRefuse(t *testing.T) {
	many := map[string]string{}
	for _, c := range "abcdefghijklm" {
		many["Test"+string(c)] = "because"
	}
	for name, l := range map[string]Lists{
		"too many exceptions":   {Exceptions: many},
		"an unknown exception":  {Exceptions: map[string]string{"TestA": "because"}},
		"an unknown short test": {Short: []string{"TestA"}},
		"an excepted short test": {RuncPasses: []string{"TestA"}, Short: []string{"TestA"},
			Exceptions: map[string]string{"TestA": "because"}},
	} {
		if l.Check() == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for _, text := range []string{"TestA", "TestA:", "TestA: x\nTestA: y", " x"} {
		if m, err := parseReasons(text); err == nil {
			t.Errorf("%q gives %v", text, m)
		}
	}
	m, err := parseReasons("# c\nTestA: one\n two\n\nTestB: three\n")
	if err != nil || m["TestA"] != "one two" || m["TestB"] != "three" {
		t.Errorf("%v, %v", m, err)
	}
}
