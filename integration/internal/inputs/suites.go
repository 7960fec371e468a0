// SPDX-License-Identifier: Apache-2.0

package inputs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xcontainer/xcontainer/integration/internal/apt"
	"github.com/xcontainer/xcontainer/integration/internal/cache"
)

// suiteImageVersion changes when the code below makes another image of the same
// packages.
const suiteImageVersion = "v1"

// suiteImageFile is the file of the directory that has the image.
const suiteImageFile = "image.tar"

// SuiteImage makes an image of Debian with the named packages, and returns its name
// in containerd and the archive for ctr images import. The layer below is that of
// DebianImage, which the lab has. No maintainer script has run; in place of them it
// has a table of hosts, since tests want to find localhost.
func (b *Builder) SuiteImage(ctx context.Context, name string, packages ...string) (image, archive string, err error) {
	a, err := b.apt(ctx, dom0Release)
	if err != nil {
		return "", "", err
	}
	debian, err := a.Closure(ctx, debianPackages...)
	if err != nil {
		return "", "", err
	}
	all, err := a.Closure(ctx, slices.Concat(debianPackages, []string{"netbase"}, packages)...)
	if err != nil {
		return "", "", err
	}
	image = "docker.io/library/suite-" + name + ":lab"
	key := cache.KeyOf(slices.Concat([]string{imagesVersion, suiteImageVersion, image}, debKey(debian), []string{"/"}, debKey(all))...)
	dir, err := b.cache.Dir(ctx, "suite-image", key, func(ctx context.Context, dir string) error {
		b.step("make the image " + image)
		return makeSuiteImage(ctx, filepath.Join(dir, suiteImageFile), image, debian, all)
	})
	return image, filepath.Join(dir, suiteImageFile), err
}

// Resolving names without a network, as base-files and netbase set it up.
const (
	suiteHosts    = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	suiteNsswitch = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n" +
		"protocols: files\nservices: files\n"
)

func makeSuiteImage(ctx context.Context, path, name string, debian, all []apt.Deb) error {
	base, err := debianTree(ctx, debian)
	if err != nil {
		return err
	}
	over, err := overDebian(ctx, debian, all)
	if err != nil {
		return err
	}
	over.WriteFile("etc/hosts", 0o644, []byte(suiteHosts))
	over.WriteFile("etc/nsswitch.conf", 0o644, []byte(suiteNsswitch))
	layers, err := layered(base, over)
	if err != nil {
		return err
	}
	return writeImages(path, []image{{name, "amd64", shellConfig(), []v1.Layer{layers[0], layers[1]}}})
}

// keepSuiteFile leaves out, too, what makes other Javas, and drivers of graphics cards.
func keepSuiteFile(name string) bool {
	return keepFile(name) && !slices.ContainsFunc([]string{"/jmods/", "/dri/", "/libLLVM"}, func(part string) bool { return strings.Contains(name, part) })
}

// goTestsVersion changes when the code below makes something else of the same
// sources.
const goTestsVersion = "v2"

// GoTestProgram is the file of a package's folder in what GoTests returns.
const GoTestProgram = "pkg.test"

// GoTests builds the tests of packages of Go's standard library, and returns a
// directory like Go's own: src/PACKAGE has a package's files, which some tests read,
// its testdata, and GoTestProgram; lib/time and src/testdata are as there.
func (b *Builder) GoTests(ctx context.Context, packages ...string) (string, error) {
	version, err := goVersion(ctx)
	if err != nil {
		return "", err
	}
	key := cache.KeyOf(append([]string{goTestsVersion, version}, packages...)...)
	return b.cache.Dir(ctx, "go-tests", key, func(ctx context.Context, dir string) error {
		goroot, err := goRoot(ctx)
		if err != nil {
			return err
		}
		for _, d := range []string{"lib/time", "src/testdata"} {
			if err := os.CopyFS(filepath.Join(dir, d), os.DirFS(filepath.Join(goroot, d))); err != nil {
				return fmt.Errorf("inputs: copy Go's %s: %w", d, err)
			}
		}
		for _, p := range packages {
			b.step("build the tests of Go's package " + p)
			to := filepath.Join(dir, "src", filepath.FromSlash(p))
			if err := copyPackage(filepath.Join(goroot, "src", filepath.FromSlash(p)), to); err != nil {
				return fmt.Errorf("inputs: copy Go's package %s: %w", p, err)
			}
			if err := goRun(ctx, os.TempDir(), nil, "test", "-c", "-trimpath", "-ldflags=-w", "-o="+filepath.Join(to, GoTestProgram), p); err != nil {
				return fmt.Errorf("inputs: build Go's tests of %s: %w", p, err)
			}
		}
		return nil
	})
}

// copyPackage copies the files of a folder, and its testdata.
func copyPackage(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	list, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range list {
		src, dst := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		switch {
		case e.Name() == "testdata" && e.IsDir():
			if err := os.CopyFS(dst, os.DirFS(src)); err != nil {
				return err
			}
		case e.Type().IsRegular():
			data, err := os.ReadFile(src)
			if err != nil {
				return err
			}
			if err := os.WriteFile(dst, data, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}
