// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/shim/bundle"
	"github.com/xcontainer/xcontainer/pkg/shim/refusal"
)

// ErrHostPath is the identity of the error for a host path that a container
// names and cannot have.
var ErrHostPath = errors.New("host path cannot be shared")

// rootfsDir is where containerd expects the root file system, and unmounts it.
func rootfsDir(bundle string) string { return filepath.Join(bundle, "rootfs") }

// prepareRoot makes the root file system ready for a domain: disks to be put
// together in the guest, or, where that cannot be, mounts of the host at the
// bundle's rootfs. On an error nothing is left.
func prepareRoot(dir string, list []*types.Mount, onHost bool) (_ *root, why string, err error) {
	layers, err := parseLayers(list)
	if err != nil {
		return nil, "", err
	}
	plan, why, err := planDisks(layers)
	if err != nil {
		return nil, "", err
	}
	if plan != nil && !onHost {
		r, err := openDisks(plan)
		return r, "", err
	}
	if err := mountLayers(rootfsDir(dir), layers); err != nil {
		return nil, "", errors.Join(err, unmountRootfs(dir))
	}
	return &root{}, why, nil
}

// mountLayers mounts the layers on top of each other. One that names others gets
// them by descriptor, so that all mounts are at one place, where whoever cleans
// up looks for them.
func mountLayers(target string, layers []layer) error {
	if len(layers) == 0 {
		return nil
	}
	if err := os.MkdirAll(target, 0o711); err != nil {
		return fmt.Errorf("mount rootfs: %w", err)
	}
	var points []*os.File
	defer func() {
		for _, p := range points {
			p.Close()
		}
	}()
	point := func(n int) string { return "/proc/self/fd/" + strconv.Itoa(int(points[n].Fd())) }
	for i := range layers {
		m, err := hostMount(layers, i, point)
		if err != nil {
			return err
		}
		if err := m.Mount(target); err != nil {
			return fmt.Errorf("mount rootfs: %w; is the container's snapshot still there?", err)
		}
		fd, err := unix.Open(target, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("mount rootfs: open %s: %w", target, err)
		}
		points = append(points, os.NewFile(uintptr(fd), target))
	}
	return nil
}

// hostMount is layer i as the host mounts it, its transforms carried out.
func hostMount(layers []layer, i int, point func(int) string) (*mount.Mount, error) {
	l := layers[i]
	m := &mount.Mount{Type: l.kind, Target: l.target}
	var err error
	if m.Source, err = expand(layers, i, l.source, point); err != nil {
		return nil, err
	}
	for _, o := range l.options {
		if o, err = expand(layers, i, o, point); err != nil {
			return nil, err
		}
		switch value, isMkdir := strings.CutPrefix(o, optMkdir); {
		case isMkdir && l.mkdir:
			if err := mkdirIn(value, i, point); err != nil {
				return nil, fmt.Errorf("rootfs mount %d: option %q: %w", i, o, err)
			}
		case strings.HasPrefix(o, optPrivate):
			return nil, privateOption(i, o)
		default:
			m.Options = append(m.Options, o)
		}
	}
	return m, nil
}

// mkdirIn makes a directory of one of the first n layers: PATH[:MODE[:UID:GID]],
// mode octal. One that exists stays as it is.
func mkdirIn(value string, n int, point func(int) string) error {
	parts := strings.Split(value, ":")
	if len(parts) == 3 || len(parts) > 4 {
		return fmt.Errorf("want PATH[:MODE[:UID:GID]]: %w", errdefs.ErrInvalidArgument)
	}
	nums := []uint64{0o700, 0, 0}
	for k, s := range parts[1:] {
		base := 10
		if k == 0 {
			base = 8
		}
		var err error
		if nums[k], err = strconv.ParseUint(s, base, 31); err != nil || k == 0 && nums[0] > 0o777 {
			return fmt.Errorf("%q is no mode or id: %w", s, errdefs.ErrInvalidArgument)
		}
	}
	for k := range n {
		name, ok := strings.CutPrefix(parts[0], point(k)+"/")
		if !ok {
			continue
		}
		r, err := os.OpenRoot(point(k))
		if err != nil {
			return err
		}
		defer r.Close()
		err = r.Mkdir(name, 0o700)
		if errors.Is(err, os.ErrExist) {
			return nil
		}
		if err == nil {
			err = errors.Join(r.Lchown(name, int(nums[1]), int(nums[2])), r.Chmod(name, os.FileMode(nums[0])))
		}
		return err
	}
	return fmt.Errorf("%s is not in a mount before: %w", parts[0], errdefs.ErrInvalidArgument)
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
		return nil, refusal.New(ErrHostPath, fmt.Sprintf("%s %s does not exist; make it, or create the container again", what, path))
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
		return nil, refusal.New(ErrHostPath, fmt.Sprintf("%s %s is %s, which X-Containers cannot share; give %s", what, path, kind(fi.Mode()), want))
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

// export shares the binds, and the root file system unless it is on disks.
func export(ctx context.Context, g Guest, id string, s *bundle.Settings, binds []source) error {
	if s.Container.RootMounts == nil {
		if err := exportRoot(ctx, g, id, s); err != nil {
			return err
		}
	}
	for _, b := range binds {
		if err := g.AddExport(ctx, b.name, b.file, b.readOnly, bundle.BindTTL); err != nil {
			return fmt.Errorf("share %s: %w", b.file.Name(), err)
		}
	}
	return nil
}

func exportRoot(ctx context.Context, g Guest, id string, s *bundle.Settings) error {
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
	return nil
}
