// SPDX-License-Identifier: Apache-2.0

package inputs

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/xcontainer/xcontainer/integration/internal/apt"
	"github.com/xcontainer/xcontainer/integration/internal/cache"
	"github.com/xcontainer/xcontainer/integration/internal/rootfs"
)

// registryVersion changes when the code below makes other images of the same
// packages.
const registryVersion = "v2"

// RegistryImages makes the images that containerd's client tests pull, under
// the names by which they pull them, and returns the directory of an OCI image
// layout. They are made of Debian packages and behave for those tests as the
// published ones do; their digests are others.
func (b *Builder) RegistryImages(ctx context.Context) (dir string, err error) {
	a, err := b.apt(ctx, dom0Release)
	if err != nil {
		return "", err
	}
	bb, err := a.Download(ctx, "busybox-static")
	if err != nil {
		return "", err
	}
	owner, err := a.Closure(ctx, "bash", "passwd")
	if err != nil {
		return "", err
	}
	key := cache.KeyOf(slices.Concat([]string{registryVersion}, debKey(bb), debKey(owner))...)
	return b.cache.Dir(ctx, "registry-images", key, func(ctx context.Context, dir string) error {
		b.step("make the images of the registry")
		return makeRegistryImages(ctx, dir, bb[0], owner)
	})
}

// makeRegistryImages writes the layout.
func makeRegistryImages(ctx context.Context, dir string, bb apt.Deb, ownerDebs []apt.Deb) error {
	busybox, err := busyboxTree(ctx, bb, dir)
	if err != nil {
		return err
	}
	addBusyboxUsers(busybox)
	owner, err := ownerTree(ctx, ownerDebs)
	if err != nil {
		return err
	}
	copyUp1, copyUp2 := rootfs.New(), rootfs.New()
	copyUp1.WriteFile("test_dir/test_file", 0o644, []byte("test_content\n"))
	copyUp2.WriteFile("test_dir/other_file", 0o600, []byte("other\n"))
	doomed, whiteouts := rootfs.New(), rootfs.New()
	doomed.WriteFile("file-to-delete", 0o644, []byte("x\n"))
	doomed.WriteFile("dir-to-delete/file", 0o644, []byte("y\n"))
	whiteouts.WriteFile(".wh.file-to-delete", 0, nil)
	whiteouts.WriteFile(".wh.dir-to-delete", 0, nil)

	const bbName = "registry.k8s.io/e2e-test-images/busybox:1.29-2"
	arm := v1.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}
	s390, ppc := v1.Platform{OS: "linux", Architecture: "s390x"}, v1.Platform{OS: "linux", Architecture: "ppc64le"}
	list := []registryImage{
		{"ghcr.io/containerd/busybox:1.36", []variant{{linuxAMD64, trees(busybox)}, foreign(arm, "busybox")}},
		{"ghcr.io/containerd/volume-copy-up:2.2", []variant{{linuxAMD64, trees(busybox, copyUp1, copyUp2)}}},
		{"ghcr.io/containerd/volume-ownership:2.1", []variant{{linuxAMD64, trees(owner)}}},
		{"ghcr.io/containerd/whiteout-test:1.0", []variant{{linuxAMD64, trees(busybox, doomed, whiteouts)}}},
		{"ghcr.io/containerd/windows/nanoserver:1809", []variant{foreign(v1.Platform{OS: "windows", Architecture: "amd64"}, "nanoserver")}},
		{bbName, []variant{{linuxAMD64, trees(busybox)}, foreign(arm, bbName), foreign(s390, bbName), foreign(ppc, bbName)}},
	}
	for _, v := range []string{"3.10.2", "3.6"} {
		pause := rootfs.New()
		pause.WriteFile("pause", 0o755, amd64Pause())
		list = append(list, registryImage{"registry.k8s.io/pause:" + v,
			[]variant{{linuxAMD64, trees(pause)}, foreign(arm, "pause"), foreign(s390, "pause"), foreign(ppc, "pause")}})
	}
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return fmt.Errorf("inputs: registry images: %w", err)
	}
	for _, im := range list {
		idx, err := im.index()
		if err != nil {
			return fmt.Errorf("inputs: image %s: %w", im.ref, err)
		}
		if err := path.AppendIndex(idx, layout.WithAnnotations(map[string]string{ocispec.AnnotationRefName: im.ref})); err != nil {
			return fmt.Errorf("inputs: image %s: %w", im.ref, err)
		}
	}
	return nil
}

// ownerTree is a root with bash and a setuid program. It has few files, for the
// tests change the owner of each of them several times.
func ownerTree(ctx context.Context, debs []apt.Deb) (*rootfs.Tree, error) {
	const lib = "usr/lib/x86_64-linux-gnu/"
	t, err := mergedTree(ctx, debs, func(n string) bool {
		switch n {
		case "usr/bin/bash", "usr/bin/dash", "usr/bin/passwd", "lib64/ld-linux-x86-64.so.2", "usr/lib64/ld-linux-x86-64.so.2":
			return true
		}
		base, ok := strings.CutPrefix(n, lib)
		return ok && (strings.HasPrefix(base, "ld-linux") || strings.HasPrefix(base, "libc.so.") || strings.HasPrefix(base, "libtinfo.so."))
	})
	if err != nil {
		return nil, err
	}
	addDirs(t)
	t.Symlink("bash", "usr/bin/sh")
	return t, nil
}

// registryImage is one image for several platforms.
type registryImage struct {
	ref      string
	variants []variant
}

// variant is the image of one platform: layers from the lowest.
type variant struct {
	platform v1.Platform
	layers   []*rootfs.Tree
}

var linuxAMD64 = v1.Platform{OS: "linux", Architecture: "amd64"}

func trees(t ...*rootfs.Tree) []*rootfs.Tree { return t }

// foreign is an image that nobody runs here; it only has to be there, with
// contents of its own.
func foreign(p v1.Platform, what string) variant {
	t := rootfs.New()
	t.WriteFile("what", 0o644, []byte(what+" for "+p.String()+"\n"))
	return variant{p, trees(t)}
}

// index returns the image as a registry has it: compressed layers below a list
// of platforms.
func (im registryImage) index() (v1.ImageIndex, error) {
	idx := mutate.IndexMediaType(empty.Index, types.DockerManifestList)
	for _, v := range im.variants {
		img := empty.Image
		for _, t := range v.layers {
			var buf bytes.Buffer
			if err := t.WriteTar(&buf); err != nil {
				return nil, err
			}
			l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
				return io.NopCloser(bytes.NewReader(buf.Bytes())), nil
			})
			if err != nil {
				return nil, err
			}
			if img, err = mutate.AppendLayers(img, l); err != nil {
				return nil, err
			}
		}
		img, err := configured(img, v.platform, shellConfig())
		if err != nil {
			return nil, err
		}
		p := v.platform
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &p}})
	}
	return idx, nil
}

// addBusyboxUsers gives the tree the users that the published busybox image has.
func addBusyboxUsers(t *rootfs.Tree) {
	t.WriteFile("etc/passwd", 0o644, []byte(`root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
sync:x:4:100:sync:/bin:/bin/sync
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
operator:x:37:37:Operator:/var:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
`))
	t.WriteFile("etc/group", 0o644, []byte(`root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
lp:x:7:
mail:x:8:
kmem:x:9:
wheel:x:10:root
www-data:x:33:
operator:x:37:
users:x:100:
nobody:x:65534:
`))
}

// amd64Pause is a program that sleeps until a signal ends it: pause() in a loop.
func amd64Pause() []byte {
	code := []byte{0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7} // mov $34, %eax; syscall; jmp back
	return tinyELF(elf.EM_X86_64, code)
}

// tinyELF is a static program of one segment whose code is at its entry.
func tinyELF(machine elf.Machine, code []byte) []byte {
	const (
		base   = 0x400000
		header = 64
		phdr   = 56
		entry  = header + phdr
	)
	size := uint64(entry + len(code))
	le := binary.LittleEndian
	b := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9)...)
	b = le.AppendUint16(b, uint16(elf.ET_EXEC))
	b = le.AppendUint16(b, uint16(machine))
	b = le.AppendUint32(b, uint32(elf.EV_CURRENT))
	b = le.AppendUint64(b, base+entry)
	b = le.AppendUint64(b, header) // program headers
	b = le.AppendUint64(b, 0)      // no section headers
	b = le.AppendUint32(b, 0)
	for _, v := range []uint16{header, phdr, 1, 0, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	b = le.AppendUint32(b, uint32(elf.PT_LOAD))
	b = le.AppendUint32(b, uint32(elf.PF_R|elf.PF_X))
	for _, v := range []uint64{0, base, base, size, size, 0x10000} {
		b = le.AppendUint64(b, v)
	}
	return append(b, code...)
}
