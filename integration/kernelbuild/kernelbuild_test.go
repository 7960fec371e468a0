// SPDX-License-Identifier: Apache-2.0

package kernelbuild

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/integration/internal/cache"
	"github.com/xcontainer/xcontainer/pkg/libos/kernel"
)

// unpacked is an entry as readCPIO finds it.
type unpacked struct {
	name                    string
	ino, mode, major, minor uint32
	data                    string
}

// readCPIO is written from the format's description, not from writeCPIO.
func readCPIO(t *testing.T, b []byte) []unpacked {
	t.Helper()
	var out []unpacked
	for pos := 0; ; {
		if pos+110 > len(b) || string(b[pos:pos+6]) != "070701" {
			t.Fatalf("no header at %d", pos)
		}
		var f [13]uint32
		for i := range f {
			v, err := strconv.ParseUint(string(b[pos+6+8*i:pos+14+8*i]), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			f[i] = uint32(v)
		}
		name := string(b[pos+110 : pos+110+int(f[11])-1])
		pos = (pos + 110 + int(f[11]) + 3) &^ 3
		data := string(b[pos : pos+int(f[6])])
		pos = (pos + len(data) + 3) &^ 3
		if name == trailer {
			if pos != len(b) {
				t.Fatalf("%d bytes after the trailer", len(b)-pos)
			}
			return out
		}
		out = append(out, unpacked{name, f[0], f[1], f[9], f[10], data})
	}
}

func TestInitramfs(t *testing.T) {
	agent := []byte("the agent")
	plain, err := Initramfs(agent, false)
	if err != nil {
		t.Fatal(err)
	}
	got := readCPIO(t, plain)
	want := []unpacked{
		{"dev", 1, unix.S_IFDIR | 0o755, 0, 0, ""},
		{"dev/console", 2, unix.S_IFCHR | 0o600, 5, 1, ""},
		{"dev/null", 3, unix.S_IFCHR | 0o666, 1, 3, ""},
		{"init", 4, unix.S_IFREG | 0o755, 0, 0, "the agent"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}

	packed, err := Initramfs(agent, true)
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(z); err != nil || !bytes.Equal(b, plain) {
		t.Errorf("compressed archive differs from the plain one (%v)", err)
	}
	if again, _ := Initramfs(agent, true); !bytes.Equal(again, packed) {
		t.Error("the same agent gives different archives")
	}
}

func TestCPIONames(t *testing.T) {
	for _, name := range []string{"", "/init", "a/../b", "a//b", "a/", ".", "a\x00b", strings.Repeat("x", maxName+1)} {
		if err := writeCPIO(io.Discard, []entry{{name: name}}); err == nil {
			t.Errorf("name %.20q is accepted", name)
		}
	}
}

func TestCompareConfig(t *testing.T) {
	for _, c := range []struct {
		name, want, got string
		bad             string // part of the error, or "" for none
	}{
		{"same", "CONFIG_A=y\n", "CONFIG_A=y\nCONFIG_B=y\n", ""},
		{"off by comment", "CONFIG_A=n\n", "# CONFIG_A is not set\n", ""},
		{"off by absence", "CONFIG_A=n\n", "", ""},
		{"string", "CONFIG_A=\"x=y\"\n", "CONFIG_A=\"x=y\"\n", ""},
		{"refused", "CONFIG_A=y\n", "# CONFIG_A is not set\n", "CONFIG_A=y (it has n)"},
		{"forced on", "CONFIG_A=n\n", "CONFIG_A=y\n", "CONFIG_A=n (it has y)"},
		{"other value", "CONFIG_A=8\n", "CONFIG_A=64\n", "CONFIG_A=8 (it has 64)"},
		{"comments", "# CONFIG_A=y\n", "", ""},
	} {
		err := compareConfig(c.want, c.got)
		if c.bad == "" && err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.bad != "" && (!errors.Is(err, ErrOption) || !strings.Contains(err.Error(), c.bad)) {
			t.Errorf("%s: error %v, want %s", c.name, err, c.bad)
		}
	}
}

func TestModuleLicence(t *testing.T) {
	for text, want := range map[string]string{
		"  Apache License\n   Version 2.0, January 2004":                                          "Apache-2.0",
		"Redistribution and use in source and\nbinary forms, with ...\nNeither the name of X nor": "BSD-3-Clause",
		"Permission is hereby granted, free of charge, to any person":                             "MIT",
		"something else": "see LICENSE",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "LICENSE.md"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := moduleLicence(dir); err != nil || got != want {
			t.Errorf("%.20q: got %q, %v, want %q", text, got, err, want)
		}
	}
	if _, err := moduleLicence(t.TempDir()); err == nil {
		t.Error("a module without a licence file is accepted")
	}
}

func TestManifestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), ManifestFile)
	m := Manifest{Kernel: KernelManifest{
		Version: "6.12.0-xcontainer", Files: []FileHash{{"a", "b"}}, Images: []Image{{"vmlinux", "c", "d"}, {"vmlinux-up", "e", "f"}},
	}}
	if err := writeManifest(path, m); err != nil {
		t.Fatal(err)
	}
	got, err := readManifest(path)
	if err != nil || got.Kernel.Version != m.Kernel.Version || !slices.Equal(got.Kernel.Files, m.Kernel.Files) ||
		!slices.Equal(got.Kernel.Images, m.Kernel.Images) || got.Initramfs != nil {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestInputs: every file counts for every kernel, but a fragment for its own only.
func TestInputs(t *testing.T) {
	keys := map[cache.Key]bool{}
	for _, c := range []struct {
		flavours []kernel.Flavour
		with     []string
		without  []string
	}{
		{Standard, []string{kernel.Config, kernel.Series, kernel.UP.Fragment, "driver/noxs.h"}, []string{kernel.Debug.Fragment}},
		{Debug, []string{kernel.Config, kernel.Series, kernel.Debug.Fragment, "driver/noxs.h"}, []string{kernel.UP.Fragment}},
		{[]kernel.Flavour{kernel.SMP}, []string{kernel.Config, kernel.Series}, []string{kernel.UP.Fragment, kernel.Debug.Fragment}},
	} {
		files, err := inputs(c.flavours)
		if err != nil {
			t.Fatal(err)
		}
		has := func(name string) bool {
			return slices.ContainsFunc(files, func(f FileHash) bool { return f.Name == name && len(f.SHA256) == 64 })
		}
		for _, name := range c.with {
			if !has(name) {
				t.Errorf("%s: no %s in %v", c.flavours[0].Vmlinux, name, files)
			}
		}
		for _, name := range c.without {
			if has(name) {
				t.Errorf("%s: %s counts", c.flavours[0].Vmlinux, name)
			}
		}
		keys[(&build{flavours: c.flavours, manifest: Manifest{Kernel: KernelManifest{Files: files}}}).key()] = true
	}
	if len(keys) != 3 {
		t.Errorf("%d keys for three builds", len(keys))
	}
}

// TestOutputs: a folder directly below the tree for each flavour.
func TestOutputs(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range append(slices.Clone(Standard), Debug...) {
		dir := objtreeOf("/t", f).path("")
		if filepath.Dir(dir) != "/t" || seen[dir] {
			t.Errorf("%s is built at %s", f.Vmlinux, dir)
		}
		seen[dir] = true
	}
}

// TestNotes wants a program that is no PV kernel to be refused.
func TestNotes(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := checkNotes(self); !errors.Is(err, ErrNotes) {
		t.Errorf("got %v, want ErrNotes", err)
	}
}

func TestReplace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, text := range []string{"one", "two", "two"} {
		if err := replace(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != text {
			t.Errorf("got %q, %v, want %q", b, err, text)
		}
	}
	if files, _ := filepath.Glob(path + "*"); len(files) != 1 {
		t.Errorf("files left: %v", files)
	}
}
