// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
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

// maxLinks is how many links a path may lead through, as in the kernel
// (MAXSYMLINKS).
const maxLinks = 40

// mkdirAllIn opens the directory name below root and makes what is missing of
// it. Links are followed as a process whose root it is would see them; what one
// that leads nowhere names is made, below root like all else. The caller owns
// the descriptor, which is O_PATH.
func mkdirAllIn(root int, name string, mode uint32) (int, error) {
	fd, err := openIn(root, path.Clean("/"+name), unix.O_PATH|unix.O_DIRECTORY)
	if !errors.Is(err, unix.ENOENT) {
		return fd, wrapPath("make directory", name, err)
	}
	fd, err = makeIn(root, name, func(parent int, base string) error {
		return unix.Mkdirat(parent, base, mode)
	}, mode)
	if err == nil {
		var st unix.Stat_t
		if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			err = unix.ENOTDIR
		}
		if err != nil {
			unix.Close(fd)
		}
	}
	return fd, wrapPath("make directory", name, err)
}

// createIn opens the file name below root for mounting over it, and makes an
// empty one if there is none, in the way of mkdirAllIn. The descriptor is O_PATH
// and the caller's.
func createIn(root int, name string) (int, error) {
	fd, err := openIn(root, path.Clean("/"+name), unix.O_PATH)
	if !errors.Is(err, unix.ENOENT) {
		return fd, wrapPath("make file", name, err)
	}
	fd, err = makeIn(root, name, func(parent int, base string) error {
		return unix.Mknodat(parent, base, unix.S_IFREG|0o644, 0)
	}, 0o755)
	return fd, wrapPath("make file", name, err)
}

func wrapPath(what, name string, err error) error {
	if err != nil {
		return fmt.Errorf("%s %s: %w", what, path.Clean("/"+name), err)
	}
	return nil
}

// makeIn opens what name stands for below root. It makes missing directories on
// the way and, with last, what is missing at the end. Every step opens one name
// in a directory that is open already and follows no link but by itself, so
// that nothing which changes meanwhile can lead it out of root.
func makeIn(root int, name string, last func(parent int, base string) error, mode uint32) (int, error) {
	top, err := openIn(root, "/", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, err
	}
	w := walk{dirs: []int{top}}
	defer func() { w.truncate(0) }()
	todo := split(path.Clean("/" + name))
	for links := 0; len(todo) > 0; {
		base := todo[0]
		todo = todo[1:]
		if base == ".." {
			w.truncate(max(len(w.dirs)-1, 1))
			continue
		}
		missing := last
		if len(todo) > 0 {
			missing = func(parent int, base string) error { return unix.Mkdirat(parent, base, mode) }
		}
		target, err := w.enter(base, missing)
		if err != nil {
			return -1, err
		}
		if target == "" {
			continue
		}
		if links++; links > maxLinks {
			return -1, unix.ELOOP
		}
		if strings.HasPrefix(target, "/") {
			w.truncate(1)
		}
		todo = append(split(target), todo...)
	}
	return w.pop(), nil
}

// split takes a path apart, without the names that stand for no step.
func split(name string) []string {
	return slices.DeleteFunc(strings.Split(name, "/"), func(s string) bool { return s == "" || s == "." })
}

// walk is the chain of descriptors from a root to where a walk has come.
type walk struct{ dirs []int }

// truncate goes back to the n-th descriptor of the chain.
func (w *walk) truncate(n int) {
	for _, fd := range w.dirs[n:] {
		unix.Close(fd)
	}
	w.dirs = w.dirs[:n]
}

// pop takes the last descriptor out of the chain; the caller owns it.
func (w *walk) pop() int {
	fd := w.dirs[len(w.dirs)-1]
	w.dirs = w.dirs[:len(w.dirs)-1]
	return fd
}

// enter goes on to one name, which missing makes if it is not there. For a link
// it goes nowhere and returns what the link says.
func (w *walk) enter(base string, missing func(parent int, base string) error) (target string, err error) {
	parent := w.dirs[len(w.dirs)-1]
	fd, err := openName(parent, base)
	if errors.Is(err, unix.ENOENT) {
		if err := missing(parent, base); err != nil && !errors.Is(err, unix.EEXIST) {
			return "", err
		}
		fd, err = openName(parent, base)
	}
	if err != nil {
		return "", err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return "", err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		w.dirs = append(w.dirs, fd)
		return "", nil
	}
	defer unix.Close(fd)
	return readLink(fd)
}

// openName opens one name in a directory, a link itself and not what it leads
// to.
func openName(parent int, base string) (int, error) {
	for {
		fd, err := unix.Openat(parent, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// readLink reads a link by its O_PATH descriptor. The links of /proc are
// refused: what they say is not where they lead.
func readLink(fd int) (string, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return "", err
	}
	if fs.Type == unix.PROC_SUPER_MAGIC {
		return "", unix.ELOOP
	}
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", b)
	if err != nil {
		return "", err
	}
	if n == 0 || n == len(b) {
		return "", unix.ENAMETOOLONG
	}
	return string(b[:n]), nil
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
