// SPDX-License-Identifier: Apache-2.0

package vfs

import (
	"strconv"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// maxName is the longest name of a directory entry in bytes, NAME_MAX of
// linux/limits.h.
const maxName = 255

// maxTarget is the longest text of a symbolic link, PATH_MAX less the NUL.
const maxTarget = 4095

// resolve is what every opening by name obeys. A mount below an export is part
// of it, as it is for runc, so RESOLVE_NO_XDEV is not set.
const resolve = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS

const statMask = unix.STATX_BASIC_STATS | unix.STATX_BTIME

// Errors of a file system that have no name in go-fuse.
const (
	eStale       = fuse.Status(unix.ESTALE)
	eNameTooLong = fuse.Status(unix.ENAMETOOLONG)
	eNFile       = fuse.Status(unix.ENFILE)
	eNXIO        = fuse.Status(unix.ENXIO)
	eLoop        = fuse.Status(unix.ELOOP)
	eExist       = fuse.Status(unix.EEXIST)
	eOpNotSupp   = fuse.Status(unix.EOPNOTSUPP)
	eBusy        = fuse.EBUSY
)

// status turns an error of a system call into a reply.
func status(err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	if errno, ok := err.(unix.Errno); ok && errno > 0 {
		return fuse.Status(errno)
	}
	return fuse.EIO
}

// checkName says whether name may be looked up or created: one component.
func checkName(name string) fuse.Status {
	switch {
	case len(name) > maxName:
		return eNameTooLong
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return fuse.EINVAL
	}
	return fuse.OK
}

// again repeats a system call that a signal interrupted: the Go runtime
// preempts with signals, and network file systems notice.
func again(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

func openAt2(dir int, name string, flags int, mode uint32) (fd int, err error) {
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Mode:    uint64(mode),
		Resolve: resolve,
	}
	err = again(func() error {
		fd, err = unix.Openat2(dir, name, &how)
		return err
	})
	return fd, err
}

// openPath opens the entry name of dir as a mere place: nothing is read, no
// device or fifo is touched, no link is followed.
func openPath(dir int, name string) (int, error) {
	return openAt2(dir, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
}

// statChild looks at the entry name of dir without following it.
func statChild(dir int, name string, sx *unix.Statx_t) error {
	return again(func() error {
		return unix.Statx(dir, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, statMask, sx)
	})
}

func statFD(fd int, sx *unix.Statx_t) error {
	return again(func() error {
		return unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_NO_AUTOMOUNT, statMask, sx)
	})
}

// reopen opens the file behind the O_PATH descriptor fd. The caller has made
// sure that it is a regular file or a directory. The link in /proc is followed
// through the descriptor procFD, so no path is needed.
func (fs *FS) reopen(fd, flags int) (nfd int, err error) {
	err = again(func() error {
		nfd, err = unix.Openat(fs.procFD, strconv.Itoa(fd), flags|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
		return err
	})
	return nfd, err
}

// chmod works on an O_PATH descriptor, which fchmod refuses.
func (fs *FS) chmod(fd int, mode uint32) error {
	return again(func() error { return unix.Fchmodat(fs.procFD, strconv.Itoa(fd), mode&0o7777, 0) })
}

func chown(fd int, uid, gid int) error {
	return again(func() error { return unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH) })
}

// dropPrivileges clears what a change by an unprivileged caller must clear: the
// set-user-id bit, and the set-group-id bit of a file that its group may
// execute (FUSE_HANDLE_KILLPRIV_V2, linux/fuse.h). The kernel does not do it for
// us since we hold CAP_FSETID; security.capability it removes for everyone.
func (fs *FS) dropPrivileges(fd int) error {
	var sx unix.Statx_t
	if err := statFD(fd, &sx); err != nil {
		return err
	}
	mode := uint32(sx.Mode)
	keep := mode &^ unix.S_ISUID
	if mode&unix.S_IXGRP != 0 {
		keep &^= unix.S_ISGID
	}
	if mode&unix.S_IFMT != unix.S_IFREG || keep == mode {
		return nil
	}
	return fs.chmod(fd, keep)
}

// deviceOf packs a device number as the kernel's new_encode_dev does, which is
// the form of st_rdev and mknod in FUSE (linux/kdev_t.h).
func deviceOf(major, minor uint32) uint32 {
	return minor&0xff | major<<8 | minor&^0xff<<12
}

// deviceFrom is the other way round, into the form of mknod(2).
func deviceFrom(dev uint32) int {
	return int(unix.Mkdev(dev&0xfff00>>8, dev&0xff|dev>>12&0xfff00))
}
