// SPDX-License-Identifier: Apache-2.0

package inputs

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/xcontainer/xcontainer/integration/internal/cache"
	"github.com/xcontainer/xcontainer/integration/internal/rootfs"
	"github.com/xcontainer/xcontainer/integration/xenbuild"
	"github.com/xcontainer/xcontainer/pkg/xen/xkernel"
)

// DefaultXen is the Xen version that the lab boots unless told otherwise.
const DefaultXen = "4.17"

// xenReleases says which Debian release has which Xen.
var xenReleases = map[string]string{
	"4.17": "bookworm",
	"4.20": "trixie",
}

// xkernelName is how an X-Kernel is asked for: of DefaultXen, or with a hyphen
// and a version after it.
const xkernelName = "xkernel"

// Xen returns the path of an uncompressed hypervisor binary. spec is a version
// that a Debian release has ("4.17"), an X-Kernel ("xkernel", "xkernel-4.20"),
// which is built if need be, or a file, which may be gzip-compressed.
func (b *Builder) Xen(ctx context.Context, spec string) (string, error) {
	if release, ok := xenReleases[spec]; ok {
		return b.debianXen(ctx, spec, release)
	}
	if version, ok := xkernelVersion(spec); ok {
		dir, _, err := xenbuild.Build(ctx, b.cache, version, b.step)
		return filepath.Join(dir, xenbuild.XenFile), err
	}
	if !strings.Contains(spec, "/") {
		if _, err := os.Stat(spec); err != nil {
			return "", fmt.Errorf("inputs: Xen %q is neither a known version (%s) nor a file", spec, strings.Join(XenVersions(), ", "))
		}
	}
	sum, err := cache.HashFile(spec)
	if err != nil {
		return "", fmt.Errorf("inputs: Xen: %w", err)
	}
	dir, err := b.cache.Dir(ctx, "xen", cache.KeyOf("file", sum), func(_ context.Context, dir string) error {
		raw, err := os.ReadFile(spec)
		if err != nil {
			return fmt.Errorf("inputs: Xen: %w", err)
		}
		return writeXen(dir, raw, spec)
	})
	return filepath.Join(dir, "xen"), err
}

// xkernelVersion is the version of Xen that the name of an X-Kernel stands for.
func xkernelVersion(name string) (version string, ok bool) {
	if name == xkernelName {
		return DefaultXen, true
	}
	version, ok = strings.CutPrefix(name, xkernelName+"-")
	return version, ok && slices.ContainsFunc(xkernel.Versions, func(v xkernel.Version) bool { return v.Xen == version })
}

// XenVersions lists the versions and X-Kernels that Xen accepts.
func XenVersions() []string {
	vs := []string{xkernelName}
	for v := range xenReleases {
		vs = append(vs, v)
	}
	for _, v := range xkernel.Versions {
		vs = append(vs, xkernelName+"-"+v.Xen)
	}
	slices.Sort(vs)
	return vs
}

func (b *Builder) debianXen(ctx context.Context, version, release string) (string, error) {
	a, err := b.apt(ctx, release)
	if err != nil {
		return "", err
	}
	name := "xen-hypervisor-" + version + "-amd64"
	debs, err := a.Download(ctx, name)
	if err != nil {
		return "", err
	}
	dir, err := b.cache.Dir(ctx, "xen", cache.KeyOf(debKey(debs)...), func(ctx context.Context, dir string) error {
		t := rootfs.New()
		file := "boot/xen-" + version + "-amd64.gz"
		if err := t.AddDeb(ctx, debs[0].Path, func(n string) bool { return n == file }); err != nil {
			return err
		}
		raw, err := t.ReadFile(file)
		if err != nil {
			return fmt.Errorf("inputs: package %s: %w", name, err)
		}
		return writeXen(dir, raw, name)
	})
	return filepath.Join(dir, "xen"), err
}

// writeXen writes dir/xen from a compressed or plain binary that came from
// origin. QEMU's multiboot loader wants it uncompressed.
func writeXen(dir string, raw []byte, origin string) error {
	if bytes.HasPrefix(raw, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(bytes.NewReader(raw))
		if err != nil {
			return fmt.Errorf("inputs: uncompress Xen from %s: %w", origin, err)
		}
		if raw, err = io.ReadAll(z); err != nil {
			return fmt.Errorf("inputs: uncompress Xen from %s: %w", origin, err)
		}
	}
	if !bytes.HasPrefix(raw, []byte("\x7fELF")) {
		return fmt.Errorf("inputs: Xen from %s is no ELF file", origin)
	}
	if err := os.WriteFile(filepath.Join(dir, "xen"), raw, 0o644); err != nil {
		return fmt.Errorf("inputs: write Xen: %w", err)
	}
	return nil
}
