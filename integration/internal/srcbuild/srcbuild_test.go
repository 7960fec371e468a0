// SPDX-License-Identifier: Apache-2.0

package srcbuild

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func TestCheckNamesPackages(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := Check([]Tool{{"one", "pkg-a"}, {"two", "pkg-b"}, {"three", "pkg-a"}})
	if !errors.Is(err, ErrTools) || !strings.HasSuffix(err.Error(), "install pkg-a pkg-b`") {
		t.Errorf("got %v", err)
	}
	header := filepath.Join(t.TempDir(), "a.h")
	if err := Check([]Tool{{header, "pkg-dev"}}); !errors.Is(err, ErrTools) || !strings.HasSuffix(err.Error(), "install pkg-dev`") {
		t.Errorf("no header: %v", err)
	}
	if err := os.WriteFile(header, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Check([]Tool{{header, "pkg-dev"}}); err != nil {
		t.Errorf("a header is there, but: %v", err)
	}
	if err := Check(nil); err != nil {
		t.Errorf("nothing is missing, but: %v", err)
	}
}

func TestCommandEnvironment(t *testing.T) {
	t.Setenv("MAKEFLAGS", "-j100")
	out, err := Output(Command(context.Background(), "", []string{"OWN=1"}, "env"))
	if err != nil || strings.Contains(out, "MAKEFLAGS") || !strings.Contains(out, "OWN=1\n") || !strings.Contains(out, "LC_ALL=C\n") {
		t.Errorf("environment %q, %v", out, err)
	}
}

func TestOutputTellsTheEnd(t *testing.T) {
	_, err := Output(Command(context.Background(), "", nil, "sh", "-c", "head -c 9000 /dev/zero | tr '\\0' x; echo the reason >&2; exit 3"))
	if err == nil || !strings.HasSuffix(err.Error(), "the reason") || len(err.Error()) > errorTail+100 {
		t.Errorf("got %v", err)
	}
}

func TestSeries(t *testing.T) {
	for text, want := range map[string][]string{
		"a.patch\nsub/b.patch\n":    {"a.patch", "sub/b.patch"},
		"# why\n\na.patch # here\n": {"a.patch"},
		"a.patch -p1\n":             {"a.patch"},
		"a.patch -p2\n":             nil,
		"../a.patch\n":              nil,
		"/a.patch\n":                nil,
		"a.patch b.patch\n":         nil,
	} {
		got, err := Series(fstest.MapFS{"d/series": {Data: []byte(text)}}, "d")
		if !slices.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%q: got %q, %v, want %q", text, got, err, want)
		}
	}
	if _, err := Series(fstest.MapFS{}, "d"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no series: %v", err)
	}
}

// patchOf changes one line of a file of three.
func patchOf(file, from, to string) []byte {
	return []byte("why\n--- a/" + file + "\n+++ b/" + file + "\n@@ -1,3 +1,3 @@\n one\n-" + from + "\n+" + to + "\n three\n")
}

func TestApplySeries(t *testing.T) {
	tree := t.TempDir()
	file := filepath.Join(tree, "f")
	if err := os.WriteFile(file, []byte("one\ntwo\nthree\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	patches := fstest.MapFS{
		"p/series":  {Data: []byte("1.patch\n2.patch\n")},
		"p/1.patch": {Data: patchOf("f", "two", "zwei")},
		"p/2.patch": {Data: patchOf("f", "zwei", "deux")},
	}
	if err := ApplySeries(context.Background(), tree, patches, "p"); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "one\ndeux\nthree\n" {
		t.Errorf("file is %q, %v", b, err)
	}
	// What is applied already, or does not fit, must not go unnoticed.
	if err := ApplySeries(context.Background(), tree, patches, "p"); err == nil || !strings.Contains(err.Error(), "1.patch") {
		t.Errorf("second time: %v", err)
	}
}
