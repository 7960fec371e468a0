// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := Files.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestConfigReasons wants exactly one reason above each option, and in each file
// each option once.
func TestConfigReasons(t *testing.T) {
	for _, name := range []string{Config, UP.Fragment, Debug.Fragment} {
		t.Run(path.Base(name), func(t *testing.T) { checkReasons(t, read(t, name)) })
	}
}

func checkReasons(t *testing.T, config string) {
	option := regexp.MustCompile(`^CONFIG_[A-Z0-9_]+=(y|n|-?[0-9]+|0x[0-9a-f]+|"[^"]*")$`)
	seen := map[string]int{}
	above := ""
	for i, l := range strings.Split(strings.TrimSuffix(config, "\n"), "\n") {
		n := i + 1
		if strings.HasPrefix(l, "#") || l == "" {
			above = l
			continue
		}
		if !option.MatchString(l) {
			t.Errorf("line %d: %q is no option", n, l)
		}
		if !strings.HasPrefix(above, "# ") || strings.HasPrefix(above, "# ---") {
			t.Errorf("line %d: %s has no reason on the line above", n, l)
		}
		name, _, _ := strings.Cut(l, "=")
		if seen[name] != 0 {
			t.Errorf("line %d: %s is on line %d already", n, name, seen[name])
		}
		seen[name] = n
		above = ""
	}
	if len(seen) == 0 {
		t.Error("no options")
	}
}

// TestFragments wants no line in a fragment that changes nothing, and the fragment
// behind the rest.
func TestFragments(t *testing.T) {
	config := read(t, Config)
	for _, f := range []Flavour{UP, Debug} {
		fragment := read(t, f.Fragment)
		for line := range strings.Lines(fragment) {
			if strings.HasPrefix(line, "CONFIG_") && strings.Contains(config, "\n"+line) {
				t.Errorf("%s: %s is in %s already", f.Fragment, strings.TrimSpace(line), Config)
			}
		}
		if text, err := f.Options(); err != nil || text != config+fragment {
			t.Errorf("%s: its options are not those of the two files (%v)", f.Vmlinux, err)
		}
	}
	if text, err := SMP.Options(); err != nil || text != config {
		t.Errorf("%s: its options are not those of the file (%v)", SMP.Vmlinux, err)
	}
	if _, err := (Flavour{Fragment: "config/none", Vmlinux: "x"}).Options(); err == nil {
		t.Error("a fragment that is missing is no error")
	}
}

// TestSeries wants the series to name every patch once and in order.
func TestSeries(t *testing.T) {
	series := strings.Fields(read(t, Series))
	files, err := fs.Glob(Files, Patches+"/*.patch")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, path.Base(f))
	}
	if !slices.Equal(series, names) {
		t.Errorf("series has %v, the folder %v", series, names)
	}
}

// TestLicences wants the identifier of the licence on top of the driver.
func TestLicences(t *testing.T) {
	for name := range Sources {
		if first, _, _ := strings.Cut(read(t, name), "\n"); !strings.Contains(first, "SPDX-License-Identifier: GPL-2.0") {
			t.Errorf("%s: first line is %q", name, first)
		}
	}
}
