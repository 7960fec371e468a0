// SPDX-License-Identifier: Apache-2.0

package inputs

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/xcontainer/xcontainer/integration/internal/apt"
	"github.com/xcontainer/xcontainer/integration/internal/cache"
)

// bootModules are loaded by the initramfs, in this order, to reach the disk.
var bootModules = []string{"virtio_pci", "virtio_blk", "crc32c_generic", "ext4"}

// dom0Modules are loaded at boot by the machine's own start script: Xen's device
// nodes, the shared folders, the network, and what containerd and runc use.
var dom0Modules = []string{
	"xen-privcmd", "xen-evtchn", "xen-gntdev", "xen-gntalloc",
	"virtio_net", "9pnet_virtio", "9p",
	"overlay", "loop", "erofs", "fuse",
}

// extraModules are there for modprobe but not loaded.
var extraModules = []string{
	"veth", "bridge", "br_netfilter", "tun", "macvlan", "dummy",
	"ip_tables", "iptable_filter", "iptable_nat", "nf_tables", "nft_compat", "nft_chain_nat",
	"xt_MASQUERADE", "xt_comment", "xt_mark", "xt_conntrack", "xt_addrtype", "xt_multiport", "xt_tcpudp",
	"dm-mod", "dm-thin-pool", "vsock", "vhost_vsock", "virtiofs", "virtio_rng", "nbd",
	"sch_ingress", "sch_htb", "act_mirred", "cls_u32",
	"xenfs", // /proc/xen/xensyms, for lab profile
}

// Kernel is the dom0 kernel in the cache.
type Kernel struct {
	Version string // as uname -r says
	Image   string // path of the bzImage
	Modules string // directory that holds <Version>/..., with modules.dep
	// Boot and Load list module files relative to Modules/Version, each after
	// what it needs: those of the initramfs and those of the start script.
	Boot, Load []string
}

// Kernel downloads the dom0 kernel and picks its modules.
func (b *Builder) Kernel(ctx context.Context) (*Kernel, error) {
	a, err := b.apt(ctx, dom0Release)
	if err != nil {
		return nil, err
	}
	deb, err := kernelDeb(ctx, a)
	if err != nil {
		return nil, err
	}
	parts := append(debKey([]apt.Deb{deb}), "v1")
	parts = append(parts, bootModules...)
	parts = append(append(append(parts, "/"), dom0Modules...), "/")
	parts = append(parts, extraModules...)
	dir, err := b.cache.Dir(ctx, "dom0-kernel", cache.KeyOf(parts...), func(ctx context.Context, dir string) error {
		b.step("unpack the dom0 kernel")
		return unpackKernel(ctx, deb, dir)
	})
	if err != nil {
		return nil, err
	}
	return openKernel(dir)
}

// kernelDeb follows Debian's linux-image-amd64 to the package of the moment.
func kernelDeb(ctx context.Context, a *apt.Apt) (apt.Deb, error) {
	const meta = "linux-image-amd64"
	debs, err := a.Download(ctx, meta)
	if err != nil {
		return apt.Deb{}, err
	}
	out, err := exec.CommandContext(ctx, "dpkg-deb", "-f", debs[0].Path, "Depends").Output()
	if err != nil {
		return apt.Deb{}, fmt.Errorf("inputs: read dependencies of %s: %w", meta, err)
	}
	for f := range strings.FieldsSeq(string(out)) {
		if strings.HasPrefix(f, "linux-image-") {
			debs, err := a.Download(ctx, f)
			if err != nil {
				return apt.Deb{}, err
			}
			return debs[0], nil
		}
	}
	return apt.Deb{}, fmt.Errorf("inputs: %s depends on no kernel: %q", meta, out)
}

// unpackKernel fills a cache directory: vmlinuz, modules/<version>/... and the
// two load lists.
func unpackKernel(ctx context.Context, deb apt.Deb, dir string) error {
	all := filepath.Join(dir, "all")
	if err := os.Mkdir(all, 0o755); err != nil {
		return fmt.Errorf("inputs: unpack kernel: %w", err)
	}
	if err := apt.Extract(ctx, deb, all); err != nil {
		return err
	}
	images, _ := filepath.Glob(filepath.Join(all, "boot/vmlinuz-*"))
	if len(images) != 1 {
		return fmt.Errorf("inputs: package %s has %d kernels, want 1", deb.Name, len(images))
	}
	version := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	if err := os.Rename(images[0], filepath.Join(dir, "vmlinuz")); err != nil {
		return fmt.Errorf("inputs: unpack kernel: %w", err)
	}
	src := filepath.Join(all, "lib/modules", version)
	set, err := scanModules(src)
	if err != nil {
		return err
	}
	dst := filepath.Join(dir, "modules", version)
	want, err := set.closure(slices.Concat(bootModules, dom0Modules, extraModules))
	if err != nil {
		return err
	}
	for _, name := range want {
		rel := set[name].path
		to := filepath.Join(dst, rel)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return fmt.Errorf("inputs: unpack kernel: %w", err)
		}
		if err := os.Rename(filepath.Join(src, rel), to); err != nil {
			return fmt.Errorf("inputs: unpack kernel: %w", err)
		}
	}
	lists := map[string][]string{"boot": bootModules, "load": dom0Modules}
	for file, names := range lists {
		order, err := set.closure(names)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, file), []byte(set.paths(order)), 0o644); err != nil {
			return fmt.Errorf("inputs: unpack kernel: %w", err)
		}
	}
	dep, err := set.dep(want)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dst, "modules.dep"), []byte(dep), 0o644); err != nil {
		return fmt.Errorf("inputs: unpack kernel: %w", err)
	}
	if err := os.RemoveAll(all); err != nil {
		return fmt.Errorf("inputs: unpack kernel: %w", err)
	}
	return nil
}

// openKernel reads what unpackKernel wrote.
func openKernel(dir string) (*Kernel, error) {
	k := &Kernel{Image: filepath.Join(dir, "vmlinuz"), Modules: filepath.Join(dir, "modules")}
	ents, err := os.ReadDir(k.Modules)
	if err != nil || len(ents) != 1 {
		return nil, fmt.Errorf("inputs: cached kernel %s is damaged, remove it: %d versions, %v", dir, len(ents), err)
	}
	k.Version = ents[0].Name()
	for file, dst := range map[string]*[]string{"boot": &k.Boot, "load": &k.Load} {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			return nil, fmt.Errorf("inputs: cached kernel is damaged: %w", err)
		}
		*dst = strings.Fields(string(text))
	}
	return k, nil
}

// module is one kernel module file.
type module struct {
	path string   // below lib/modules/<version>
	deps []string // normalised names
}

// moduleSet maps normalised names to modules.
type moduleSet map[string]module

// normal gives module names one form: the kernel takes - and _ as equal.
func normal(name string) string { return strings.ReplaceAll(name, "-", "_") }

// scanModules reads the dependencies of all modules below dir.
func scanModules(dir string) (moduleSet, error) {
	set := moduleSet{}
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(p, ".ko") {
			return err
		}
		deps, err := moduleDeps(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		set[normal(strings.TrimSuffix(filepath.Base(p), ".ko"))] = module{path: rel, deps: deps}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("inputs: read kernel modules: %w", err)
	}
	return set, nil
}

// moduleDeps reads "depends=" from a module's .modinfo section.
func moduleDeps(path string) ([]string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("module %s: %w", path, err)
	}
	defer f.Close()
	s := f.Section(".modinfo")
	if s == nil {
		return nil, nil
	}
	b, err := s.Data()
	if err != nil {
		return nil, fmt.Errorf("module %s: %w", path, err)
	}
	return parseDepends(b), nil
}

// parseDepends finds the depends entry among NUL-separated key=value pairs.
func parseDepends(modinfo []byte) []string {
	var deps []string
	for kv := range bytes.SplitSeq(modinfo, []byte{0}) {
		v, ok := bytes.CutPrefix(kv, []byte("depends="))
		if !ok || len(v) == 0 {
			continue
		}
		for d := range strings.SplitSeq(string(v), ",") {
			deps = append(deps, normal(d))
		}
	}
	return deps
}

// closure returns names and all they depend on, each after its dependencies.
func (s moduleSet) closure(names []string) ([]string, error) {
	var out []string
	state := map[string]int{} // 1: being visited, 2: done
	var visit func(name, by string) error
	visit = func(name, by string) error {
		switch state[name] {
		case 1:
			return fmt.Errorf("inputs: kernel module %s depends on itself", name)
		case 2:
			return nil
		}
		m, ok := s[name]
		if !ok {
			return fmt.Errorf("inputs: the dom0 kernel has no module %s, wanted by %s", name, by)
		}
		state[name] = 1
		for _, d := range m.deps {
			if err := visit(d, name); err != nil {
				return err
			}
		}
		state[name] = 2
		out = append(out, name)
		return nil
	}
	for _, n := range names {
		if err := visit(normal(n), "the lab"); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// paths lists the files of modules, one a line.
func (s moduleSet) paths(names []string) string {
	var b strings.Builder
	for _, n := range names {
		b.WriteString(s[n].path + "\n")
	}
	return b.String()
}

// dep renders modules.dep, which modprobe reads: a file, and after the colon
// what it needs, nearest first.
func (s moduleSet) dep(names []string) (string, error) {
	var b strings.Builder
	for _, n := range names {
		order, err := s.closure([]string{n})
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%s:", s[n].path)
		for _, d := range slices.Backward(order[:len(order)-1]) {
			fmt.Fprintf(&b, " %s", s[d].path)
		}
		b.WriteByte('\n')
	}
	return b.String(), nil
}
