// SPDX-License-Identifier: Apache-2.0

package daemons

import (
	"slices"
	"strings"
	"testing"

	"github.com/xcontainer/xcontainer/integration/internal/tally"
)

func TestChecks(t *testing.T) {
	for _, want := range []string{"start", "handshake", "leaks"} {
		if !slices.Contains(checks, want) {
			t.Errorf("no check %q in %q", want, checks)
		}
	}
	for i, name := range checks {
		if slices.Contains(checks[:i], name) {
			t.Errorf("the check %q is there twice", name)
		}
	}
}

func TestJudge(t *testing.T) {
	ignore := func(string, ...any) {}
	all := "ok " + strings.Join(checks, "\nok ") + "\n"
	if got, want := judge("noise\n"+all, checks, ignore), (tally.Tally{Passed: len(checks)}); got != want {
		t.Errorf("all ok: %v, want %v", got, want)
	}
	one := strings.Replace(all, "ok leaks", "not ok leaks: a domain", 1)
	if got, want := judge(one, checks, ignore), (tally.Tally{Passed: len(checks) - 1, Failed: 1}); got != want {
		t.Errorf("one not ok: %v, want %v", got, want)
	}
	if got, want := judge("", checks, ignore), (tally.Tally{Failed: len(checks)}); got != want {
		t.Errorf("silence: %v, want %v", got, want)
	}
}
