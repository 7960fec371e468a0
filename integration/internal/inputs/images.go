// SPDX-License-Identifier: Apache-2.0

package inputs

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/xcontainer/xcontainer/integration/internal/apt"
	"github.com/xcontainer/xcontainer/integration/internal/cache"
	"github.com/xcontainer/xcontainer/integration/internal/rootfs"
)

// Names of the test images in containerd.
const (
	BusyboxImage      = "docker.io/library/busybox:lab"
	BusyboxUserImage  = "docker.io/library/busybox-user:lab"  // runs as user "app"
	BusyboxArm64Image = "docker.io/library/busybox-arm64:lab" // has only an arm64 /bin/true
	DebianImage       = "docker.io/library/debian:lab"
	PythonImage       = "docker.io/library/python:lab"
)

// Files of the images' directory, for ctr images import.
const (
	ImagesFile      = "images.tar"
	OtherImagesFile = "other-platform.tar" // not to be unpacked
)

// imagesVersion changes when the code below makes other images of the same
// packages.
const imagesVersion = "v2"

// debianPackages are Debian's essential packages, without those that only
// manage packages, and procps.
var debianPackages = []string{
	"base-files", "base-passwd", "bash", "bsdutils", "coreutils", "dash", "debianutils", "diffutils",
	"findutils", "grep", "gzip", "hostname", "libc-bin", "login", "mawk", "ncurses-base", "ncurses-bin",
	"perl-base", "procps", "sed", "tar", "util-linux",
}

// pythonPackages come on top of debianPackages.
var pythonPackages = []string{"python3"}

// imagePath is the PATH of the images.
const imagePath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Images makes the test images and returns the directory with ImagesFile and
// OtherImagesFile, and the key of its contents.
func (b *Builder) Images(ctx context.Context) (dir string, key cache.Key, err error) {
	a, err := b.apt(ctx, dom0Release)
	if err != nil {
		return "", "", err
	}
	bb, err := a.Download(ctx, "busybox-static")
	if err != nil {
		return "", "", err
	}
	debian, err := a.Closure(ctx, debianPackages...)
	if err != nil {
		return "", "", err
	}
	python, err := a.Closure(ctx, slices.Concat(debianPackages, pythonPackages)...)
	if err != nil {
		return "", "", err
	}
	key = cache.KeyOf(slices.Concat([]string{imagesVersion}, debKey(bb), debKey(debian), debKey(python))...)
	dir, err = b.cache.Dir(ctx, "images", key, func(ctx context.Context, dir string) error {
		b.step("make the test images")
		return makeImages(ctx, dir, bb[0], debian, python)
	})
	return dir, key, err
}

// makeImages writes the two archives.
func makeImages(ctx context.Context, dir string, bb apt.Deb, debian, python []apt.Deb) error {
	busybox, err := busyboxTree(ctx, bb, dir)
	if err != nil {
		return err
	}
	debianRoot, err := debianTree(ctx, debian)
	if err != nil {
		return err
	}
	pythonOver, err := overDebian(ctx, debian, python)
	if err != nil {
		return err
	}
	foreign := rootfs.New()
	addDirs(foreign)
	foreign.WriteFile("bin/true", 0o755, arm64True())
	layers, err := layered(busybox, debianRoot, pythonOver, foreign)
	if err != nil {
		return err
	}
	bbLayer, debianLayer, pythonLayer, armLayer := layers[0], layers[1], layers[2], layers[3]
	config := shellConfig()
	user := config
	user.User = "app"
	pyConfig := config
	pyConfig.Cmd = []string{"python3"}
	native := []image{
		{BusyboxImage, "amd64", config, []v1.Layer{bbLayer}},
		{BusyboxUserImage, "amd64", user, []v1.Layer{bbLayer}},
		{DebianImage, "amd64", config, []v1.Layer{debianLayer}},
		{PythonImage, "amd64", pyConfig, []v1.Layer{debianLayer, pythonLayer}},
	}
	other := []image{{BusyboxArm64Image, "arm64", config, []v1.Layer{armLayer}}}
	if err := writeImages(filepath.Join(dir, ImagesFile), native); err != nil {
		return err
	}
	return writeImages(filepath.Join(dir, OtherImagesFile), other)
}

// debianTree is the root of an image of Debian's packages.
func debianTree(ctx context.Context, debs []apt.Deb) (*rootfs.Tree, error) {
	t, err := mergedTree(ctx, debs, keepFile)
	if err != nil {
		return nil, err
	}
	return t, addDebianBase(t)
}

// overDebian is what the packages all have that are not among debian. It repeats
// the links of the merged /usr: a package's own /lib would hide the one below.
func overDebian(ctx context.Context, debian, all []apt.Deb) (*rootfs.Tree, error) {
	over := slices.DeleteFunc(slices.Clone(all), func(d apt.Deb) bool { return slices.Contains(debian, d) })
	return mergedTree(ctx, over, keepSuiteFile)
}

// mergedTree has the files of packages that keep wants, with a merged /usr.
func mergedTree(ctx context.Context, debs []apt.Deb, keep func(name string) bool) (*rootfs.Tree, error) {
	t := rootfs.NewMerged()
	for _, d := range debs {
		if err := t.AddDeb(ctx, d.Path, keep); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// image is one image to write.
type image struct {
	name, arch string
	config     v1.Config
	layers     []v1.Layer
}

// layered turns trees into uncompressed layers: the reader is an emulated
// machine, for which unpacking is dearer than reading.
func layered(trees ...*rootfs.Tree) ([]v1.Layer, error) {
	var out []v1.Layer
	for _, t := range trees {
		var buf bytes.Buffer
		if err := t.WriteTar(&buf); err != nil {
			return nil, err
		}
		out = append(out, static.NewLayer(buf.Bytes(), types.DockerUncompressedLayer))
	}
	return out, nil
}

// writeImages writes an archive in docker-save format.
func writeImages(path string, images []image) error {
	refs := map[name.Reference]v1.Image{}
	for _, im := range images {
		ref, err := name.NewTag(im.name)
		if err != nil {
			return fmt.Errorf("inputs: image %s: %w", im.name, err)
		}
		img, err := mutate.AppendLayers(empty.Image, im.layers...)
		if err != nil {
			return fmt.Errorf("inputs: image %s: %w", im.name, err)
		}
		if img, err = configured(img, v1.Platform{OS: "linux", Architecture: im.arch}, im.config); err != nil {
			return fmt.Errorf("inputs: image %s: %w", im.name, err)
		}
		refs[ref] = img
	}
	if err := tarball.MultiRefWriteToFile(path, refs); err != nil {
		return fmt.Errorf("inputs: write images: %w", err)
	}
	return nil
}

// configured is img with a configuration, and made at a time that is always the
// same.
func configured(img v1.Image, p v1.Platform, config v1.Config) (v1.Image, error) {
	cf, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture, cf.Variant = p.OS, p.Architecture, p.Variant
	cf.Config = config
	cf.Created = v1.Time{Time: time.Unix(1700000000, 0).UTC()}
	return mutate.ConfigFile(img, cf)
}

// shellConfig is that of an image which is there for its shell.
func shellConfig() v1.Config { return v1.Config{Env: []string{imagePath}, Cmd: []string{"sh"}} }

// appUsers is added to the user database of each image: a user without
// privilege whose ids are not equal, and a group that only lists it.
const (
	appPasswd = "app:x:1000:1001:app:/home/app:/bin/sh\n"
	appGroup  = "app:x:1001:\nextra:x:2000:app\n"
)

// addApp makes the user "app".
func addApp(t *rootfs.Tree, passwd, group []byte) error {
	t.WriteFile("etc/passwd", 0o644, slices.Concat(passwd, []byte(appPasswd)))
	t.WriteFile("etc/group", 0o644, slices.Concat(group, []byte(appGroup)))
	t.Mkdir("home", 0o755)
	t.Mkdir("home/app", 0o755)
	return t.Chown("home/app", 1000, 1001)
}

// addDirs makes the directories that every root file system has.
func addDirs(t *rootfs.Tree) {
	for _, d := range []string{"dev", "proc", "sys", "run", "etc", "mnt", "opt", "srv", "var", "usr/local/bin"} {
		t.Mkdir(d, 0o755)
	}
	t.Mkdir("root", 0o700)
	t.Mkdir("tmp", 0o1777)
	t.Mkdir("var/tmp", 0o1777)
}

// busyboxTree is a root of one static program under all its names. The program
// is asked for them, for which scratch is a directory to run it from.
func busyboxTree(ctx context.Context, deb apt.Deb, scratch string) (*rootfs.Tree, error) {
	src := rootfs.NewMerged()
	if err := src.AddDeb(ctx, deb.Path, func(n string) bool { return n == "usr/bin/busybox" }); err != nil {
		return nil, err
	}
	prog, err := src.ReadFile("usr/bin/busybox")
	if err != nil {
		return nil, err
	}
	exe := filepath.Join(scratch, "busybox")
	if err := os.WriteFile(exe, prog, 0o755); err != nil {
		return nil, fmt.Errorf("inputs: busybox: %w", err)
	}
	defer os.Remove(exe)
	out, err := exec.CommandContext(ctx, exe, "--list-full").Output()
	if err != nil {
		return nil, fmt.Errorf("inputs: list busybox's programs: %w", err)
	}
	t := rootfs.New()
	addDirs(t)
	t.WriteFile("bin/busybox", 0o755, prog)
	for p := range strings.FieldsSeq(string(out)) {
		if p != "bin/busybox" {
			t.Symlink("/bin/busybox", p)
		}
	}
	passwd := "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n"
	group := "root:x:0:\ndaemon:x:1:\ntty:x:5:\nnogroup:x:65534:\n"
	return t, addApp(t, []byte(passwd), []byte(group))
}

// addDebianBase adds what maintainer scripts would have made.
func addDebianBase(t *rootfs.Tree) error {
	addDirs(t)
	if err := addPasswd(t); err != nil {
		return err
	}
	t.Symlink("/run", "var/run")
	addLinks(t)
	passwd, err := t.ReadFile("etc/passwd")
	if err != nil {
		return err
	}
	group, err := t.ReadFile("etc/group")
	if err != nil {
		return err
	}
	return addApp(t, passwd, group)
}

// addLinks makes the names that Debian's alternatives and diversions would.
func addLinks(t *rootfs.Tree) {
	for link, target := range map[string]string{"usr/bin/awk": "mawk", "usr/bin/sh": "dash"} {
		if _, ok := t.Lookup(link); !ok {
			t.Symlink(target, link)
		}
	}
}

// arm64True is a program for 64-bit ARM that exits with 0: mov x0, #0; mov x8,
// #93 (exit); svc #0.
func arm64True() []byte {
	var code []byte
	for _, ins := range []uint32{0xd2800000, 0xd2800ba8, 0xd4000001} {
		code = binary.LittleEndian.AppendUint32(code, ins)
	}
	return tinyELF(elf.EM_AARCH64, code)
}
