// SPDX-License-Identifier: Apache-2.0

package kernelbuild

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/xcontainer/xcontainer/integration/internal/apt"
	"github.com/xcontainer/xcontainer/integration/internal/cache"
	"github.com/xcontainer/xcontainer/pkg/libos/kernel"
)

// Names of the files that Build and Install make. They are those that package
// libos looks for.
const (
	VmlinuxFile   = "vmlinux"
	ConfigFile    = "kernel.config"
	ManifestFile  = "manifest.json"
	InitramfsFile = "initramfs.cpio"
)

// recipe is part of the cache key: raise it when this package builds
// differently from the same inputs.
const recipe = "1"

// What the kernel says about its build; fixed, so that builds are reproducible.
var identity = []string{
	"KBUILD_BUILD_TIMESTAMP=Thu Jan  1 00:00:00 UTC 2026",
	"KBUILD_BUILD_USER=xcontainer",
	"KBUILD_BUILD_HOST=xcontainer",
	"KBUILD_BUILD_VERSION=1",
}

// Build makes the kernel, or finds it in the cache c. dir holds VmlinuxFile
// (without symbols), ConfigFile (the complete configuration) and ManifestFile
// and must not be changed. progress, if not nil, is called with what happens
// before it happens.
func Build(ctx context.Context, c *cache.Cache, progress func(what string)) (dir string, m Manifest, err error) {
	if progress == nil {
		progress = func(string) {}
	}
	if err := checkTools(); err != nil {
		return "", m, err
	}
	progress("find the kernel's source package")
	a, err := apt.Open(ctx, c, "")
	if err != nil {
		return "", m, err
	}
	debs, err := a.Download(ctx, kernel.SourcePackage)
	if err != nil {
		return "", m, err
	}
	b := &build{deb: debs[0], progress: progress}
	if err := b.describe(ctx); err != nil {
		return "", m, err
	}
	dir, err = c.Dir(ctx, "kernel", b.key(), b.run)
	if err != nil {
		return "", m, err
	}
	m, err = readManifest(filepath.Join(dir, ManifestFile))
	return dir, m, err
}

// build is one run of Build.
type build struct {
	deb      apt.Deb
	progress func(string)
	manifest Manifest
}

// describe fills the manifest with all inputs.
func (b *build) describe(ctx context.Context) error {
	m := &b.manifest.Kernel
	m.SourcePackage, m.SourceVersion = b.deb.Name, b.deb.Version
	m.Licence = kernelLicence
	var err error
	if m.SourceSHA256, err = cache.HashFile(b.deb.Path); err != nil {
		return err
	}
	if m.Files, err = hashFiles(kernel.Files); err != nil {
		return err
	}
	for _, tool := range []struct {
		name string
		out  *string
	}{{"gcc", &m.Compiler}, {"ld", &m.Linker}} {
		text, err := run(ctx, "", tool.name, "--version")
		if err != nil {
			return err
		}
		*tool.out, _, _ = strings.Cut(text, "\n")
	}
	return nil
}

func (b *build) key() cache.Key {
	m := b.manifest.Kernel
	parts := []string{recipe, m.SourceSHA256, m.Compiler, m.Linker}
	for _, f := range m.Files {
		parts = append(parts, f.Name, f.SHA256)
	}
	return cache.KeyOf(append(parts, identity...)...)
}

// run fills dir.
func (b *build) run(ctx context.Context, dir string) error {
	work := filepath.Join(dir, "work")
	tree := filepath.Join(work, "linux")
	b.progress("unpack " + b.deb.Name + " " + b.deb.Version)
	if err := b.unpack(ctx, work, tree); err != nil {
		return err
	}
	if err := addSources(ctx, tree); err != nil {
		return err
	}
	if err := configure(ctx, tree); err != nil {
		return err
	}
	b.progress("build the library OS kernel (minutes)")
	if _, err := makeKernel(ctx, tree, fmt.Sprintf("-j%d", runtime.NumCPU()), "vmlinux"); err != nil {
		return err
	}
	version, err := makeKernel(ctx, tree, "kernelrelease")
	if err != nil {
		return err
	}
	b.manifest.Kernel.Version = strings.TrimSpace(version)
	if err := b.collect(ctx, tree, dir); err != nil {
		return err
	}
	if err := os.RemoveAll(work); err != nil {
		return fmt.Errorf("kernelbuild: remove the source tree: %w", err)
	}
	return nil
}

// unpack puts the kernel's source at tree.
func (b *build) unpack(ctx context.Context, work, tree string) error {
	if err := os.MkdirAll(tree, 0o755); err != nil {
		return fmt.Errorf("kernelbuild: make the source tree: %w", err)
	}
	if err := apt.Extract(ctx, b.deb, work); err != nil {
		return err
	}
	tars, err := filepath.Glob(filepath.Join(work, "usr/src/linux-source-*.tar.xz"))
	if err != nil || len(tars) != 1 {
		return fmt.Errorf("kernelbuild: package %s has %d source archives, want one", b.deb.Name, len(tars))
	}
	if _, err := run(ctx, "", "tar", "-xJf", tars[0], "-C", tree, "--strip-components=1"); err != nil {
		return err
	}
	return os.Remove(tars[0])
}

// collect writes the results to dir.
func (b *build) collect(ctx context.Context, tree, dir string) error {
	m := &b.manifest.Kernel
	vmlinux := filepath.Join(dir, VmlinuxFile)
	if _, err := run(ctx, "", "strip", "-s", "-o", vmlinux, filepath.Join(tree, "vmlinux")); err != nil {
		return err
	}
	if err := checkNotes(vmlinux); err != nil {
		return err
	}
	config, err := os.ReadFile(filepath.Join(tree, ".config"))
	if err != nil {
		return fmt.Errorf("kernelbuild: read the configuration: %w", err)
	}
	path := filepath.Join(dir, ConfigFile)
	if err := os.WriteFile(path, config, 0o644); err != nil {
		return fmt.Errorf("kernelbuild: write the configuration: %w", err)
	}
	if m.ConfigSHA256, err = cache.HashFile(path); err != nil {
		return err
	}
	if m.SHA256, err = cache.HashFile(vmlinux); err != nil {
		return err
	}
	return writeManifest(filepath.Join(dir, ManifestFile), b.manifest)
}
