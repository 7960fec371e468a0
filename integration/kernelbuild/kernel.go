// SPDX-License-Identifier: Apache-2.0

package kernelbuild

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/xcontainer/xcontainer/integration/internal/apt"
	"github.com/xcontainer/xcontainer/integration/internal/cache"
	"github.com/xcontainer/xcontainer/integration/internal/srcbuild"
	"github.com/xcontainer/xcontainer/pkg/libos/kernel"
)

// Names of the files that Build and Install make besides those of the flavours.
// They are those that package libos looks for.
const (
	ManifestFile      = "manifest.json"
	ManifestDebugFile = "manifest-debug.json"
	InitramfsFile     = "initramfs.cpio"
)

// Flavours that are built together.
var (
	// Standard are those that guests run on.
	Standard = []kernel.Flavour{kernel.SMP, kernel.UP}
	// Debug is for tests only.
	Debug = []kernel.Flavour{kernel.Debug}
)

// recipe is part of the cache key: raise it when this package builds
// differently from the same inputs.
const recipe = "2"

// What the kernel says about its build; fixed, so that builds are reproducible.
var identity = []string{
	"KBUILD_BUILD_TIMESTAMP=Thu Jan  1 00:00:00 UTC 2026",
	"KBUILD_BUILD_USER=xcontainer",
	"KBUILD_BUILD_HOST=xcontainer",
	"KBUILD_BUILD_VERSION=1",
}

// Build makes the flavours from one source tree, or finds them in the cache c. dir
// holds each one's Vmlinux (without symbols) and FullConfig, and ManifestFile, and
// must not be changed. progress, if not nil, is called with what happens before
// it happens.
func Build(ctx context.Context, c *cache.Cache, flavours []kernel.Flavour, progress func(what string)) (dir string, m Manifest, err error) {
	if progress == nil {
		progress = func(string) {}
	}
	if err := srcbuild.Check(tools); err != nil {
		return "", m, fmt.Errorf("kernelbuild: %w", err)
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
	b := &build{deb: debs[0], flavours: flavours, progress: progress}
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
	flavours []kernel.Flavour
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
	if m.Files, err = inputs(b.flavours); err != nil {
		return err
	}
	if m.Compiler, err = srcbuild.FirstLine(ctx, "gcc", "--version"); err != nil {
		return fmt.Errorf("kernelbuild: %w", err)
	}
	if m.Linker, err = srcbuild.FirstLine(ctx, "ld", "--version"); err != nil {
		return fmt.Errorf("kernelbuild: %w", err)
	}
	return nil
}

// inputs are the project's files that the flavours are made from: all but the
// fragments of others.
func inputs(flavours []kernel.Flavour) ([]FileHash, error) {
	files, err := hashFiles(kernel.Files)
	return slices.DeleteFunc(files, func(h FileHash) bool {
		fragment := strings.HasPrefix(h.Name, filepath.Dir(kernel.Config)+"/") && h.Name != kernel.Config
		return fragment && !slices.ContainsFunc(flavours, func(f kernel.Flavour) bool { return f.Fragment == h.Name })
	}), err
}

func (b *build) key() cache.Key {
	m := b.manifest.Kernel
	parts := []string{recipe, m.SourceSHA256, m.Compiler, m.Linker}
	for _, f := range b.flavours {
		parts = append(parts, f.Vmlinux)
	}
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
	for _, f := range b.flavours {
		b.progress("build the library OS kernel " + f.Vmlinux + " (minutes)")
		o := objtreeOf(tree, f)
		if err := o.configure(ctx); err != nil {
			return err
		}
		if err := o.make(ctx, fmt.Sprintf("-j%d", runtime.NumCPU()), "vmlinux"); err != nil {
			return err
		}
		if err := b.collect(ctx, o, dir); err != nil {
			return err
		}
	}
	if err := writeManifest(filepath.Join(dir, ManifestFile), b.manifest); err != nil {
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
	if err := run(ctx, "", "tar", "-xJf", tars[0], "-C", tree, "--strip-components=1"); err != nil {
		return err
	}
	return os.Remove(tars[0])
}

// collect writes the results of an output folder to dir and the manifest, and
// removes that folder.
func (b *build) collect(ctx context.Context, o objtree, dir string) error {
	vmlinux := filepath.Join(dir, o.flavour.Vmlinux)
	if err := run(ctx, "", "strip", "-s", "-o", vmlinux, o.path("vmlinux")); err != nil {
		return err
	}
	if err := checkNotes(vmlinux); err != nil {
		return err
	}
	config, err := os.ReadFile(o.path(".config"))
	if err != nil {
		return fmt.Errorf("kernelbuild: read the configuration: %w", err)
	}
	path := filepath.Join(dir, o.flavour.FullConfig)
	if err := os.WriteFile(path, config, 0o644); err != nil {
		return fmt.Errorf("kernelbuild: write the configuration: %w", err)
	}
	release, err := os.ReadFile(o.path("include/config/kernel.release"))
	if err != nil {
		return fmt.Errorf("kernelbuild: read the kernel's version: %w", err)
	}
	b.manifest.Kernel.Version = strings.TrimSpace(string(release))
	image := Image{File: o.flavour.Vmlinux, ConfigSHA256: hash(config)}
	if image.SHA256, err = cache.HashFile(vmlinux); err != nil {
		return err
	}
	b.manifest.Kernel.Images = append(b.manifest.Kernel.Images, image)
	if err := os.RemoveAll(o.path("")); err != nil {
		return fmt.Errorf("kernelbuild: remove the output folder: %w", err)
	}
	return nil
}
