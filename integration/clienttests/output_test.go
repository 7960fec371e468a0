// SPDX-License-Identifier: Apache-2.0

package clienttests

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

func TestParseLine(t *testing.T) {
	for line, want := range map[string]event{
		marker + "=== RUN   TestA\n":                       {name: "TestA", begins: true},
		marker + "=== CONT  TestA\n":                       {name: "TestA", begins: true},
		marker + "=== PAUSE TestA\n":                       {begins: true},
		"no end of line" + marker + "=== RUN   TestA\n":    {name: "TestA", begins: true},
		marker + "--- PASS: TestA (1.50s)\n":               {name: "TestA", status: passed, took: 1500 * time.Millisecond},
		"x" + marker + "--- FAIL: TestB (0.00s)\r\n":       {name: "TestB", status: failed},
		marker + "--- SKIP: TestC (0.01s)\n":               {name: "TestC", status: skipped, took: 10 * time.Millisecond},
		marker + "=== RUN   TestA/sub\n":                   {},
		marker + "    --- FAIL: TestA/sub (0.01s)\n":       {},
		marker + "=== NAME  TestA\n":                       {},
		"--- PASS: TestA (1.50s)\n":                        {},
		marker + "--- PASS: TestA (99999999999999999999s)": {},
		marker + "PASS\n":                                  {},
		"\n":                                               {},
	} {
		got, ok := parseLine(line)
		if got != want || ok != (want != event{}) {
			t.Errorf("%q: got %+v, %v, want %+v", line, got, ok, want)
		}
	}
}

func TestLines(t *testing.T) {
	var got []string
	l := &lines{each: func(s string) { got = append(got, s) }}
	for _, p := range []string{"a", "b\nc", "\n\nd\ne"} {
		fmt.Fprint(l, p)
	}
	if want := []string{"ab\n", "c\n", "\n", "d\n"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
