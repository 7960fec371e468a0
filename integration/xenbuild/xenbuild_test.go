// SPDX-License-Identifier: Apache-2.0

package xenbuild

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/xcontainer/xcontainer/integration/internal/apt"
	"github.com/xcontainer/xcontainer/integration/internal/cache"
	"github.com/xcontainer/xcontainer/pkg/xen/xkernel"
)

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// pack makes a source package of two archives with these files.
func pack(t *testing.T, upstream, debian map[string]string) apt.SourcePackage {
	t.Helper()
	dir := t.TempDir()
	src := apt.SourcePackage{Name: "x", Version: "4.17.1-1"}
	for name, files := range map[string]map[string]string{"x_4.17.1.orig.tar.xz": upstream, "x_4.17.1-1.debian.tar.xz": debian} {
		top := t.TempDir()
		write(t, top, files)
		path := filepath.Join(dir, name)
		names, err := os.ReadDir(top)
		if err != nil {
			t.Fatal(err)
		}
		args := []string{"-cJf", path, "-C", top}
		for _, n := range names {
			args = append(args, n.Name())
		}
		if out, err := exec.Command("tar", args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		src.Files = append(src.Files, apt.SourceFile{Path: path})
	}
	return src
}

func TestUnpack(t *testing.T) {
	const patch = "why\n--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n one\n-two\n+zwei\n three\n"
	upstream := map[string]string{"x-4.17.1/f": "one\ntwo\nthree\n"}
	for name, c := range map[string]struct {
		debian map[string]string
		want   string // of f, or "" for an error
	}{
		"patched":       {map[string]string{"debian/patches/series": "a.patch\n", "debian/patches/a.patch": patch}, "one\nzwei\nthree\n"},
		"no patches":    {map[string]string{"debian/control": "\n"}, upstream["x-4.17.1/f"]},
		"missing patch": {map[string]string{"debian/patches/series": "a.patch\n"}, ""},
		"does not fit":  {map[string]string{"debian/patches/series": "a.patch\n", "debian/patches/a.patch": strings.Replace(patch, "two", "2", 1)}, ""},
	} {
		tree := filepath.Join(t.TempDir(), "tree")
		err := unpack(context.Background(), pack(t, upstream, c.debian), tree)
		if (err != nil) != (c.want == "") {
			t.Errorf("%s: %v", name, err)
		}
		if c.want == "" {
			continue
		}
		if b, err := os.ReadFile(filepath.Join(tree, "f")); err != nil || string(b) != c.want {
			t.Errorf("%s: f is %q, %v, want %q", name, b, err, c.want)
		}
	}
	src := pack(t, upstream, map[string]string{"debian/control": "\n"})
	for _, bad := range []apt.SourcePackage{{Files: src.Files[:1]}, {Files: append(src.Files, src.Files...)}} {
		if err := unpack(context.Background(), bad, t.TempDir()); err == nil {
			t.Errorf("%d archives are accepted", len(bad.Files))
		}
	}
}

func TestPrepare(t *testing.T) {
	tree := t.TempDir()
	write(t, tree, map[string]string{"debian/xen-kconfig": "CONFIG_DEBUG=n\n", "xen/Makefile": ""})
	if err := prepare(tree); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(tree, "xen/.config")); err != nil || string(b) != "CONFIG_DEBUG=n\n" {
		t.Errorf("configuration is %q, %v", b, err)
	}
	if out, err := exec.Command(filepath.Join(tree, toolsFolder, "lsb_release"), "-is").Output(); err != nil || string(out) != "Debian\n" {
		t.Errorf("lsb_release says %q, %v", out, err)
	}
	if err := prepare(t.TempDir()); err == nil {
		t.Error("a tree without Debian's configuration is accepted")
	}
}

func TestUnknownVersion(t *testing.T) {
	c, err := cache.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Build(context.Background(), c, "4.18", nil); err == nil || !strings.Contains(err.Error(), "4.18") {
		t.Errorf("got %v", err)
	}
}

// TestKey wants each input to make another entry of the cache.
func TestKey(t *testing.T) {
	all := map[cache.Key]string{}
	add := func(what string, m Manifest) {
		b := build{manifest: m}
		if old, ok := all[b.key()]; ok {
			t.Errorf("%s and %s have one key", what, old)
		}
		all[b.key()] = what
	}
	for _, v := range xkernel.Versions {
		patches, err := hashPatches(v.Xen)
		if err != nil {
			t.Fatal(err)
		}
		m := Manifest{Sources: []FileHash{{"a", "1"}}, Patches: patches, Compiler: "gcc", Linker: "ld"}
		add(v.Xen, m)
		m.Compiler = "gcc 2"
		add(v.Xen+", other compiler", m)
		m.Patches = m.Patches[1:]
		add(v.Xen+", fewer patches", m)
		m.Sources = []FileHash{{"a", "2"}}
		add(v.Xen+", other source", m)
	}
}

func TestDescribe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	b := build{xen: "4.17", src: apt.SourcePackage{Name: "xen", Version: "4.17.7-1", Files: []apt.SourceFile{{Path: file}}}}
	if err := b.describe(context.Background()); err != nil {
		t.Fatal(err)
	}
	m := b.manifest
	if m.SourceVersion != "4.17.7-1" || len(m.Sources) != 1 || m.Sources[0].Name != "f" || len(m.Patches) == 0 || m.Compiler == "" || m.Linker == "" {
		t.Errorf("manifest is %+v", m)
	}
	// The release has moved on: the patches are not for it.
	b.src.Version = "4.171.0-1"
	if err := b.describe(context.Background()); err == nil {
		t.Error("a source package of another version is accepted")
	}
}

func TestTellsVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "xen")
	for text, want := range map[string]string{
		"\x7fELF\x00.7-xkernel\x00":     "4.17.7-xkernel",
		"\x7fELF\x00.4-pre-xkernel\x00": "4.17.4-pre-xkernel",
		"\x7fELF\x00.7\x00":             "",
		"\x7fELF\x00-xkernel\x00":       "",
		"\x00.7-xkernel\x00":            "",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := tellsVersion(path, "4.17"); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v, want %q", text, got, err, want)
		}
	}
}

func TestManifestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), ManifestFile)
	m := Manifest{Version: "4.17.7-xkernel", Sources: []FileHash{{"a", "b"}}, Patches: []FileHash{{"c", "d"}}, Licence: licence}
	if err := writeManifest(path, m); err != nil {
		t.Fatal(err)
	}
	if got, err := readManifest(path); err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	to := filepath.Join(dir, "to")
	for _, text := range []string{"one", "two"} {
		write(t, dir, map[string]string{"from": text})
		if err := replace(to, filepath.Join(dir, "from")); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(to); err != nil || string(b) != text {
			t.Errorf("got %q, %v, want %q", b, err, text)
		}
	}
	if files, _ := filepath.Glob(to + "*"); len(files) != 1 {
		t.Errorf("files left: %v", files)
	}
}
