// SPDX-License-Identifier: Apache-2.0

package vfs

import (
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// birth is what a new file must be like. The host makes it root's, with a mode
// that the umask of our process and default ACLs may have changed.
type birth struct {
	typ      uint32 // S_IFMT bits
	mode     uint32 // permission, set-id and sticky bits
	uid, gid uint32
}

// birthOf follows the rules of a new inode: in a set-group-id directory it gets
// the directory's group, and a directory that bit too (inode_init_owner, Linux
// fs/inode.c). The guest's kernel has applied the umask.
func birthOf(dir int, h *fuse.InHeader, typ, mode uint32) (birth, error) {
	b := birth{typ: typ, mode: mode & 0o7777, uid: h.Uid, gid: h.Gid}
	var sx unix.Statx_t
	if err := statFD(dir, &sx); err != nil {
		return b, err
	}
	if sx.Mode&unix.S_ISGID != 0 {
		b.gid = sx.Gid
		if typ == unix.S_IFDIR {
			b.mode |= unix.S_ISGID
		}
	}
	return b, nil
}

// settle gives the new file behind fd its owner and mode, and returns what it is
// like then. fd may be an O_PATH descriptor.
func (fs *FS) settle(fd int, b birth, sx *unix.Statx_t) error {
	if err := statFD(fd, sx); err != nil {
		return err
	}
	if uint32(sx.Mode)&unix.S_IFMT != b.typ || b.typ != unix.S_IFDIR && sx.Nlink > 1 {
		return unix.ESTALE // someone on the host was faster: it is not ours to change
	}
	changed := false
	if sx.Uid != b.uid || sx.Gid != b.gid {
		if err := chown(fd, int(int32(b.uid)), int(int32(b.gid))); err != nil {
			return err
		}
		changed = true
	}
	if b.typ != unix.S_IFLNK && (changed && b.mode&0o6000 != 0 || uint32(sx.Mode)&0o7777 != b.mode) {
		if err := fs.chmod(fd, b.mode); err != nil {
			return err
		}
		changed = true
	}
	if !changed {
		return nil
	}
	return statFD(fd, sx)
}

// newEntry makes an entry other than an open file: create makes it in the
// directory u, then it gets its owner and mode and becomes a node.
func (fs *FS) newEntry(h *fuse.InHeader, name string, typ, mode uint32, out *fuse.EntryOut,
	create func(dir int, b birth) error) fuse.Status {
	if st := checkName(name); !st.Ok() {
		return st
	}
	u, st := fs.beginChange(h.NodeId)
	if !st.Ok() {
		return st
	}
	defer u.done()
	b, err := birthOf(u.fd, h, typ, mode)
	if err != nil {
		return status(err)
	}
	if err := again(func() error { return create(u.fd, b) }); err != nil {
		return status(err)
	}
	fd, err := openPath(u.fd, name)
	if err != nil {
		return status(err)
	}
	defer unix.Close(fd)
	var sx unix.Statx_t
	if err := fs.settle(fd, b, &sx); err != nil {
		return status(err)
	}
	_, st = fs.fillEntry(u.n, name, &sx, out)
	return st
}

// Mkdir makes a directory.
func (fs *FS) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return fs.newEntry(&in.InHeader, name, unix.S_IFDIR, in.Mode, out, func(dir int, b birth) error {
		return unix.Mkdirat(dir, name, b.mode)
	})
}

// Mknod makes a regular file, fifo, socket or device node. None is opened.
func (fs *FS) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	typ := in.Mode & unix.S_IFMT
	switch typ {
	case 0:
		typ = unix.S_IFREG
	case unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFBLK:
	default:
		return fuse.EINVAL
	}
	return fs.newEntry(&in.InHeader, name, typ, in.Mode, out, func(dir int, b birth) error {
		// Without the set-id bits until the owner is right.
		return unix.Mknodat(dir, name, typ|b.mode&0o1777, deviceFrom(in.Rdev))
	})
}

// Symlink makes a link whose text is kept as it is: only the guest follows it.
func (fs *FS) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	switch {
	case target == "":
		return fuse.ENOENT
	case len(target) > maxTarget:
		return eNameTooLong
	case strings.IndexByte(target, 0) >= 0:
		return fuse.EINVAL
	}
	return fs.newEntry(h, name, unix.S_IFLNK, 0o777, out, func(dir int, _ birth) error {
		return unix.Symlinkat(target, dir, name)
	})
}

// Create makes a regular file and opens it. O_EXCL is always set on the host: a
// file that exists already is opened as any other, so neither a fifo or device
// in its place nor the host's protection of sticky directories gets in the way.
func (fs *FS) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	if st := checkName(name); !st.Ok() {
		return st
	}
	u, st := fs.beginChange(in.NodeId)
	if !st.Ok() {
		return st
	}
	defer u.done()
	b, err := birthOf(u.fd, &in.InHeader, unix.S_IFREG, in.Mode)
	if err != nil {
		return status(err)
	}
	flags := int(in.Flags&openFlags) | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW
	fd, err := openAt2(u.fd, name, flags, b.mode&0o1777)
	if err == unix.EEXIST && in.Flags&unix.O_EXCL == 0 {
		return fs.openExisting(u, in, name, out)
	}
	if err != nil {
		return status(err)
	}
	var sx unix.Statx_t
	if err := fs.settle(fd, b, &sx); err != nil {
		unix.Close(fd)
		return status(err)
	}
	n, st := fs.fillEntry(u.n, name, &sx, &out.EntryOut)
	if !st.Ok() {
		unix.Close(fd)
		return st
	}
	return fs.handOut(n, out, fs.giveHandle(n, fd, in.Flags, &out.OpenOut))
}

// openExisting opens what a create without O_EXCL found in its way.
func (fs *FS) openExisting(u use, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	var sx unix.Statx_t
	if err := statChild(u.fd, name, &sx); err != nil {
		return status(err)
	}
	n, st := fs.fillEntry(u.n, name, &sx, &out.EntryOut)
	if !st.Ok() {
		return st
	}
	c, st := u.and(n.id)
	if st.Ok() {
		st = fs.openNode(c, in.Flags, in.OpenFlags&fuse.OPEN_KILL_SUIDGID != 0, &out.OpenOut)
		c.unpin()
	}
	return fs.handOut(n, out, st)
}

// handOut takes the guest's reference of n back if the request failed after all.
func (fs *FS) handOut(n *node, out *fuse.CreateOut, st fuse.Status) fuse.Status {
	if !st.Ok() {
		fs.Forget(n.id, 1)
		*out = fuse.CreateOut{}
	}
	return st
}

// Tmpfile makes a regular file without a name and opens it.
func (fs *FS) Tmpfile(_ <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	u, st := fs.beginChange(in.NodeId)
	if !st.Ok() {
		return st
	}
	defer u.done()
	b, err := birthOf(u.fd, &in.InHeader, unix.S_IFREG, in.Mode)
	if err != nil {
		return status(err)
	}
	flags := int(in.Flags&openFlags&^unix.O_TRUNC) | unix.O_TMPFILE
	fd, err := openAt2(u.fd, ".", flags, b.mode&0o1777)
	if err != nil {
		return status(err)
	}
	var sx unix.Statx_t
	if err = fs.settle(fd, b, &sx); err == nil {
		var path int
		if path, err = fs.reopen(fd, unix.O_PATH); err == nil {
			n, st := fs.fillEntry(u.n, "", &sx, &out.EntryOut)
			if !st.Ok() {
				unix.Close(path)
				unix.Close(fd)
				return st
			}
			fs.adopt(n, path)
			fs.orphan(n)
			fs.unpin(n)
			return fs.handOut(n, out, fs.giveHandle(n, fd, in.Flags, &out.OpenOut))
		}
	}
	unix.Close(fd)
	return status(err)
}
