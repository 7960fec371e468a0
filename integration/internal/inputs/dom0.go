// SPDX-License-Identifier: Apache-2.0

package inputs

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/xcontainer/xcontainer/integration/internal/apt"
	"github.com/xcontainer/xcontainer/integration/internal/cache"
	"github.com/xcontainer/xcontainer/integration/internal/rootfs"
)

// dom0Files are the start scripts and settings of the lab machine.
//
//go:embed dom0
var dom0Files embed.FS

// dom0Packages are the programs of the dom0, besides containerd.
var dom0Packages = []string{
	"busybox-static", "dropbear-bin", "runc",
	"bash", "coreutils", "dash", "diffutils", "e2fsprogs", "erofs-utils", "findutils", "grep", "gzip", "hostname",
	"iproute2", "kmod", "libc-bin", "lsof", "mawk", "mount", "ncurses-base", "ncurses-bin",
	"procps", "psmisc", "sed", "strace", "tar", "util-linux", "base-passwd", "base-files",
}

// diskSize is the size of the dom0's file system. The image is sparse.
const diskSize = "8G"

// Dom0 is a bootable dom0 without Xen and payload.
type Dom0 struct {
	Kernel string // bzImage
	Initrd string // reaches the disk
	Disk   string // raw ext4 image, to be used as a snapshot's base only
	Key    cache.Key
}

// Dom0 builds the dom0's kernel, initramfs and disk.
func (b *Builder) Dom0(ctx context.Context) (*Dom0, error) {
	k, err := b.Kernel(ctx)
	if err != nil {
		return nil, err
	}
	a, err := b.apt(ctx, dom0Release)
	if err != nil {
		return nil, err
	}
	debs, err := a.Closure(ctx, dom0Packages...)
	if err != nil {
		return nil, err
	}
	ctrd, err := b.Containerd(ctx)
	if err != nil {
		return nil, err
	}
	scripts, err := scriptsKey()
	if err != nil {
		return nil, err
	}
	key := cache.KeyOf(append(debKey(debs), "v1", diskSize, filepath.Base(filepath.Dir(k.Image)), filepath.Base(ctrd), scripts)...)
	dir, err := b.cache.Dir(ctx, "dom0", key, func(ctx context.Context, dir string) error {
		b.step("make the dom0's disk")
		return makeDom0(ctx, dir, k, debs, ctrd)
	})
	if err != nil {
		return nil, err
	}
	return &Dom0{Kernel: k.Image, Initrd: filepath.Join(dir, "initrd"), Disk: filepath.Join(dir, "disk"), Key: key}, nil
}

// makeDom0 fills a cache directory with initrd and disk.
func makeDom0(ctx context.Context, dir string, k *Kernel, debs []apt.Deb, ctrd string) error {
	root, err := mergedTree(ctx, debs, keepFile)
	if err != nil {
		return err
	}
	if err := addPasswd(root); err != nil {
		return err
	}
	if err := addDom0Files(root, k); err != nil {
		return err
	}
	for _, p := range containerdPrograms {
		if err := addHostFile(root, "usr/local/bin/"+p, filepath.Join(ctrd, p)); err != nil {
			return err
		}
	}
	if err := addModules(root, "usr/lib/modules", k); err != nil {
		return err
	}
	initrd, err := makeInitrd(root, k)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "initrd"), initrd, 0o644); err != nil {
		return fmt.Errorf("inputs: write initramfs: %w", err)
	}
	tmp := filepath.Join(dir, "root")
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return fmt.Errorf("inputs: make disk: %w", err)
	}
	if err := root.WriteDir(tmp); err != nil {
		return err
	}
	if err := makeExt4(ctx, filepath.Join(dir, "disk"), tmp); err != nil {
		return err
	}
	if err := os.RemoveAll(tmp); err != nil {
		return fmt.Errorf("inputs: make disk: %w", err)
	}
	return nil
}

// keepFile leaves out what nobody reads in an emulated machine.
func keepFile(name string) bool {
	for _, p := range []string{"usr/share/doc/", "usr/share/man/", "usr/share/locale/", "usr/share/info/",
		"usr/share/lintian/", "usr/share/bash-completion/", "usr/share/bug/"} {
		if strings.HasPrefix(name, p) {
			return false
		}
	}
	return true
}

// addPasswd makes the user database from base-passwd's master files, as its
// maintainer script would.
func addPasswd(t *rootfs.Tree) error {
	for _, f := range []string{"passwd", "group"} {
		b, err := t.ReadFile("usr/share/base-passwd/" + f + ".master")
		if err != nil {
			return fmt.Errorf("inputs: user database: %w", err)
		}
		t.WriteFile("etc/"+f, 0o644, bytes.ReplaceAll(b, []byte(":*:"), []byte(":x:")))
	}
	t.WriteFile("etc/shadow", 0o600, []byte("root:*:19000:0:99999:7:::\n"))
	t.WriteFile("etc/shells", 0o644, []byte("/bin/sh\n/bin/bash\n/usr/bin/sh\n/usr/bin/bash\n"))
	return nil
}

// addDom0Files puts the start scripts and directories in place.
func addDom0Files(t *rootfs.Tree, k *Kernel) error {
	for _, d := range []string{"dev", "proc", "sys", "run", "var/log", "var/lib", "mnt", "opt/xcontainer", "etc/containerd"} {
		t.Mkdir(d, 0o755)
	}
	t.Mkdir("root", 0o700)
	t.Mkdir("tmp", 0o1777)
	t.Mkdir("var/tmp", 0o1777)
	t.Symlink("/run", "var/run")
	place := map[string]struct {
		to   string
		mode uint32
	}{
		"inittab":        {"etc/inittab", 0o644},
		"env":            {"usr/lib/lab/env", 0o644},
		"profile":        {"etc/profile", 0o644},
		"boot":           {"usr/lib/lab/boot", 0o755},
		"sshd":           {"usr/lib/lab/sshd", 0o755},
		"daemon":         {"usr/lib/lab/daemon", 0o755},
		"shutdown":       {"usr/lib/lab/shutdown", 0o755},
		"lab-containerd": {"usr/local/sbin/lab-containerd", 0o755},
		"lab-payload":    {"usr/local/sbin/lab-payload", 0o755},
		"config.toml":    {"etc/containerd/config.toml", 0o644},
	}
	for name, p := range place {
		b, err := dom0Files.ReadFile("dom0/" + name)
		if err != nil {
			return fmt.Errorf("inputs: dom0 files: %w", err)
		}
		t.WriteFile(p.to, p.mode, b)
	}
	t.Symlink("/usr/bin/busybox", "usr/lib/lab/init")
	load := slices.DeleteFunc(slices.Clone(k.Load), func(m string) bool { return slices.Contains(k.Boot, m) })
	t.WriteFile("usr/lib/lab/load.list", 0o644, []byte(strings.Join(load, "\n")+"\n"))
	t.WriteFile("etc/hostname", 0o644, []byte("dom0\n"))
	t.WriteFile("etc/hosts", 0o644, []byte("127.0.0.1 localhost dom0\n"))
	addLinks(t)
	return nil
}

// addModules puts the kernel's modules below a directory of the tree.
func addModules(t *rootfs.Tree, under string, k *Kernel) error {
	return filepath.WalkDir(k.Modules, func(p string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(k.Modules, p)
		if err != nil {
			return err
		}
		return addHostFile(t, filepath.Join(under, rel), p)
	})
}

// addHostFile adds a file of this machine, keeping whether it is executable.
func addHostFile(t *rootfs.Tree, name, path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("inputs: add %s: %w", name, err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("inputs: add %s: %w", name, err)
	}
	mode := uint32(0o644)
	if st.Mode()&0o111 != 0 {
		mode = 0o755
	}
	t.WriteFile(name, mode, b)
	return nil
}

// makeInitrd makes the uncompressed initramfs from busybox and the boot modules.
func makeInitrd(root *rootfs.Tree, k *Kernel) ([]byte, error) {
	t := rootfs.New()
	bb, ok := root.Lookup("usr/bin/busybox")
	if !ok {
		return nil, fmt.Errorf("inputs: initramfs: no busybox in the dom0")
	}
	t.WriteFile("bin/busybox", 0o755, bb.Data)
	init, err := dom0Files.ReadFile("dom0/init")
	if err != nil {
		return nil, fmt.Errorf("inputs: initramfs: %w", err)
	}
	t.WriteFile("init", 0o755, init)
	var list strings.Builder
	for _, m := range k.Boot {
		if err := addHostFile(t, "modules/"+filepath.Base(m), filepath.Join(k.Modules, k.Version, m)); err != nil {
			return nil, err
		}
		list.WriteString(filepath.Base(m) + "\n")
	}
	t.WriteFile("boot.list", 0o644, []byte(list.String()))
	var buf bytes.Buffer
	if err := t.WriteCpio(&buf); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// makeExt4 makes a file system image from a directory. There is no journal: the
// image is a base for throw-away overlays, and speed counts. A user who is not
// root sees own files as root's in a user name space.
func makeExt4(ctx context.Context, image, dir string) error {
	// mke2fs is where only root's PATH leads.
	path := os.Getenv("PATH") + ":/usr/sbin:/sbin"
	args := []string{"env", "PATH=" + path, "mke2fs", "-q", "-t", "ext4", "-m", "0", "-L", "lab", "-d", dir,
		"-O", "^has_journal,^metadata_csum,^resize_inode",
		"-U", "5e0f4b6e-52d6-4c0f-9d68-6c61622d3031",
		"-E", "root_owner=0:0,lazy_itable_init=1,nodiscard,hash_seed=5e0f4b6e-52d6-4c0f-9d68-6c61622d3032",
		image, diskSize}
	if os.Geteuid() != 0 {
		args = append([]string{"unshare", "--user", "--map-root-user"}, args...)
	}
	if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("inputs: make disk: mke2fs: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// scriptsKey hashes the embedded files.
func scriptsKey() (string, error) {
	ents, err := dom0Files.ReadDir("dom0")
	if err != nil {
		return "", fmt.Errorf("inputs: dom0 files: %w", err)
	}
	var parts []string
	for _, e := range ents {
		b, err := dom0Files.ReadFile("dom0/" + e.Name())
		if err != nil {
			return "", fmt.Errorf("inputs: dom0 files: %w", err)
		}
		parts = append(parts, e.Name(), string(b))
	}
	return string(cache.KeyOf(parts...)), nil
}
