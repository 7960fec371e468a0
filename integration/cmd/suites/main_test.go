// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/xcontainer/xcontainer/integration/suites"
)

func TestParse(t *testing.T) {
	o, err := parse([]string{"-only", "selftests", "-modes", "entry,off", "-vcpus", "2", "-short"})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(o.modes, []string{"entry", "off"}) || o.vcpus != 2 || !o.short || len(o.suites) != 1 {
		t.Errorf("got %+v", o)
	}
	for _, bad := range []string{"-only nothing", "-modes full,full", "-modes on", "-modes=", "-vcpus 0", "-vcpus 9", "-units (", "-xen none", "more"} {
		if _, err := parse(strings.Fields(bad)); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
	if _, err := parse(strings.Fields("-xen none -modes runc")); err != nil {
		t.Error(err)
	}
}

func TestFolders(t *testing.T) {
	for _, test := range []struct{ out, with, wantOut, wantWith string }{
		{"", "", "/c/build/suites", ""},
		{"a", "build/plain", "/c/a", "/c/build/plain"},
		{"/o", "/w", "/o", "/w"},
	} {
		o := options{out: test.out, with: test.with}
		if err := o.folders("/c"); err != nil || o.out != test.wantOut || o.with != test.wantWith {
			t.Errorf("%+v: %+v, %v", test, o, err)
		}
	}
	for _, with := range []string{"build/suites", "/c/build/suites/"} {
		o := options{with: with}
		if err := o.folders("/c"); err == nil {
			t.Errorf("-with %s is accepted, which is where the results go", with)
		}
	}
}

func TestChooseUnits(t *testing.T) {
	all := []string{"a", "b", "c"}
	o, err := parse([]string{"-units", "^[ab]$", "-short"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := o.choose(&suites.Suite{Short: []string{"b", "c"}}, all)
	if err != nil || !slices.Equal(got, []string{"b"}) {
		t.Errorf("got %q, %v; want b", got, err)
	}
	if _, err := o.choose(&suites.Suite{Short: []string{"d"}}, all); err == nil {
		t.Error("a short run with a unit that there is not is accepted")
	}
}

func TestCheckMode(t *testing.T) {
	const on = "mode bounce\nrewriting on\ncalls_direct 3\n"
	const entry = "mode shared\nrewriting off\n"
	for _, test := range []struct {
		mode, xen, text string
		ok              bool
	}{
		{"full", "4.17", on, true}, {"full", "xkernel", on, false}, {"full", "/boot/xen.gz", on, true},
		{"full", "4.17", "mode bounce\nrewriting off\n", false}, {"full", "4.17", "", false},
		{"full", "4.17", "mode off\nrewriting on\n", false}, {"full", "/boot/xen.gz", "mode off\nrewriting on\n", false},
		{"entry", "xkernel-4.20", entry, true}, {"entry", "4.20", entry, false}, {"entry", "4.17", on, false}, {"entry", "4.17", "", false},
		{"off", "4.17", "", true}, {"off", "4.17", "mode off\n", true}, {"off", "xkernel", entry, false}, {"off", "4.17", on, false},
		{modeRunc, "", "", true},
	} {
		if err := checkMode(test.mode, test.xen, test.text); (err == nil) != test.ok {
			t.Errorf("%s on %q with %q: %v", test.mode, test.xen, test.text, err)
		}
	}
}
