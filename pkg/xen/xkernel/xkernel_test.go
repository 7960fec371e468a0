// SPDX-License-Identifier: Apache-2.0

package xkernel

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

// series returns the patches for a version, in order.
func series(t *testing.T, xen string) []string {
	t.Helper()
	return strings.Fields(read(t, path.Join(Folder(xen), "series")))
}

// TestVersions wants a folder of patches for each version, and no other.
func TestVersions(t *testing.T) {
	var want []string
	for _, v := range Versions {
		want = append(want, v.Xen)
	}
	folders, err := fs.ReadDir(Files, patches)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range folders {
		got = append(got, f.Name())
	}
	if !slices.Equal(got, want) {
		t.Errorf("versions are %v, folders %v", want, got)
	}
}

// TestSeries wants each series to name every patch of its folder once and in
// order, and the same patches for all versions.
func TestSeries(t *testing.T) {
	for _, v := range Versions {
		files, err := fs.Glob(Files, Folder(v.Xen)+"/*.patch")
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, f := range files {
			names = append(names, path.Base(f))
		}
		got := series(t, v.Xen)
		if !slices.Equal(got, names) {
			t.Errorf("%s: series has %v, the folder %v", v.Xen, got, names)
		}
		if first := series(t, Versions[0].Xen); !slices.Equal(got, first) {
			t.Errorf("%s has %v, %s has %v", v.Xen, got, Versions[0].Xen, first)
		}
	}
}

// TestPatches wants the licence in each patch, and the number that guests use.
func TestPatches(t *testing.T) {
	for _, v := range Versions {
		all := ""
		for _, name := range series(t, v.Xen) {
			text := read(t, path.Join(Folder(v.Xen), name))
			if head, _, _ := strings.Cut(text, "\n---\n"); !strings.HasSuffix(head, "\n\nSPDX-License-Identifier: GPL-2.0-only") {
				t.Errorf("%s/%s: no licence above its changes", v.Xen, name)
			}
			all += text
		}
		if n := len(regexp.MustCompile(`(?m)^\+#define VMASST_TYPE_shared_mode +33$`).FindAllString(all, -1)); n != 1 {
			t.Errorf("%s: shared mode has its number %d times, want once", v.Xen, n)
		}
	}
}

// TestSecurityNotes wants every place that a patch changes to have its note,
// and every note its place.
func TestSecurityNotes(t *testing.T) {
	noted := map[string]int{}
	for _, m := range regexp.MustCompile("(?m)^### `([^`]+)`, ([a-z]+)").FindAllStringSubmatch(read(t, SecurityNotes), -1) {
		n := slices.Index([]string{"", "one", "two", "three", "four"}, m[2])
		if n < 1 || noted[m[1]] != 0 {
			t.Errorf("note of %s, %s: second of its kind, or no number", m[1], m[2])
		}
		noted[m[1]] = n
	}
	for _, v := range Versions {
		changed := map[string]int{}
		for _, name := range series(t, v.Xen) {
			file := ""
			for line := range strings.Lines(read(t, path.Join(Folder(v.Xen), name))) {
				if f, ok := strings.CutPrefix(strings.TrimSpace(line), "+++ b/"); ok {
					file = f
				} else if strings.HasPrefix(line, "@@ ") {
					changed[file]++
				}
			}
		}
		for file, n := range changed {
			if noted[file] != n {
				t.Errorf("%s: %d changes in %s, %d noted", v.Xen, n, file, noted[file])
			}
		}
		for file := range noted {
			if changed[file] == 0 {
				t.Errorf("%s: no change in %s, but a note", v.Xen, file)
			}
		}
	}
}
