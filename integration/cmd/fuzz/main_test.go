// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	got := parse(strings.NewReader("FuzzA\nFuzzB\nok  \tx/y\t0.1s\n?   \tx/z\t[no test files]\nok  \tx/w\t0.1s\nFuzzC\nok x/v 0.1s\n"))
	want := []target{{"x/y", "FuzzA"}, {"x/y", "FuzzB"}, {"x/v", "FuzzC"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestRun fuzzes a module of two targets, one of which fails.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module x\n\ngo 1.24\n",
		"x_test.go": `package x

import "testing"

func FuzzGood(f *testing.F) { f.Add(1); f.Fuzz(func(*testing.T, int) {}) }
func FuzzBad(f *testing.F)  { f.Add(1); f.Fuzz(func(t *testing.T, n int) { t.Fatal(n) }) }
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		filter, last string
		fails        bool
	}{
		{"Good", "1 passed, 0 failed, 1 skipped", false},
		{"", "1 passed, 1 failed, 0 skipped", true},
		{"None", "0 passed, 0 failed, 2 skipped", true},
	} {
		var out strings.Builder
		err := run(t.Context(), dir, tt.filter, 50*time.Millisecond, &out)
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if got := lines[len(lines)-1]; got != tt.last || (err != nil) != tt.fails {
			t.Errorf("%q: got %q and %v, want %q", tt.filter, got, err, tt.last)
		}
	}
}

// TestOnlyLate: no word more may be in what is tried again.
func TestOnlyLate(t *testing.T) {
	const late = "fuzz: elapsed: 0s, gathering baseline coverage: 0/3 completed\n" +
		"fuzz: elapsed: 3s, execs: 107969 (0/sec), new interesting: 0 (total: 3)\n" +
		"--- FAIL: FuzzA (3.08s)\n    context deadline exceeded\nFAIL\nexit status 1\nFAIL\tx/y\t3.087s\n"
	for text, want := range map[string]bool{
		late:                                   true,
		strings.ReplaceAll(late, "A (", "B ("): false,
		strings.Replace(late, "\nFAIL\n", "\n    Failing input written to testdata/fuzz/FuzzA/1\nFAIL\n", 1):    false,
		strings.Replace(late, "    context", "    fuzzing process hung or terminated unexpectedly: context", 1): false,
		strings.Replace(late, "--- FAIL", "panic: runtime error\n--- FAIL", 1):                                  false,
		strings.Replace(late, "deadline exceeded", "canceled", 1):                                               false,
		"": false,
	} {
		if got := (target{"x/y", "FuzzA"}).onlyLate(text); got != want {
			t.Errorf("%v for\n%s", got, text)
		}
	}
}
