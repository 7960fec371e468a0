// SPDX-License-Identifier: Apache-2.0

package labcmd

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

func TestUsageNamesEveryCommandOnce(t *testing.T) {
	var b bytes.Buffer
	usage(&b)
	for _, c := range commands() {
		if n := strings.Count(b.String(), "  lab "+c.name); n != 1 {
			t.Errorf("%s is listed %d times", c.name, n)
		}
		if c.help == "" || strings.Contains(c.help, "\n") {
			t.Errorf("%s: help %q is not one line", c.name, c.help)
		}
	}
}

func TestExitCodes(t *testing.T) {
	checkout := t.TempDir()
	if err := os.WriteFile(checkout+"/go.mod", []byte("module github.com/xcontainer/xcontainer\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Chdir(checkout)
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	for _, tc := range []struct {
		args []string
		want int
	}{
		{nil, 0},
		{[]string{"help"}, 0},
		{[]string{"nonsense"}, exitUsage},
		{[]string{"down", "extra"}, exitUsage},
		{[]string{"cp", "a", "b"}, exitUsage},
		{[]string{"cp", "lab:a", "lab:b"}, exitUsage},
		{[]string{"logs", "nosuch"}, exitUsage},
		{[]string{"up", "--mem=1"}, exitFailed},
		{[]string{"up", "--nosuch"}, exitUsage},
		{[]string{"up", "--pti=on"}, exitFailed},
		{[]string{"up", "--no-xen", "--pti=maybe"}, exitFailed},
		{[]string{"up", "--no-xen", "--xen=4.17"}, exitFailed},
		{[]string{"exec", "-h"}, 0},
		{[]string{"exec", "true"}, exitLab}, // not running
		{[]string{"status"}, exitFailed},
		{[]string{"down"}, 0}, // ends nothing, so it is down
	} {
		if got := Main(tc.args); got != tc.want {
			t.Errorf("lab %s: code %d, want %d", strings.Join(tc.args, " "), got, tc.want)
		}
	}
}

func TestProgressWithoutTerminal(t *testing.T) {
	var b bytes.Buffer
	p := &progress{w: &b}
	p.step("quick")
	p.step("slow")
	p.print("quick") // its timer ran when it had just ended
	p.print("slow")
	p.finish(true)
	p.print("slow")
	if got, want := b.String(), "lab: slow\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestProgressOnTerminal(t *testing.T) {
	var b bytes.Buffer
	p := &progress{w: &b, live: true}
	p.step("quick")
	p.finish(true)
	if strings.Contains(b.String(), "\n") {
		t.Errorf("a quick step left a line: %q", b.String())
	}
	p.step("broken")
	p.finish(false)
	if !strings.Contains(b.String(), "lab: broken (") {
		t.Errorf("a failed step left no line: %q", b.String())
	}
}
