// SPDX-License-Identifier: Apache-2.0

package libos

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/backend/control"
)

// AddExport lets the guest see dir, an O_PATH descriptor of a directory or a
// regular file, under name in its one virtio-fs mount. ttl is how long the
// guest may keep names and attributes. The caller keeps dir.
func (g *Guest) AddExport(ctx context.Context, name string, dir *os.File, readOnly bool, ttl time.Duration) error {
	tree, err := cloneMount(dir, readOnly)
	if err != nil {
		return fmt.Errorf("share %s: %w", dir.Name(), err)
	}
	defer tree.Close()
	return g.backend.client.AddExport(ctx, control.Export{Name: name, Dir: tree, ReadOnly: readOnly, CacheTTL: ttl})
}

// RemoveExport takes name back. When it returns the back-end holds no
// descriptor of it any more.
func (g *Guest) RemoveExport(ctx context.Context, name string) error {
	return g.backend.client.RemoveExport(ctx, name)
}

// cloneMount makes a mount of its own of what dir is, and of the mounts below
// it, which is attached nowhere and goes with its last descriptor. So a back-end
// that a guest has taken over finds no way up from its exports: their ".." is
// themselves. Nor is the device node that it may make (its guest may, too) a
// device for it. open_tree(2), mount_setattr(2): Linux 5.12.
func cloneMount(dir *os.File, readOnly bool) (*os.File, error) {
	const flags = unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_RECURSIVE | unix.AT_EMPTY_PATH
	fd, err := unix.OpenTree(int(dir.Fd()), "", flags)
	if err != nil {
		return nil, fmt.Errorf("clone its mount: %w", err)
	}
	tree := os.NewFile(uintptr(fd), dir.Name())
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC}
	if readOnly {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		tree.Close()
		return nil, fmt.Errorf("take rights from its mount: %w", err)
	}
	return tree, nil
}
