// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// mountRoot makes the container's root of its export or of its root mounts, with
// all its mounts, attached at mountPoint. The descriptor that it returns is the
// root and is O_PATH; the caller owns it.
func mountRoot(spec *agentapi.Container, exportDir, mountPoint string) (int, error) {
	// Nothing that is mounted from here on may reach the agent's namespace.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return -1, fmt.Errorf("make mounts private: %w", err)
	}
	exports, err := unix.Open(exportDir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open exports %s: %w", exportDir, err)
	}
	defer unix.Close(exports)
	root, err := openRoot(spec, exports, mountPoint)
	if err != nil {
		return -1, err
	}
	if err := fillRoot(spec, root, exports, mountPoint); err != nil {
		unix.Close(root)
		return -1, err
	}
	return root, nil
}

// openRoot makes the root file system, attached nowhere and without the
// container's mounts.
func openRoot(spec *agentapi.Container, exports int, mountPoint string) (int, error) {
	if list := spec.GetRootMounts(); len(list) > 0 {
		r := &rootMounts{exports: exports, point: mountPoint}
		return r.mountAll(list)
	}
	root, err := cloneExportDir(exports, spec.GetRootfs(), &mountOptions{recursive: true})
	if err != nil {
		return -1, fmt.Errorf("root file system: %w", err)
	}
	return root, nil
}

func fillRoot(spec *agentapi.Container, root, exports int, mountPoint string) error {
	if err := attachAt(mountPoint, root); err != nil {
		return fmt.Errorf("mount root file system: %w", err)
	}
	for _, m := range spec.GetMounts() {
		if err := mountOne(root, exports, m); err != nil {
			return err
		}
	}
	if devMount(spec) != nil {
		if err := fillDev(root, spec.GetProcess().GetTerminal()); err != nil {
			return err
		}
	}
	if err := makeDevices(root, spec.GetDevices()); err != nil {
		return err
	}
	cwd, err := mkdirAllIn(root, spec.GetProcess().GetCwd(), 0o755)
	if err != nil {
		return fmt.Errorf("working directory: %w", err)
	}
	unix.Close(cwd)
	return maskPaths(root, spec.GetMaskedPaths())
}

// devMount is the container's tmpfs at /dev. Without one, /dev is the image's
// or an export, and its nodes are left as they are.
func devMount(spec *agentapi.Container) *agentapi.Mount {
	var found *agentapi.Mount
	for _, m := range spec.GetMounts() {
		if path.Clean("/"+m.GetDestination()) == "/dev" {
			found = m
		}
	}
	if found.GetType() != "tmpfs" {
		return nil
	}
	return found
}

// devNodes are the character devices that the OCI runtime specification
// requires in every container (config-linux.md, "Default Devices"), with the
// numbers of Documentation/admin-guide/devices.txt.
var devNodes = []struct {
	name         string
	major, minor uint32
}{
	{"null", 1, 3},
	{"zero", 1, 5},
	{"full", 1, 7},
	{"random", 1, 8},
	{"urandom", 1, 9},
	{"tty", 5, 0},
}

// devLinks are the links of the same page.
var devLinks = [][2]string{
	{"/proc/self/fd", "fd"},
	{"/proc/self/fd/0", "stdin"},
	{"/proc/self/fd/1", "stdout"},
	{"/proc/self/fd/2", "stderr"},
	{"pts/ptmx", "ptmx"},
}

// fillDev makes the nodes and links of /dev; the process's umask must be 0.
func fillDev(root int, terminal bool) error {
	dev, err := openIn(root, "/dev", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("open /dev: %w", err)
	}
	defer unix.Close(dev)
	for _, n := range devNodes {
		err := unix.Mknodat(dev, n.name, unix.S_IFCHR|0o666, int(unix.Mkdev(n.major, n.minor)))
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make /dev/%s: %w", n.name, err)
		}
	}
	for _, l := range devLinks {
		if err := unix.Symlinkat(l[0], dev, l[1]); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make /dev/%s: %w", l[1], err)
		}
	}
	if !terminal {
		return nil
	}
	// The terminal is mounted on it later.
	if err := unix.Mknodat(dev, "console", unix.S_IFREG|0o600, 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make /dev/console: %w", err)
	}
	return nil
}

// pivot makes root the root directory of this mount namespace and drops the
// agent's mounts from it.
func pivot(root int) error {
	if err := unix.Fchdir(root); err != nil {
		return fmt.Errorf("enter the new root: %w", err)
	}
	// With both names the same, the old root ends up on top of the new one
	// and needs no directory of its own (pivot_root(2), NOTES).
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("drop the old root: %w", err)
	}
	return unix.Chdir("/")
}

// protect makes read-only what the specification wants so. It runs after pivot,
// last of all mounting.
func protect(spec *agentapi.Container) error {
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	readonly := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if m := devMount(spec); m != nil {
		if o, err := parseOptions("tmpfs", m.GetOptions()); err == nil && o.set&unix.MOUNT_ATTR_RDONLY != 0 {
			dev, err := openIn(root, "/dev", unix.O_PATH|unix.O_DIRECTORY)
			if err != nil {
				return err
			}
			err = setattr(dev, false, readonly)
			unix.Close(dev)
			if err != nil {
				return fmt.Errorf("make /dev read-only: %w", err)
			}
		}
	}
	if spec.GetReadonlyRootfs() {
		if err := setattr(root, false, readonly); err != nil {
			return fmt.Errorf("make the root file system read-only: %w", err)
		}
	}
	for _, p := range spec.GetReadonlyPaths() {
		if err := readonlyPath(root, p); err != nil {
			return fmt.Errorf("make %s read-only: %w", p, err)
		}
	}
	return nil
}

// readonlyPath puts a read-only mount of a path over itself. A path that does
// not exist needs nothing.
func readonlyPath(root int, name string) error {
	fd, err := openIn(root, name, unix.O_PATH)
	if errors.Is(err, unix.ENOENT) {
		return nil
	} else if err != nil {
		return err
	}
	defer unix.Close(fd)
	tree, err := cloneTree(fd, true)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	if err := setattr(tree, false, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return err
	}
	return moveMount(tree, fd)
}

// maskPaths hides paths below root. It runs before pivot, while the agent's
// /dev/null is in this namespace: the container's own may be missing or not what
// its name says.
func maskPaths(root int, names []string) error {
	null, err := unix.Open("/dev/null", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/null: %w", err)
	}
	defer unix.Close(null)
	for _, name := range names {
		if err := maskPath(root, name, null); err != nil {
			return fmt.Errorf("mask %s: %w", name, err)
		}
	}
	return nil
}

// maskPath hides a directory under an empty read-only tmpfs and anything else
// under a bind mount of null.
func maskPath(root int, name string, null int) error {
	fd, err := openIn(root, name, unix.O_PATH)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	} else if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	var tree int
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		empty := &agentapi.Mount{Type: "tmpfs", Source: "tmpfs"}
		tree, err = newFilesystem(empty, &mountOptions{
			set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC,
		})
	} else {
		tree, err = cloneTree(null, false)
	}
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	return moveMount(tree, fd)
}
