// SPDX-License-Identifier: Apache-2.0

package kernelbuild

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/xcontainer/xcontainer/integration/internal/srcbuild"
	"github.com/xcontainer/xcontainer/pkg/libos/kernel"
)

// Errors of a build; test with errors.Is.
var (
	// ErrOption means that the kernel did not take an option of the
	// configuration.
	ErrOption = errors.New("kernel refuses option")
	// ErrNotes means that the result cannot be booted as a PV domain.
	ErrNotes = errors.New("kernel has no Xen notes")
)

// tools are what the build runs, and what the kernel's own build programs include.
var tools = []srcbuild.Tool{
	{Name: "gcc", Package: "gcc"}, {Name: "make", Package: "make"}, {Name: "ld", Package: "binutils"},
	{Name: "strip", Package: "binutils"}, {Name: "flex", Package: "flex"}, {Name: "bison", Package: "bison"},
	{Name: "bc", Package: "bc"}, {Name: "patch", Package: "patch"}, {Name: "tar", Package: "tar"},
	{Name: "xz", Package: "xz-utils"}, {Name: "apt-get", Package: "apt"}, {Name: "dpkg-deb", Package: "dpkg"},
	{Name: "/usr/include/gelf.h", Package: "libelf-dev"}, {Name: "/usr/include/stdio.h", Package: "libc6-dev"},
}

// addSources applies the patches to the tree and adds the driver.
func addSources(ctx context.Context, tree string) error {
	if err := srcbuild.ApplySeries(ctx, tree, kernel.Files, kernel.Patches); err != nil {
		return fmt.Errorf("kernelbuild: %w", err)
	}
	for from, to := range kernel.Sources {
		text, err := kernel.Files.ReadFile(from)
		if err != nil {
			return fmt.Errorf("kernelbuild: %w", err)
		}
		if err := os.WriteFile(filepath.Join(tree, to), text, 0o644); err != nil {
			return fmt.Errorf("kernelbuild: add %s: %w", to, err)
		}
	}
	return nil
}

// objtree is a folder for what is made of the source tree for one flavour.
type objtree struct {
	tree    string
	name    string // in the tree
	flavour kernel.Flavour
}

// objtreeOf names the folder of a flavour. It is directly below the tree, where the
// kernel's Makefile calls the sources by a relative name: what is built does not
// depend on where that is.
func objtreeOf(tree string, f kernel.Flavour) objtree {
	return objtree{tree: tree, name: "build-" + f.Vmlinux, flavour: f}
}

func (o objtree) path(name string) string { return filepath.Join(o.tree, o.name, name) }

// make runs the kernel's Makefile.
func (o objtree) make(ctx context.Context, args ...string) error {
	args = append(append([]string{"-s", "O=" + o.name, "ARCH=x86_64"}, identity...), args...)
	return run(ctx, o.tree, "make", args...)
}

// configure writes .config and checks that it says what was asked.
func (o objtree) configure(ctx context.Context) error {
	want, err := o.flavour.Options()
	if err != nil {
		return fmt.Errorf("kernelbuild: %w", err)
	}
	if err := o.make(ctx, "tinyconfig"); err != nil {
		return err
	}
	path := o.path(".config")
	tiny, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("kernelbuild: %w", err)
	}
	// Kconfig takes the last of several values.
	if err := os.WriteFile(path, append(tiny, want...), 0o644); err != nil {
		return fmt.Errorf("kernelbuild: %w", err)
	}
	if err := o.make(ctx, "olddefconfig"); err != nil {
		return err
	}
	got, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("kernelbuild: %w", err)
	}
	if err := compareConfig(want, string(got)); err != nil {
		return fmt.Errorf("kernelbuild: configure %s: %w", o.flavour.Vmlinux, err)
	}
	return nil
}

// compareConfig checks that every option of want has its value in got. An
// option that got does not name is off.
func compareConfig(want, got string) error {
	have := options(got)
	var bad []string
	for name, value := range options(want) {
		have, ok := have[name]
		if !ok {
			have = "n"
		}
		if have != value {
			bad = append(bad, fmt.Sprintf("%s=%s (it has %s)", name, value, have))
		}
	}
	if len(bad) == 0 {
		return nil
	}
	slices.Sort(bad)
	return fmt.Errorf("%w: %s", ErrOption, strings.Join(bad, ", "))
}

// options reads the lines CONFIG_X=value of a configuration; the last counts.
func options(config string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(config) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && strings.HasPrefix(name, "CONFIG_") {
			m[name] = value
		}
	}
	return m
}

// checkNotes looks for the ELF notes by which the toolstack loads a PV kernel.
func checkNotes(vmlinux string) error {
	f, err := elf.Open(vmlinux)
	if err != nil {
		return fmt.Errorf("kernelbuild: check vmlinux: %w", err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type != elf.PT_NOTE {
			continue
		}
		notes, err := io.ReadAll(p.Open())
		if err != nil {
			return fmt.Errorf("kernelbuild: check vmlinux: %w", err)
		}
		if bytes.Contains(notes, []byte("Xen\x00")) {
			return nil
		}
	}
	return fmt.Errorf("kernelbuild: check vmlinux: %w", ErrNotes)
}

// run runs a program in dir.
func run(ctx context.Context, dir, name string, args ...string) error {
	if _, err := srcbuild.Output(srcbuild.Command(ctx, dir, nil, name, args...)); err != nil {
		return fmt.Errorf("kernelbuild: %w", err)
	}
	return nil
}
