// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"slices"
	"testing"
)

func TestPlan(t *testing.T) {
	a, b := plan(7, 100), plan(7, 100)
	if !slices.Equal(a, b) {
		t.Error("one seed gives two plans")
	}
	if slices.Equal(a, plan(8, 100)) {
		t.Error("two seeds give one plan")
	}
	if !slices.Equal(a[:20], plan(7, 20)) {
		t.Error("a short plan is not the beginning of a long one")
	}
	for i := 0; i+len(victims) <= len(a); i += len(victims) {
		seen := map[victim]bool{}
		for _, bl := range a[i : i+len(victims)] {
			seen[bl.victim] = true
		}
		if len(seen) != len(victims) {
			t.Errorf("blows %d and on hit %d victims of %d", i, len(seen), len(victims))
		}
	}
	at := map[step]int{}
	for _, bl := range a {
		at[bl.step]++
		if bl.delay < 0 || bl.delay > longest[bl.step] {
			t.Errorf("%v", bl)
		}
		if bl.victim == guest && bl.step != stepExec && bl.step != stepAttach {
			t.Errorf("%v: no process of the container runs then", bl)
		}
	}
	if len(at) != int(steps) {
		t.Errorf("blows in %d steps of %d", len(at), steps)
	}
}
