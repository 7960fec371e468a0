// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"testing"
)

func TestTally(t *testing.T) {
	ev := func(action, test string) string {
		return fmt.Sprintf(`{"Action":%q,"Package":"p","Test":%q}`+"\n", action, test)
	}
	for _, tt := range []struct {
		name, in, last string
		code           int
	}{
		{"nothing", "", "0 passed, 0 failed, 0 skipped", 1},
		{"one", ev("pass", "A"), "1 passed, 0 failed, 0 skipped", 0},
		{"only skipped", ev("skip", "A"), "0 passed, 0 failed, 1 skipped", 1},
		{"subtests", ev("pass", "A/x") + ev("fail", "A/y") + ev("fail", "A") + ev("pass", "B") + ev("fail", ""), "2 passed, 1 failed, 0 skipped", 1},
		{"slash in a name", ev("pass", "A/x/y/z") + ev("pass", "A/x/y") + ev("pass", "A"), "1 passed, 0 failed, 0 skipped", 0},
		{"parent alone", ev("pass", "A/x") + ev("fail", "A"), "1 passed, 1 failed, 0 skipped", 1},
		{"does not build", `{"Action":"build-output","Output":"x.go:1: no\n"}` + "\n" + ev("fail", ""), "0 passed, 1 failed, 0 skipped", 1},
		{"text between", "go: downloading x\n" + ev("pass", "A"), "1 passed, 0 failed, 0 skipped", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			code := run(strings.NewReader(tt.in), &out)
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if got := lines[len(lines)-1]; got != tt.last || code != tt.code {
				t.Errorf("got %q and exit code %d, want %q and %d", got, code, tt.last, tt.code)
			}
		})
	}
}

func TestOutputIsShown(t *testing.T) {
	var out strings.Builder
	run(strings.NewReader(`{"Action":"output","Package":"p","Test":"A","Output":"=== RUN A\n"}`+"\nplain\n"), &out)
	if got := out.String(); !strings.HasPrefix(got, "=== RUN A\nplain\n") {
		t.Errorf("got %q", got)
	}
}
