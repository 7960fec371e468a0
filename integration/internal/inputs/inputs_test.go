// SPDX-License-Identifier: Apache-2.0

package inputs

import (
	"bytes"
	"compress/gzip"
	"context"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/xcontainer/xcontainer/integration/internal/cache"
	"github.com/xcontainer/xcontainer/integration/internal/rootfs"
)

func TestXenFromFile(t *testing.T) {
	c, err := cache.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b := NewBuilder(c, nil)
	dir := t.TempDir()
	plain := []byte("\x7fELF and so on")
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write(plain)
	z.Close()
	for name, data := range map[string][]byte{"xen": plain, "xen.gz": packed.Bytes()} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := b.Xen(context.Background(), path)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := os.ReadFile(got); err != nil || !bytes.Equal(out, plain) {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
	bad := filepath.Join(dir, "bad")
	if err := os.WriteFile(bad, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, spec := range []string{bad, "4.99", "xkernel-4.99", "xkernel-", filepath.Join(dir, "missing")} {
		if _, err := b.Xen(context.Background(), spec); err == nil {
			t.Errorf("Xen(%s) gave no error", spec)
		}
	}
}

func TestXkernelNames(t *testing.T) {
	for name, want := range map[string]string{
		"xkernel": DefaultXen, "xkernel-4.17": "4.17", "xkernel-4.20": "4.20",
		"xkernel-4.18": "", "xkernel-": "", "xkernel4.17": "", "4.17": "", "": "",
	} {
		got, ok := xkernelVersion(name)
		if ok != (want != "") || ok && got != want {
			t.Errorf("%q is %q, %v, want %q", name, got, ok, want)
		}
	}
	// There is an X-Kernel of each Xen that the lab has.
	names := XenVersions()
	for v := range xenReleases {
		if !slices.Contains(names, v) || !slices.Contains(names, "xkernel-"+v) {
			t.Errorf("%v has not both kinds of %s", names, v)
		}
	}
}

func TestArm64True(t *testing.T) {
	f, err := elf.NewFile(bytes.NewReader(arm64True()))
	if err != nil {
		t.Fatal(err)
	}
	if f.Machine != elf.EM_AARCH64 || f.Type != elf.ET_EXEC || len(f.Progs) != 1 {
		t.Errorf("header %+v, %d segments", f.FileHeader, len(f.Progs))
	}
	p := f.Progs[0]
	if f.Entry < p.Vaddr || f.Entry+12 != p.Vaddr+p.Filesz {
		t.Errorf("entry %#x outside segment %+v", f.Entry, p.ProgHeader)
	}
}

func TestScriptsParse(t *testing.T) {
	ents, err := dom0Files.ReadDir("dom0")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range ents {
		b, err := dom0Files.ReadFile("dom0/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(b, []byte("#!")) {
			continue
		}
		cmd := exec.Command("sh", "-n")
		cmd.Stdin = bytes.NewReader(b)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", e.Name(), err, out)
		}
	}
}

func TestDom0FilesComplete(t *testing.T) {
	root := rootfs.NewMerged()
	k := &Kernel{Boot: []string{"a.ko"}, Load: []string{"a.ko", "b.ko"}}
	if err := addDom0Files(root, k); err != nil {
		t.Fatal(err)
	}
	list, err := root.ReadFile("usr/lib/lab/load.list")
	if err != nil || string(list) != "b.ko\n" {
		t.Errorf("load list %q, %v", list, err)
	}
	tab, err := root.ReadFile("etc/inittab")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(tab)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		prog := strings.Fields(f[len(f)-1])[0]
		if _, ok := root.Lookup(prog); !ok && prog != "/usr/bin/busybox" {
			t.Errorf("inittab starts %s, which is not there", prog)
		}
	}
}

func TestWriteImagesReproducible(t *testing.T) {
	tree := rootfs.New()
	addDirs(tree)
	if err := addApp(tree, []byte("root:x:0:0::/:/bin/sh\n"), []byte("root:x:0:\n")); err != nil {
		t.Fatal(err)
	}
	var sums []string
	for range 2 {
		layers, err := layered(tree)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "i.tar")
		if err := writeImages(path, []image{{name: BusyboxImage, arch: "amd64", layers: layers}}); err != nil {
			t.Fatal(err)
		}
		sum, err := cache.HashFile(path)
		if err != nil {
			t.Fatal(err)
		}
		sums = append(sums, sum)
	}
	if sums[0] != sums[1] {
		t.Error("two writes of one image differ")
	}
}
