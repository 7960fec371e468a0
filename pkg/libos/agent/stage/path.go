// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// openIn opens a path below the directory root as a process whose root it is
// would see it: links are followed, but never out of root, and the magic links
// of /proc are refused. The caller owns the descriptor.
func openIn(root int, name string, flags uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	return openat2(root, name, &how)
}

// openBeneath opens an export: a relative name without any link in it.
func openBeneath(dir int, name string, flags uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	}
	return openat2(dir, name, &how)
}

// openat2 repeats what the kernel asks to repeat: EAGAIN stands for a rename
// that ran beside the walk.
func openat2(dir int, name string, how *unix.OpenHow) (int, error) {
	for try := 0; ; try++ {
		fd, err := unix.Openat2(dir, name, how)
		if err == nil || !errors.Is(err, unix.EINTR) && (!errors.Is(err, unix.EAGAIN) || try == 64) {
			return fd, err
		}
	}
}

// mkdirAllIn opens the directory name below root and makes what is missing of
// it. A link in the path may lead to a directory inside root; one that leads
// nowhere is an error, since what it names cannot be made safely. The caller
// owns the descriptor, which is O_PATH.
func mkdirAllIn(root int, name string, mode uint32) (int, error) {
	name = path.Clean("/" + name)
	cur, err := openIn(root, "/", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", name, err)
	}
	for end := 1; end <= len(name) && name != "/"; {
		next := strings.IndexByte(name[end:], '/')
		if next < 0 {
			next = len(name)
		} else {
			next += end
		}
		fd, err := openOrMkdir(root, cur, name[:next], mode)
		unix.Close(cur)
		if err != nil {
			return -1, fmt.Errorf("make directory %s: %w", name[:next], err)
		}
		cur, end = fd, next+1
	}
	return cur, nil
}

// openOrMkdir opens one prefix of a path; parent is the directory that holds
// its last component.
func openOrMkdir(root, parent int, prefix string, mode uint32) (int, error) {
	fd, err := openIn(root, prefix, unix.O_PATH|unix.O_DIRECTORY)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	base := path.Base(prefix)
	if err := unix.Mkdirat(parent, base, mode); err != nil {
		return -1, err
	}
	return unix.Openat(parent, base, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// createIn opens the file name below root for mounting over it, and makes an
// empty one if there is none. The descriptor is O_PATH and the caller's.
func createIn(root int, name string) (int, error) {
	name = path.Clean("/" + name)
	fd, err := openIn(root, name, unix.O_PATH)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	parent, err := mkdirAllIn(root, path.Dir(name), 0o755)
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent)
	base := path.Base(name)
	file, err := unix.Openat(parent, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return -1, fmt.Errorf("make file %s: %w", name, err)
	}
	unix.Close(file)
	return unix.Openat(parent, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// readRegular reads a regular file of the container, at most limit bytes. It
// cannot be made to block or to grow without bound by what the image put there.
func readRegular(name string, limit int) ([]byte, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	if st.Size() > int64(limit) {
		return nil, fmt.Errorf("%s has %d bytes, at most %d are read", name, st.Size(), limit)
	}
	b := make([]byte, st.Size())
	n, err := io.ReadFull(f, b)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b[:n], nil
}
