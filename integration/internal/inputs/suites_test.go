// SPDX-License-Identifier: Apache-2.0

package inputs

import (
	"os"
	"path/filepath"
	"testing"
)

func TestUseInstalledPerl(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.pl")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("sub set_up_inc {\n    @INC = () unless is_miniperl;\n    unshift @INC, @_;\n}\n")
	if err := useInstalledPerl(path); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	const want = "sub set_up_inc {\n    return;\n    @INC = () unless is_miniperl;\n    unshift @INC, @_;\n}\n"
	if err != nil || string(got) != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	// Another Perl may do it in another way: then nothing is guessed.
	write("sub set_inc {\n}\n")
	if err := useInstalledPerl(path); err == nil {
		t.Error("a test.pl without the function is accepted")
	}
}

func TestKeepSuiteFile(t *testing.T) {
	for name, want := range map[string]bool{
		"usr/lib/jvm/java-17-openjdk-amd64/lib/modules":          true,
		"usr/lib/jvm/java-17-openjdk-amd64/jmods/java.base.jmod": false,
		"usr/lib/x86_64-linux-gnu/libLLVM-15.so.1":               false,
		"usr/lib/x86_64-linux-gnu/dri/swrast_dri.so":             false,
		"usr/share/doc/perl/copyright":                           false,
		"usr/bin/stress-ng":                                      true,
	} {
		if got := keepSuiteFile(name); got != want {
			t.Errorf("%s: %t, want %t", name, got, want)
		}
	}
}

// A package's folder is copied with its testdata, and without packages below it.
func TestCopyPackage(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "os")
	for _, name := range []string{"file.go", "testdata/dir/x", "signal/signal.go"} {
		path := filepath.Join(from, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := copyPackage(from, to); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"file.go": true, "testdata/dir/x": true, "signal": false} {
		if _, err := os.Stat(filepath.Join(to, name)); (err == nil) != want {
			t.Errorf("%s: %v, want it to be there: %t", name, err, want)
		}
	}
}
