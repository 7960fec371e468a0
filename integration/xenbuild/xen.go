// SPDX-License-Identifier: Apache-2.0

package xenbuild

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/xcontainer/xcontainer/integration/internal/apt"
	"github.com/xcontainer/xcontainer/integration/internal/cache"
	"github.com/xcontainer/xcontainer/integration/internal/srcbuild"
	"github.com/xcontainer/xcontainer/pkg/xen/xkernel"
)

// Names of the files that Build makes.
const (
	XenFile      = "xen"    // an ELF file for a multiboot loader
	GzipFile     = "xen.gz" // the same, as it belongs into /boot
	ConfigFile   = "config"
	ManifestFile = "manifest.json"
)

// vendor is added to the version that Xen tells.
const vendor = "-xkernel"

// recipe is part of the cache key: raise it when this package builds
// differently from the same inputs.
const recipe = "1"

// variables of the make files: what Xen says about its build is fixed, so that
// builds are reproducible.
var variables = []string{
	"XEN_COMPILE_ARCH=x86_64",
	"XEN_TARGET_ARCH=x86_64",
	"XEN_VENDORVERSION=" + vendor,
	"XEN_BUILD_DATE=Thu Jan  1 00:00:00 UTC 2026",
	"XEN_BUILD_TIME=00:00:00",
	"XEN_BUILD_HOST=xcontainer",
	"XEN_DOMAIN=invalid",
	"XEN_WHOAMI=xcontainer",
}

// tools are what the build runs.
var tools = []srcbuild.Tool{
	{Name: "gcc", Package: "gcc"}, {Name: "make", Package: "make"}, {Name: "ld", Package: "binutils"},
	{Name: "flex", Package: "flex"}, {Name: "bison", Package: "bison"}, {Name: "python3", Package: "python3"},
	{Name: "patch", Package: "patch"}, {Name: "tar", Package: "tar"}, {Name: "xz", Package: "xz-utils"},
	{Name: "gzip", Package: "gzip"}, {Name: "apt-get", Package: "apt"},
}

// Build makes the X-Kernel of a version of Xen that package xkernel has patches
// for, or finds it in the cache c. dir holds XenFile, GzipFile, ConfigFile (the
// complete configuration) and ManifestFile and must not be changed. progress, if
// not nil, is called with what happens before it happens.
func Build(ctx context.Context, c *cache.Cache, version string, progress func(what string)) (dir string, m Manifest, err error) {
	if progress == nil {
		progress = func(string) {}
	}
	i := slices.IndexFunc(xkernel.Versions, func(v xkernel.Version) bool { return v.Xen == version })
	if i < 0 {
		return "", m, fmt.Errorf("xenbuild: no patches for Xen %s", version)
	}
	if err := srcbuild.Check(tools); err != nil {
		return "", m, fmt.Errorf("xenbuild: %w", err)
	}
	progress("find the source package of Xen " + version)
	src, newest, err := findSource(ctx, c, xkernel.Versions[i], progress)
	if err != nil {
		return "", m, err
	}
	b := &build{xen: version, src: src, progress: progress}
	if err := b.describe(ctx); err != nil {
		return "", m, err
	}
	dir, err = c.Dir(ctx, "xkernel", b.key(), b.run)
	if err != nil {
		return "", m, err
	}
	m, err = readManifest(filepath.Join(dir, ManifestFile))
	m.Superseded = newest // which may change without the entry
	return dir, m, err
}

// findSource fetches Debian's newest source package of v, or the known one if
// the mirror lacks that. newest is Debian's version if it is not src's.
func findSource(ctx context.Context, c *cache.Cache, v xkernel.Version, progress func(string)) (src apt.SourcePackage, newest string, err error) {
	a, err := apt.Open(ctx, c, v.Debian)
	if err != nil {
		return src, "", err
	}
	a.OnFetch(progress)
	src, err = a.Source(ctx, xkernel.SourcePackage)
	if !errors.Is(err, apt.ErrNotServed) {
		return src, "", err
	}
	newest = src.Version
	known := apt.SourcePackage{Name: xkernel.SourcePackage, Version: v.Known.Version}
	for _, f := range v.Known.Archives {
		known.Files = append(known.Files, apt.SourceFile{Path: f.Path, Size: f.Size, Hash: "SHA256:" + f.SHA256})
	}
	src, kerr := a.Archives(ctx, known)
	if kerr != nil {
		return src, "", errors.Join(err, kerr)
	}
	if newest == src.Version {
		newest = ""
	}
	return src, newest, nil
}

// build is one run of Build.
type build struct {
	xen      string // "4.17"
	src      apt.SourcePackage
	progress func(string)
	manifest Manifest
}

// describe fills the manifest with all inputs.
func (b *build) describe(ctx context.Context) error {
	m := &b.manifest
	m.SourcePackage, m.SourceVersion, m.Licence = b.src.Name, b.src.Version, licence
	if !strings.HasPrefix(m.SourceVersion, b.xen+".") {
		return fmt.Errorf("xenbuild: the source package has version %s, want %s", m.SourceVersion, b.xen)
	}
	for _, f := range b.src.Files {
		sum, err := cache.HashFile(f.Path)
		if err != nil {
			return err
		}
		m.Sources = append(m.Sources, FileHash{filepath.Base(f.Path), sum})
	}
	var err error
	if m.Patches, err = hashPatches(b.xen); err != nil {
		return err
	}
	if m.Compiler, err = srcbuild.FirstLine(ctx, "gcc", "--version"); err != nil {
		return fmt.Errorf("xenbuild: %w", err)
	}
	if m.Linker, err = srcbuild.FirstLine(ctx, "ld", "--version"); err != nil {
		return fmt.Errorf("xenbuild: %w", err)
	}
	return nil
}

func (b *build) key() cache.Key {
	m := b.manifest
	parts := []string{recipe, m.Compiler, m.Linker}
	for _, f := range slices.Concat(m.Sources, m.Patches) {
		parts = append(parts, f.Name, f.SHA256)
	}
	return cache.KeyOf(append(parts, variables...)...)
}

// run fills dir.
func (b *build) run(ctx context.Context, dir string) error {
	tree := filepath.Join(dir, "work")
	b.progress("unpack Xen " + b.src.Version)
	if err := unpack(ctx, b.src, tree); err != nil {
		return err
	}
	if err := srcbuild.ApplySeries(ctx, tree, xkernel.Files, xkernel.Folder(b.xen)); err != nil {
		return fmt.Errorf("xenbuild: %w", err)
	}
	if err := prepare(tree); err != nil {
		return err
	}
	b.progress("build the X-Kernel of Xen " + b.xen + " (a minute or two)")
	if err := b.makeXen(ctx, tree, "olddefconfig"); err != nil {
		return err
	}
	if err := b.makeXen(ctx, tree, fmt.Sprintf("-j%d", runtime.NumCPU()), "build"); err != nil {
		return err
	}
	if err := b.collect(tree, dir); err != nil {
		return err
	}
	if err := os.RemoveAll(tree); err != nil {
		return fmt.Errorf("xenbuild: remove the source tree: %w", err)
	}
	return nil
}

// makeXen runs make for the hypervisor alone.
func (b *build) makeXen(ctx context.Context, tree string, args ...string) error {
	args = slices.Concat([]string{"-s", "-C", "xen"}, variables, []string{
		// As Debian does it, so that the result does not depend on the place.
		fmt.Sprintf("EXTRA_CFLAGS_XEN_CORE=-ffile-prefix-map=%[1]s=. -fdebug-prefix-map=%[1]s=.", tree),
	}, args)
	env := []string{
		"PATH=" + filepath.Join(tree, toolsFolder) + ":" + os.Getenv("PATH"),
		"DEB_VERSION=" + b.src.Version, "DEB_MAINTAINER=xcontainer <xcontainer@invalid>",
	}
	if _, err := srcbuild.Output(srcbuild.Command(ctx, tree, env, "make", args...)); err != nil {
		return fmt.Errorf("xenbuild: %w", err)
	}
	return nil
}

// collect writes the results to dir.
func (b *build) collect(tree, dir string) error {
	xen := filepath.Join(tree, "xen")
	for from, to := range map[string]string{"xen": XenFile, "xen.gz": GzipFile, ".config": ConfigFile} {
		if err := os.Rename(filepath.Join(xen, from), filepath.Join(dir, to)); err != nil {
			return fmt.Errorf("xenbuild: take the result: %w", err)
		}
	}
	m := &b.manifest
	var err error
	if m.Version, err = tellsVersion(filepath.Join(dir, XenFile), b.xen); err != nil {
		return err
	}
	if m.SHA256, err = cache.HashFile(filepath.Join(dir, GzipFile)); err != nil {
		return err
	}
	if m.ConfigSHA256, err = cache.HashFile(filepath.Join(dir, ConfigFile)); err != nil {
		return err
	}
	return writeManifest(filepath.Join(dir, ManifestFile), *m)
}
