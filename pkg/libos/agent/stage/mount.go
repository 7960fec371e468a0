// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"fmt"
	"path"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// filesystems maps the types that a container may mount to the kernel's. The
// guest has cgroup v2 only, so a request for v1 gets that.
var filesystems = map[string]string{
	"proc":    "proc",
	"sysfs":   "sysfs",
	"tmpfs":   "tmpfs",
	"devpts":  "devpts",
	"mqueue":  "mqueue",
	"cgroup":  "cgroup2",
	"cgroup2": "cgroup2",
}

// mountOne makes one of the container's mounts below root. exports is the
// directory that holds the exports.
func mountOne(root, exports int, m *agentapi.Mount) error {
	opts, err := parseOptions(m.GetType(), m.GetOptions())
	if err != nil {
		return failf(codes.InvalidArgument, "mount %s: %v", m.GetDestination(), err)
	}
	dest := path.Clean("/" + m.GetDestination())
	if dest == "/" {
		return failf(codes.InvalidArgument, "mount %q: the root itself cannot be a mount's destination", m.GetDestination())
	}
	var tree int
	isDir := true
	if opts.bind {
		tree, isDir, err = cloneExport(exports, m.GetSource(), opts)
	} else {
		tree, err = newFilesystem(m, opts)
	}
	if err != nil {
		return fmt.Errorf("mount %s at %s: %w", m.GetType(), dest, err)
	}
	defer unix.Close(tree)
	if err := attach(root, dest, tree, isDir); err != nil {
		return fmt.Errorf("mount %s at %s: %w", m.GetType(), dest, err)
	}
	return nil
}

// attach puts a detached mount at a path below root and makes the path if it
// is missing.
func attach(root int, dest string, tree int, isDir bool) error {
	var target int
	var err error
	if isDir {
		target, err = mkdirAllIn(root, dest, 0o755)
	} else {
		target, err = createIn(root, dest)
	}
	if err != nil {
		return err
	}
	defer unix.Close(target)
	return moveMount(tree, target)
}

// moveMount puts a detached mount on top of what target refers to.
func moveMount(tree, target int) error {
	const flags = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
	return unix.MoveMount(tree, "", target, "", flags)
}

// newFilesystem makes a file system of its own that is attached nowhere yet.
func newFilesystem(m *agentapi.Mount, opts *mountOptions) (int, error) {
	fstype, ok := filesystems[m.GetType()]
	if !ok {
		return -1, failf(codes.InvalidArgument, "unsupported type %q", m.GetType())
	}
	ctx, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(ctx)
	if m.GetSource() != "" {
		if err := unix.FsconfigSetString(ctx, "source", m.GetSource()); err != nil {
			return -1, fmt.Errorf("source %q: %w", m.GetSource(), err)
		}
	}
	for _, name := range opts.flags {
		if err := unix.FsconfigSetFlag(ctx, name); err != nil {
			return -1, fmt.Errorf("option %q: %w", name, err)
		}
	}
	for _, kv := range opts.data {
		if err := unix.FsconfigSetString(ctx, kv[0], kv[1]); err != nil {
			return -1, fmt.Errorf("option \"%s=%s\": %w", kv[0], kv[1], err)
		}
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return -1, err
	}
	set := opts.set
	if m.GetType() == "tmpfs" && path.Clean(m.GetDestination()) == "/dev" {
		set &^= unix.MOUNT_ATTR_RDONLY // its nodes come first
	}
	tree, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, int(set))
	if err != nil {
		return -1, err
	}
	if err := changeTree(tree, &mountOptions{rset: opts.rset, rclear: opts.rclear, propagation: opts.propagation}); err != nil {
		unix.Close(tree)
		return -1, err
	}
	return tree, nil
}

// cloneExport makes a detached bind mount of an export, a directory or a file,
// with the options applied.
func cloneExport(exports int, name string, opts *mountOptions) (tree int, isDir bool, err error) {
	src, err := openBeneath(exports, name, unix.O_PATH)
	if err != nil {
		return -1, false, fmt.Errorf("export %q: %w", name, err)
	}
	defer unix.Close(src)
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return -1, false, fmt.Errorf("export %q: %w", name, err)
	}
	tree, err = cloneTree(src, opts.recursive)
	if err != nil {
		return -1, false, fmt.Errorf("export %q: %w", name, err)
	}
	if err := changeTree(tree, opts); err != nil {
		unix.Close(tree)
		return -1, false, err
	}
	return tree, st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}

// cloneExportDir is cloneExport of what must be a directory.
func cloneExportDir(exports int, name string, opts *mountOptions) (int, error) {
	tree, isDir, err := cloneExport(exports, name, opts)
	if err == nil && !isDir {
		unix.Close(tree)
		return -1, failf(codes.InvalidArgument, "export %q is not a directory", name)
	}
	return tree, err
}

// cloneTree makes a detached bind mount of what fd refers to.
func cloneTree(fd int, recursive bool) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return unix.OpenTree(fd, "", flags)
}

// changeTree applies attributes and propagation to a mount.
func changeTree(tree int, opts *mountOptions) error {
	if opts.rset|opts.rclear != 0 {
		attr := unix.MountAttr{Attr_set: opts.rset, Attr_clr: opts.rclear}
		if err := setattr(tree, true, attr); err != nil {
			return err
		}
	}
	if opts.set|opts.clear != 0 {
		if err := setattr(tree, false, opts.attr()); err != nil {
			return err
		}
	}
	for _, p := range opts.propagation {
		if err := setattr(tree, p.recursive, unix.MountAttr{Propagation: p.kind}); err != nil {
			return err
		}
	}
	return nil
}

func setattr(tree int, recursive bool, attr unix.MountAttr) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	if err := unix.MountSetattr(tree, "", flags, &attr); err != nil {
		return fmt.Errorf("set attributes: %w", err)
	}
	return nil
}
