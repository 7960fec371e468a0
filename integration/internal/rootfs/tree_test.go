// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func sample() *Tree {
	t := NewMerged()
	t.WriteFile("bin/a", 0o4755, []byte("aa"))
	t.Mkdir("lib", 0o755) // as a package that does not know of the merge
	t.Symlink("a", "usr/bin/b")
	t.WriteFile("etc/deep/file", 0o640, []byte("x"))
	return t
}

func TestMergedNames(t *testing.T) {
	tr := sample()
	if _, ok := tr.nodes["usr/bin/a"]; !ok {
		t.Error("bin/a was not put into usr/bin")
	}
	if n, ok := tr.Lookup("bin/b"); !ok || n.Target != "a" {
		t.Errorf("Lookup(bin/b) = %+v, %v", n, ok)
	}
	if n := tr.nodes["lib"]; n.Kind != Symlink {
		t.Error("a package's /lib replaced the link")
	}
	if n := tr.nodes["etc/deep"]; n == nil || n.Kind != Dir {
		t.Error("parent directory is missing")
	}
	tr.Remove("etc")
	if _, ok := tr.Lookup("etc/deep/file"); ok {
		t.Error("Remove left a file")
	}
	if _, ok := tr.Lookup("../../bin/a"); !ok {
		t.Error("a name with .. must stay inside the tree")
	}
}

func TestTarRoundTrip(t *testing.T) {
	tr := sample()
	tr.nodes["usr/bin/hard"] = tr.nodes["usr/bin/a"]
	var buf bytes.Buffer
	if err := tr.WriteTar(&buf); err != nil {
		t.Fatal(err)
	}
	got := NewMerged()
	if err := got.AddTar(bytes.NewReader(buf.Bytes()), nil); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.nodes, tr.nodes) {
		t.Errorf("got %v\nwant %v", got.Names(), tr.Names())
	}
	if got.nodes["usr/bin/hard"] != got.nodes["usr/bin/a"] {
		t.Error("the hard link became a copy")
	}
	var again bytes.Buffer
	if err := got.WriteTar(&again); err != nil || !bytes.Equal(again.Bytes(), buf.Bytes()) {
		t.Errorf("second tar differs, %v", err)
	}
}

func TestAddTarRefuses(t *testing.T) {
	for name, h := range map[string]*tar.Header{
		"device":    {Name: "dev/null", Typeflag: tar.TypeChar},
		"dead link": {Name: "a", Typeflag: tar.TypeLink, Linkname: "missing"},
	} {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		w.Close()
		if err := New().AddTar(&buf, nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := New().AddTar(strings.NewReader("garbage that is no tar stream at all"), nil); err == nil {
		t.Error("garbage: no error")
	}
}

func TestWriteDir(t *testing.T) {
	dir := t.TempDir()
	tr := sample()
	tr.nodes["usr/bin/hard"] = tr.nodes["usr/bin/a"]
	if err := tr.WriteDir(dir); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(filepath.Join(dir, "bin/a"))
	if err != nil || st.Mode() != os.ModeSetuid|0o755 || st.Size() != 2 {
		t.Errorf("bin/a: %v, %v", st, err)
	}
	hard, err := os.Stat(filepath.Join(dir, "usr/bin/hard"))
	if err != nil || !os.SameFile(st, hard) {
		t.Errorf("hard link: %v", err)
	}
}

func TestWriteCpio(t *testing.T) {
	tr := New()
	tr.WriteFile("init", 0o755, []byte("hello"))
	var buf bytes.Buffer
	if err := tr.WriteCpio(&buf); err != nil {
		t.Fatal(err)
	}
	b := buf.String()
	if !strings.HasPrefix(b, "07070100000001000081ed") {
		t.Errorf("header %q", b[:30])
	}
	if i := strings.Index(b, "hello"); i%4 != 0 {
		t.Errorf("data at offset %d, not a multiple of 4", i)
	}
	if !strings.Contains(b, "TRAILER!!!") || len(b)%4 != 0 {
		t.Errorf("bad end, length %d", len(b))
	}
}
