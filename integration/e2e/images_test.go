// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/xcontainer/xcontainer/integration/internal/labrun"
)

// Images that the tests make themselves.
const (
	appUserImage = "example.test/e2e/app-user:1" // busybox, user "app"
	armImage     = "example.test/e2e/arm64:1"    // for another architecture
	escapeImage  = "example.test/e2e/escape:1"   // busybox, with links that lead out
	foreignImage = "example.test/e2e/foreign:1"  // says amd64, but holds that program
)

// Programs of the tests, on the machine under test.
const (
	programs = "/var/tmp/xc-e2e"
	ptyrun   = programs + "/ptyrun"
	domkill  = programs + "/domkill"

	taskupdate = programs + "/taskupdate"
	diskrun    = programs + "/diskrun"
	taskio     = programs + "/taskio"
)

// prepare puts the tests' programs and images on the machine under test.
func prepare(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for program, path := range map[string]string{"./ptyrun": ptyrun, "./domkill": domkill, "./taskupdate": taskupdate, "./taskio": taskio, "./diskrun": diskrun} {
		bin := filepath.Join(dir, "program")
		if err := labrun.Build(ctx, "", bin, program); err != nil {
			return fmt.Errorf("e2e: %w", err)
		}
		if err := put(bin, path); err != nil {
			return err
		}
	}
	if err := write(strings.NewReader(loggerScript), logger); err != nil {
		return err
	}
	if err := importDerived(); err != nil {
		return err
	}
	return importArm()
}

// put copies a file of this machine to path on the machine under test.
func put(file, path string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	return write(f, path)
}

// write makes a program of text at path on the machine under test.
func write(text io.Reader, path string) error {
	return must(text, "sh", "-c", `mkdir -p "${1%/*}" && cat >"$1" && chmod 755 "$1"`, "sh", path)
}

// must runs a command on the machine under test that has to succeed.
func must(stdin io.Reader, argv ...string) error {
	r, err := command(under, 3*time.Minute, stdin, argv...)
	if err == nil && r.code != 0 {
		err = fmt.Errorf("e2e: %s: %v", clip(quote(argv...)), r)
	}
	return err
}

// link marks a file's text as the target of a symbolic link.
const link = "\x00link "

// importDerived makes images of the busybox image.
func importDerived() error {
	// Without --local, ctr may close the file before the last bytes are in it.
	r, err := command(under, 3*time.Minute, nil, "sh", "-c", "f=$(mktemp); ctr images export --local $f "+busybox+" >&2 && cat $f; rm -f $f")
	if err != nil {
		return err
	}
	if r.code != 0 {
		return fmt.Errorf("e2e: export busybox: %v", r.stderr)
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader([]byte(r.stdout))), nil }
	base, err := tarball.Image(open, nil)
	if err != nil {
		return fmt.Errorf("e2e: read the busybox image: %w", err)
	}
	err = importImage(escapeImage, base, map[string]string{
		"mnt":      link + "/var/tmp/e2e-canary",
		"up":       link + "../../../../../../var/tmp/e2e-canary",
		"run":      link + "chain",
		"chain":    link + "/var/tmp/e2e-canary",
		"absolute": link + "/var/tmp/e2e-canary",
	}, func(*v1.ConfigFile) {})
	if err != nil {
		return err
	}
	return importImage(appUserImage, base, map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\napp:x:1234:2345:An app:/home/app:/bin/sh\n",
		"etc/group":  "root:x:0:\napp:x:2345:\nextra:x:3456:app\n",
	}, func(c *v1.ConfigFile) { c.Config.User = "app" })
}

// importArm makes two images of a program that no amd64 processor runs: one
// that says so, and one that does not.
func importArm() error {
	header := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_AARCH64), Version: uint32(elf.EV_CURRENT),
		Entry: 0x400078, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	}
	segment := elf.Prog64{
		Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X),
		Vaddr: 0x400000, Paddr: 0x400000, Filesz: 124, Memsz: 124, Align: 0x1000,
	}
	var program bytes.Buffer
	for _, part := range []any{header, segment, uint32(0x14000000)} { // b .
		if err := binary.Write(&program, binary.LittleEndian, part); err != nil {
			return err
		}
	}
	files := map[string]string{"bin/true": program.String()}
	for ref, arch := range map[string]string{armImage: "arm64", foreignImage: "amd64"} {
		err := importImage(ref, empty.Image, files, func(c *v1.ConfigFile) {
			c.OS, c.Architecture = "linux", arch
			c.Config.Env = []string{"PATH=/bin"}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// importImage adds a layer of files to base, changes its configuration, and
// imports it as ref.
func importImage(ref string, base v1.Image, files map[string]string, change func(*v1.ConfigFile)) error {
	var layerTar bytes.Buffer
	w := tar.NewWriter(&layerTar)
	for path, text := range files {
		h := &tar.Header{Name: path, Mode: 0o755, Size: int64(len(text)), ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg}
		if target, ok := strings.CutPrefix(text, link); ok {
			h.Typeflag, h.Linkname, h.Size, text = tar.TypeSymlink, target, 0, ""
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(layerTar.Bytes())), nil
	})
	if err != nil {
		return err
	}
	img, err := mutate.AppendLayers(base, layer)
	if err != nil {
		return err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return err
	}
	config = config.DeepCopy()
	change(config)
	if img, err = mutate.ConfigFile(img, config); err != nil {
		return err
	}
	tag, err := name.NewTag(ref)
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	if err := tarball.Write(tag, img, &archive); err != nil {
		return fmt.Errorf("e2e: make image %s: %w", ref, err)
	}
	return must(&archive, "ctr", "images", "import", "--all-platforms", "-")
}
