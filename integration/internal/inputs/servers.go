// SPDX-License-Identifier: Apache-2.0

package inputs

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xcontainer/xcontainer/integration/internal/apt"
	"github.com/xcontainer/xcontainer/integration/internal/cache"
)

// ServerImagesFile is the archive of the directory that ServerImages returns, for
// ctr images import.
const ServerImagesFile = "servers.tar"

// serverImagesVersion changes when the code below makes other images of the same
// packages.
const serverImagesVersion = "v1"

// serverReleases are Debian's releases that the images are made of: their C
// libraries make system calls in different ways.
var serverReleases = []string{"bookworm", "trixie"}

// serverPackages come on top of debianPackages: servers, and what puts load on them.
var serverPackages = []string{
	"redis-server", "redis-tools", "memcached", "libmemcached-tools", "nginx", "apache2-bin", "wrk", "python3-minimal", "python3",
}

// ServerImage is one of the images with servers.
type ServerImage struct {
	Name  string // in containerd
	Glibc string // version of its C library, "2.36"
}

// ServerImages makes the images with servers, one for each release, and returns the
// directory with ServerImagesFile.
func (b *Builder) ServerImages(ctx context.Context) (dir string, images []ServerImage, err error) {
	debs := make([][]apt.Deb, len(serverReleases))
	parts := []string{serverImagesVersion}
	for i, release := range serverReleases {
		a, err := b.apt(ctx, release)
		if err != nil {
			return "", nil, err
		}
		if debs[i], err = a.Closure(ctx, slices.Concat(debianPackages, serverPackages)...); err != nil {
			return "", nil, err
		}
		glibc, err := glibcVersion(debs[i])
		if err != nil {
			return "", nil, fmt.Errorf("inputs: image of %s: %w", release, err)
		}
		images = append(images, ServerImage{Name: "docker.io/library/servers-" + release + ":lab", Glibc: glibc})
		parts = append(append(parts, images[i].Name), debKey(debs[i])...)
	}
	dir, err = b.cache.Dir(ctx, "server-images", cache.KeyOf(parts...), func(ctx context.Context, dir string) error {
		b.step("make the images with servers")
		return makeServerImages(ctx, filepath.Join(dir, ServerImagesFile), images, debs)
	})
	return dir, images, err
}

// glibcVersion is the upstream version of the C library among packages.
func glibcVersion(debs []apt.Deb) (string, error) {
	for _, d := range debs {
		if d.Name == "libc6" {
			version, _, _ := strings.Cut(d.Version, "-")
			return version, nil
		}
	}
	return "", fmt.Errorf("no package libc6")
}

// makeServerImages writes the archive: each image is one layer of its packages.
func makeServerImages(ctx context.Context, path string, images []ServerImage, debs [][]apt.Deb) error {
	var all []image
	for i, im := range images {
		root, err := debianTree(ctx, debs[i])
		if err != nil {
			return err
		}
		layers, err := layered(root)
		if err != nil {
			return err
		}
		all = append(all, image{im.Name, "amd64", shellConfig(), []v1.Layer{layers[0]}})
	}
	return writeImages(path, all)
}
