// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/shim/bundle"
)

// ErrHostPath is the identity of the error for a host path that a container
// names and cannot have.
var ErrHostPath = errors.New("host path cannot be shared")

// rootfsDir is where containerd expects the root file system, and unmounts it.
func rootfsDir(bundle string) string { return filepath.Join(bundle, "rootfs") }

// mountRootfs mounts what containerd's snapshotter says.
func mountRootfs(dir string, rootfs []*types.Mount) error {
	if len(rootfs) == 0 {
		return nil
	}
	target := rootfsDir(dir)
	if err := os.MkdirAll(target, 0o711); err != nil {
		return fmt.Errorf("mount rootfs: %w", err)
	}
	for _, m := range rootfs {
		mnt := mount.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options}
		if err := mnt.Mount(target); err != nil {
			return fmt.Errorf("mount rootfs: %w; is the container's snapshot still there?", err)
		}
	}
	return nil
}

func unmountRootfs(dir string) error {
	if err := mount.UnmountRecursive(rootfsDir(dir), 0); err != nil {
		return fmt.Errorf("unmount rootfs %s: %w", rootfsDir(dir), err)
	}
	return nil
}

// openPath opens a host path to share it: a directory, or a regular file. The
// descriptor pins what it finds and cannot be read or written.
func openPath(what, path string, dirOnly bool) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, &refusal{ErrHostPath, fmt.Sprintf("%s %s does not exist; make it, or create the container again", what, path)}
	}
	if err != nil {
		return nil, fmt.Errorf("open %s %s: %w", what, path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open %s %s: %w", what, path, err)
	}
	switch {
	case fi.IsDir(), fi.Mode().IsRegular() && !dirOnly:
		return f, nil
	default:
		f.Close()
		want := "a directory or a regular file"
		if dirOnly {
			want = "a directory"
		}
		return nil, &refusal{ErrHostPath, fmt.Sprintf("%s %s is %s, which X-Containers cannot share; give %s", what, path, kind(fi.Mode()), want)}
	}
}

func kind(m os.FileMode) string {
	switch {
	case m.IsRegular():
		return "a regular file"
	case m&os.ModeSocket != 0:
		return "a socket"
	case m&os.ModeNamedPipe != 0:
		return "a named pipe"
	case m&os.ModeDevice != 0:
		return "a device"
	default:
		return "neither a file nor a directory"
	}
}

// source is one host path on its way into the domain.
type source struct {
	name     string // of the export
	file     *os.File
	readOnly bool
}

// openSources opens the binds' sources before anything is made, and names them
// in the container's mounts. The root file system follows when it is mounted.
func openSources(id string, s *bundle.Settings) (_ []source, err error) {
	var list []source
	defer func() {
		if err != nil {
			closeSources(list)
		}
	}()
	for _, b := range s.Binds {
		f, err := openPath("bind mount source", b.Source, false)
		if err != nil {
			return nil, err
		}
		name := id + "/mounts/" + strconv.Itoa(b.Mount)
		s.Container.Mounts[b.Mount].Source = name
		list = append(list, source{name, f, b.ReadOnly})
	}
	return list, nil
}

func closeSources(list []source) {
	for _, s := range list {
		s.file.Close()
	}
}

// export shares the root file system and the binds.
func export(ctx context.Context, g Guest, id string, s *bundle.Settings, binds []source) error {
	root, err := openPath("rootfs", s.Root, true)
	if err != nil {
		return err
	}
	defer root.Close()
	s.Container.Rootfs = id + "/rootfs"
	// A root file system that is read-only for the container need not be so for
	// the guest, which makes mount points in it.
	if err := g.AddExport(ctx, s.Container.Rootfs, root, false, bundle.RootTTL); err != nil {
		return fmt.Errorf("share rootfs %s: %w", s.Root, err)
	}
	for _, b := range binds {
		if err := g.AddExport(ctx, b.name, b.file, b.readOnly, bundle.BindTTL); err != nil {
			return fmt.Errorf("share %s: %w", b.file.Name(), err)
		}
	}
	return nil
}
