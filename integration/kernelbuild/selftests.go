// SPDX-License-Identifier: Apache-2.0

package kernelbuild

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/xcontainer/xcontainer/integration/internal/apt"
	"github.com/xcontainer/xcontainer/integration/internal/cache"
	"github.com/xcontainer/xcontainer/integration/internal/srcbuild"
	"github.com/xcontainer/xcontainer/pkg/libos/kernel"
)

// selftestsRecipe is part of the cache key: raise it when Selftests builds
// differently from the same inputs.
const selftestsRecipe = "1"

// selftestsLibraries are linked into some of the selftests. They are unpacked for
// the build, and not installed.
var selftestsLibraries = []string{"libcap-dev", "libcap2", "libnuma-dev", "libnuma1"}

// selftestsCompiler is the compiler of the selftests; it has a comment.
//
//go:embed selftests-cc
var selftestsCompiler []byte

// Selftests builds the folders of tools/testing/selftests of the guest kernel's source
// that programs (FOLDER/PROGRAM) are in, for x86-64, or finds them in the cache c. dir
// has the same folders, with the programs that could be built: some need what not every
// machine has. Those that were asked for must be there.
func Selftests(ctx context.Context, c *cache.Cache, programs []string, progress func(what string)) (dir string, err error) {
	var folders []string
	for _, p := range programs {
		if f, _, _ := strings.Cut(p, "/"); !slices.Contains(folders, f) {
			folders = append(folders, f)
		}
	}
	if progress == nil {
		progress = func(string) {}
	}
	if err := srcbuild.Check(append(tools, srcbuild.Tool{Name: "rsync", Package: "rsync"})); err != nil {
		return "", fmt.Errorf("kernelbuild: %w", err)
	}
	a, err := apt.Open(ctx, c, "")
	if err != nil {
		return "", err
	}
	debs, err := a.Download(ctx, append([]string{kernel.SourcePackage}, selftestsLibraries...)...)
	if err != nil {
		return "", err
	}
	parts := append([]string{selftestsRecipe, string(selftestsCompiler)}, folders...)
	for _, d := range debs {
		parts = append(parts, filepath.Base(d.Path))
	}
	for _, tool := range []string{"gcc", "ld"} {
		version, err := srcbuild.FirstLine(ctx, tool, "--version")
		if err != nil {
			return "", fmt.Errorf("kernelbuild: %w", err)
		}
		parts = append(parts, version)
	}
	b := &selftests{build: build{deb: debs[0], progress: progress}, libraries: debs[1:], folders: folders, programs: programs}
	if dir, err = c.Dir(ctx, "selftests", cache.KeyOf(parts...), b.run); err != nil {
		return "", err
	}
	return dir, b.complete(dir) // it may be of a time when others were asked for
}

// selftests is one run of Selftests.
type selftests struct {
	build
	libraries []apt.Deb
	folders   []string
	programs  []string // that must be there
}

// complete is an error if a program is not there.
func (b *selftests) complete(dir string) error {
	for _, p := range b.programs {
		if _, err := os.Stat(filepath.Join(dir, p)); err != nil {
			return fmt.Errorf("kernelbuild: the selftest %s was not built: %w", p, err)
		}
	}
	return nil
}

// run fills dir. The project's patches have no tests and are left out, so that the
// tests are what they are for everybody else.
func (b *selftests) run(ctx context.Context, dir string) error {
	work := filepath.Join(dir, "work")
	tree, libs, out := filepath.Join(work, "linux"), filepath.Join(work, "libraries"), filepath.Join(work, "out")
	b.progress("unpack " + b.deb.Name + " " + b.deb.Version)
	if err := b.unpack(ctx, work, tree); err != nil {
		return err
	}
	for _, d := range b.libraries {
		if err := apt.Extract(ctx, d, libs); err != nil {
			return err
		}
	}
	cc := filepath.Join(work, "cc")
	if err := os.WriteFile(cc, selftestsCompiler, 0o755); err != nil {
		return fmt.Errorf("kernelbuild: selftests: %w", err)
	}
	b.progress("build the kernel's selftests")
	if err := run(ctx, tree, "make", "-s", "O=headers", "ARCH=x86_64", "headers"); err != nil {
		return err
	}
	// One that cannot be built must not stop the others: make's answer says nothing, if
	// all are there that are needed.
	cmd := srcbuild.Command(ctx, filepath.Join(tree, "tools/testing/selftests"), []string{"SELFTESTS_LIBRARIES=" + libs},
		"make", "-s", "-k", "O=", "BUILD="+out, "CC="+cc, "TARGETS="+strings.Join(b.folders, " "),
		"KHDR_INCLUDES=-isystem "+filepath.Join(tree, "headers/usr/include"), "all")
	_, failure := srcbuild.Output(cmd)
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	for _, f := range b.folders {
		if err := moveSelftests(filepath.Join(tree, "tools/testing/selftests", f), filepath.Join(out, f)); err != nil {
			return err
		}
		if err := takeSelftests(ctx, filepath.Join(out, f), filepath.Join(dir, f)); err != nil {
			return errors.Join(err, failure)
		}
	}
	if err := b.complete(dir); err != nil {
		return errors.Join(err, failure)
	}
	if err := os.RemoveAll(work); err != nil {
		return fmt.Errorf("kernelbuild: remove the source tree: %w", err)
	}
	return nil
}

// moveSelftests moves programs to where the others are from the folder of their
// sources, in which some Makefiles leave them.
func moveSelftests(from, to string) error {
	list, err := os.ReadDir(from)
	if err != nil {
		return fmt.Errorf("kernelbuild: selftests: %w", err)
	}
	for _, e := range list {
		path := filepath.Join(from, e.Name())
		if !e.Type().IsRegular() {
			continue
		}
		is, err := isELF(path)
		if err == nil && is {
			err = os.Rename(path, filepath.Join(to, e.Name()))
		}
		if err != nil {
			return fmt.Errorf("kernelbuild: selftests: %w", err)
		}
	}
	return nil
}

// takeSelftests moves what was built of one folder, without what only the linker
// and debuggers need.
func takeSelftests(ctx context.Context, from, to string) error {
	var programs []string
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil || !e.Type().IsRegular():
			return err
		case strings.HasSuffix(path, ".o"):
			return os.Remove(path)
		}
		if is, err := isELF(path); err != nil || !is {
			return err
		}
		programs = append(programs, path)
		return nil
	})
	if err != nil {
		return fmt.Errorf("kernelbuild: selftests: %w", err)
	}
	if len(programs) == 0 {
		return fmt.Errorf("kernelbuild: selftests: nothing of %s was built", filepath.Base(from))
	}
	if err := run(ctx, "", "strip", append([]string{"--strip-debug"}, programs...)...); err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return fmt.Errorf("kernelbuild: selftests: %w", err)
	}
	return nil
}

// isELF tells whether a file begins as a program does.
func isELF(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	var magic [4]byte
	n, _ := f.Read(magic[:]) // a shorter file is no program
	return string(magic[:n]) == "\x7fELF", nil
}
