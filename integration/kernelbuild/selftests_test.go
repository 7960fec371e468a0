// SPDX-License-Identifier: Apache-2.0

package kernelbuild

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Some Makefiles leave programs beside their sources, of which nothing is to go
// along.
func TestMoveSelftests(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{"prog": "\x7fELF\x02\x01", "prog.c": "int main;", "run.sh": "#!/bin/sh", "short": "\x7fE"} {
		if err := os.WriteFile(filepath.Join(from, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := moveSelftests(from, to); err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadDir(to)
	if err != nil || len(list) != 1 || list[0].Name() != "prog" {
		t.Errorf("moved %v, %v; want prog alone", list, err)
	}
}

// The compiler links statically, but not what looks for the vDSO, nor what has
// asked for something else.
func TestSelftestsCompiler(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Fatal("no gcc: install it with make deps")
	}
	dir := t.TempDir()
	cc := filepath.Join(dir, "cc")
	if err := os.WriteFile(cc, selftestsCompiler, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		source string
		args   []string
		static bool
	}{
		"plain":   {"int main(void) { return 0; }", nil, true},
		"pie":     {"int main(void) { return 0; }", []string{"-pie", "-fPIE"}, false},
		"dlopen":  {"#include <dlfcn.h>\nint main(void) { return !dlopen(\"linux-vdso.so.1\", RTLD_LAZY); }", []string{"-ldl"}, false},
		"library": {"int f(void) { return 0; }", []string{"-shared", "-fPIC"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c, out := filepath.Join(dir, name+".c"), filepath.Join(dir, name)
			if err := os.WriteFile(c, []byte(test.source), 0o644); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(cc, append([]string{c, "-o", out}, test.args...)...)
			cmd.Env = append(os.Environ(), "SELFTESTS_LIBRARIES="+dir)
			if text, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, text)
			}
			if got := isStatic(t, out); got != test.static {
				t.Errorf("static: %t, want %t", got, test.static)
			}
		})
	}
	bad := exec.Command(cc, filepath.Join(dir, "missing.c"))
	bad.Env = append(os.Environ(), "SELFTESTS_LIBRARIES="+dir)
	if err := bad.Run(); err == nil {
		t.Error("a source that is not there is compiled")
	}
}

// isStatic tells whether a program has no part for the dynamic linker.
func isStatic(t *testing.T, path string) bool {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_DYNAMIC {
			return false
		}
	}
	return true
}
