// SPDX-License-Identifier: Apache-2.0

package inputs

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/xcontainer/xcontainer/integration/internal/apt"
	"github.com/xcontainer/xcontainer/integration/internal/cache"
	"github.com/xcontainer/xcontainer/integration/internal/rootfs"
)

// daemonPrograms are what a Daemon has.
var daemonPrograms = []string{"containerd", "ctr"}

// daemonTags leave out what the tests of daemons do not use. The interface for
// Kubernetes alone is half of the build.
const daemonTags = "no_cri,no_btrfs,no_zfs,no_aufs,no_devmapper"

// Daemon builds containerd and ctr of a version from its module, and returns the
// directory they are in. A version is like v1.7.35.
func (b *Builder) Daemon(ctx context.Context, version string) (string, error) {
	goVersion, err := goVersion(ctx)
	if err != nil {
		return "", err
	}
	module := containerdModule
	if strings.HasPrefix(version, "v1.") {
		module = strings.TrimSuffix(module, "/v2")
	}
	key := cache.KeyOf("v1", module, version, daemonTags, goVersion)
	return b.cache.Dir(ctx, "daemon", key, func(ctx context.Context, dir string) error {
		b.step("build containerd " + version)
		src, err := moduleDir(ctx, module, version)
		if err != nil {
			return err
		}
		// In the module's own directory its exclude and replace lines count, which
		// go install does not accept.
		args := []string{"build", "-mod=readonly", "-trimpath", "-tags=" + daemonTags, "-o=" + dir + "/",
			"-ldflags=-s -w -X " + module + "/version.Version=" + version}
		for _, p := range daemonPrograms {
			args = append(args, "./cmd/"+p)
		}
		if err := goRun(ctx, src, nil, args...); err != nil {
			return fmt.Errorf("inputs: build containerd %s: %w", version, err)
		}
		return nil
	})
}

// DebianDaemon returns the directory of Debian 12's containerd and ctr, and
// their version.
func (b *Builder) DebianDaemon(ctx context.Context) (dir, version string, err error) {
	a, err := b.apt(ctx, dom0Release)
	if err != nil {
		return "", "", err
	}
	debs, err := a.Download(ctx, "containerd")
	if err != nil {
		return "", "", err
	}
	f := strings.Split(filepath.Base(debs[0].Path), "_")
	if len(f) < 2 {
		return "", "", fmt.Errorf("inputs: package file %s has no version", debs[0].Path)
	}
	version, _, _ = strings.Cut(f[1], "~")
	dir, err = b.cache.Dir(ctx, "daemon", cache.KeyOf(append(debKey(debs), "v1")...), func(ctx context.Context, dir string) error {
		all, t := rootfs.New(), rootfs.New()
		if err := all.AddDeb(ctx, debs[0].Path, func(n string) bool { return strings.HasPrefix(n, "usr/bin/") }); err != nil {
			return err
		}
		for _, p := range daemonPrograms {
			data, err := all.ReadFile("usr/bin/" + p)
			if err != nil {
				return fmt.Errorf("inputs: package containerd: %w", err)
			}
			t.WriteFile(p, 0o755, data)
		}
		return t.WriteDir(dir)
	})
	return dir, version, err
}

// BusyboxFile is the file of the directory that Busybox returns.
const BusyboxFile = "busybox.tar"

// Busybox makes an archive with BusyboxImage alone, for ctr images import of a
// daemon that the lab's disk knows nothing of.
func (b *Builder) Busybox(ctx context.Context) (string, error) {
	a, err := b.apt(ctx, dom0Release)
	if err != nil {
		return "", err
	}
	bb, err := a.Download(ctx, "busybox-static")
	if err != nil {
		return "", err
	}
	key := cache.KeyOf(slices.Concat([]string{imagesVersion}, debKey(bb))...)
	return b.cache.Dir(ctx, "busybox", key, func(ctx context.Context, dir string) error {
		return makeBusybox(ctx, dir, bb[0])
	})
}

func makeBusybox(ctx context.Context, dir string, bb apt.Deb) error {
	tree, err := busyboxTree(ctx, bb, dir)
	if err != nil {
		return err
	}
	layers, err := layered(tree)
	if err != nil {
		return err
	}
	return writeImages(filepath.Join(dir, BusyboxFile), []image{{BusyboxImage, "amd64", shellConfig(), layers}})
}
