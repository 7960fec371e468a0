// SPDX-License-Identifier: Apache-2.0

package vfs

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// The guest sees one device for all exports, so inode numbers carry a space in
// their high bits, one for each device of each export. Space 0 is the synthetic
// tree's, hashSpace is for numbers that do not fit.
const (
	inoBits   = 48
	hashSpace = 0xffff
)

// volumeLocked returns the volume of a device in an export.
func (t *nodeTable) volumeLocked(e *export, dev uint64) *volume {
	if v := e.vols[dev]; v != nil {
		return v
	}
	v := &volume{exp: e, dev: dev, space: hashSpace}
	for s := uint16(1); s < hashSpace; s++ {
		if !t.spaces[s] {
			t.spaces[s] = true
			v.space = s
			break
		}
	}
	e.vols[dev] = v
	return v
}

// guestIno returns the inode number that the guest sees for one of the host. It
// is stable while the export exists.
func (v *volume) guestIno(ino uint64) uint64 {
	if v.space != hashSpace && ino>>inoBits == 0 {
		return uint64(v.space)<<inoBits | ino
	}
	// Fibonacci hashing, twice: neither neighbours nor devices fall together.
	const golden = 0x9e3779b97f4a7c15
	h := ino * golden
	h = (h ^ h>>29 + v.dev + uint64(v.space)<<40) * golden
	return hashSpace<<inoBits | h>>(64-inoBits)
}

// fillAttr puts what the host says of a file of e into the form of FUSE.
func (fs *FS) fillAttr(e *export, sx *unix.Statx_t, a *fuse.Attr) {
	fs.nodeTable.mu.Lock()
	ino := fs.volumeLocked(e, devOf(sx)).guestIno(sx.Ino)
	fs.nodeTable.mu.Unlock()
	*a = fuse.Attr{
		Ino:       ino,
		Size:      sx.Size,
		Blocks:    sx.Blocks,
		Atime:     uint64(sx.Atime.Sec),
		Mtime:     uint64(sx.Mtime.Sec),
		Ctime:     uint64(sx.Ctime.Sec),
		Atimensec: sx.Atime.Nsec,
		Mtimensec: sx.Mtime.Nsec,
		Ctimensec: sx.Ctime.Nsec,
		Mode:      uint32(sx.Mode),
		Nlink:     sx.Nlink,
		Owner:     fuse.Owner{Uid: sx.Uid, Gid: sx.Gid},
		Rdev:      deviceOf(sx.Rdev_major, sx.Rdev_minor),
		Blksize:   sx.Blksize,
	}
}

// attrTTL says for how long the guest may keep the attributes of a file. Those of
// a set-id program it asks for each time: a write by an unprivileged user clears
// the bits here, which the guest's kernel leaves to us and does not hear of, and
// the next exec must see it.
func (e *export) attrTTL(sx *unix.Statx_t) time.Duration {
	if sx.Mode&unix.S_IFMT == unix.S_IFREG && sx.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
		return 0
	}
	return e.opts.AttrTTL
}

// fillEntry makes the file that sx describes, seen as name in parent, a node of
// the guest and fills in the reply.
func (fs *FS) fillEntry(parent *node, name string, sx *unix.Statx_t, out *fuse.EntryOut) (*node, fuse.Status) {
	n, st := fs.intern(parent, name, sx)
	if !st.Ok() {
		return nil, st
	}
	out.NodeId = n.id
	out.SetEntryTimeout(parent.vol.exp.opts.EntryTTL)
	out.SetAttrTimeout(parent.vol.exp.attrTTL(sx))
	fs.fillAttr(parent.vol.exp, sx, &out.Attr)
	return n, fuse.OK
}

// Lookup finds name in a directory.
func (fs *FS) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if st := checkName(name); !st.Ok() {
		return st
	}
	u, st := fs.begin(h.NodeId)
	if !st.Ok() {
		return st
	}
	defer u.done()
	if u.n.syn != nil {
		return fs.lookupSyn(u.n, name, out)
	}
	var sx unix.Statx_t
	err := statChild(u.fd, name, &sx)
	if err == unix.ENOENT && u.n.vol.exp.opts.NegativeTTL > 0 {
		out.SetEntryTimeout(u.n.vol.exp.opts.NegativeTTL) // node id 0: not there
		return fuse.OK
	}
	if err != nil {
		return status(err)
	}
	_, st = fs.fillEntry(u.n, name, &sx, out)
	return st
}

// GetAttr returns a file's attributes.
func (fs *FS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if in.Flags()&fuse.FUSE_GETATTR_FH != 0 {
		h, st := fs.beginHandle(in.NodeId, in.Fh())
		if !st.Ok() {
			return st
		}
		defer h.done()
		return fs.attrOf(h.n, h.fd, out)
	}
	u, st := fs.begin(in.NodeId)
	if !st.Ok() {
		return st
	}
	defer u.done()
	return fs.attrOf(u.n, u.fd, out)
}

func (fs *FS) attrOf(n *node, fd int, out *fuse.AttrOut) fuse.Status {
	if n.syn != nil {
		fs.nodeTable.mu.Lock()
		defer fs.nodeTable.mu.Unlock()
		fs.synAttrLocked(n, &out.Attr)
		return fuse.OK
	}
	var sx unix.Statx_t
	if err := statFD(fd, &sx); err != nil {
		return status(err)
	}
	out.SetTimeout(n.vol.exp.attrTTL(&sx))
	fs.fillAttr(n.vol.exp, &sx, &out.Attr)
	return fuse.OK
}

// SetAttr changes mode, owner, size or times.
func (fs *FS) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	u, st := fs.beginChange(in.NodeId)
	if !st.Ok() {
		return st
	}
	defer u.done()
	// A new owner clears the set-id bits on the host, so it comes before the
	// mode.
	uid, chUID := in.GetUID()
	gid, chGID := in.GetGID()
	if chUID || chGID {
		if err := chown(u.fd, ownerArg(uid, chUID), ownerArg(gid, chGID)); err != nil {
			return status(err)
		}
	}
	if mode, ok := in.GetMode(); ok {
		if u.n.typ == unix.S_IFLNK {
			return eOpNotSupp
		}
		if err := fs.chmod(u.fd, mode); err != nil {
			return status(err)
		}
	}
	if size, ok := in.GetSize(); ok {
		if st := fs.truncate(u, in, size); !st.Ok() {
			return st
		}
	}
	if in.Valid&(fuse.FATTR_ATIME|fuse.FATTR_MTIME) != 0 {
		ts := []unix.Timespec{
			timeArg(in.Valid, fuse.FATTR_ATIME, fuse.FATTR_ATIME_NOW, in.Atime, in.Atimensec),
			timeArg(in.Valid, fuse.FATTR_MTIME, fuse.FATTR_MTIME_NOW, in.Mtime, in.Mtimensec),
		}
		err := again(func() error { return unix.UtimesNanoAt(u.fd, "", ts, unix.AT_EMPTY_PATH) })
		if err != nil {
			return status(err)
		}
	}
	return fs.attrOf(u.n, u.fd, out)
}

// truncate sets the size of a regular file, through the handle that the request
// names if it names one.
func (fs *FS) truncate(u use, in *fuse.SetAttrIn, size uint64) fuse.Status {
	switch {
	case u.n.typ == unix.S_IFDIR:
		return fuse.EISDIR
	case u.n.typ != unix.S_IFREG || int64(size) < 0:
		return fuse.EINVAL
	}
	if in.Valid&fuse.FATTR_KILL_SUIDGID != 0 {
		if err := fs.dropPrivileges(u.fd); err != nil {
			return status(err)
		}
	}
	if fh, ok := in.GetFh(); ok {
		h, st := fs.holdHandle(in.NodeId, fh)
		if !st.Ok() {
			return st
		}
		defer h.release()
		return status(again(func() error { return unix.Ftruncate(h.fd, int64(size)) }))
	}
	fd, err := fs.reopen(u.fd, unix.O_WRONLY)
	if err != nil {
		return status(err)
	}
	defer unix.Close(fd)
	return status(again(func() error { return unix.Ftruncate(fd, int64(size)) }))
}

// ownerArg is an argument of fchownat: -1 leaves the owner as it is.
func ownerArg(id uint32, change bool) int {
	if !change {
		return -1
	}
	return int(int32(id))
}

// timeArg is an argument of utimensat.
func timeArg(valid, set, now uint32, sec uint64, nsec uint32) unix.Timespec {
	switch {
	case valid&set == 0:
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	case valid&now != 0:
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	case nsec >= uint32(time.Second): // would be read as UTIME_NOW or UTIME_OMIT
		nsec = 0
	}
	return unix.Timespec{Sec: int64(sec), Nsec: int64(nsec)}
}

// StatFs describes the host's file system that a node lies on.
func (fs *FS) StatFs(_ <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	u, st := fs.begin(h.NodeId)
	if !st.Ok() {
		return st
	}
	defer u.done()
	if u.n.syn != nil {
		*out = fuse.StatfsOut{Bsize: 4096, Frsize: 4096, NameLen: maxName}
		return fuse.OK
	}
	var sf unix.Statfs_t
	if err := again(func() error { return unix.Fstatfs(u.fd, &sf) }); err != nil {
		return status(err)
	}
	*out = fuse.StatfsOut{
		Blocks: sf.Blocks, Bfree: sf.Bfree, Bavail: sf.Bavail, Files: sf.Files, Ffree: sf.Ffree,
		Bsize: uint32(sf.Bsize), Frsize: uint32(sf.Frsize), NameLen: maxName,
	}
	return fuse.OK
}

// Readlink returns the text of a symbolic link.
func (fs *FS) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	u, st := fs.begin(h.NodeId)
	if !st.Ok() {
		return nil, st
	}
	defer u.done()
	if u.n.typ != unix.S_IFLNK {
		return nil, fuse.EINVAL
	}
	buf := make([]byte, maxTarget+1)
	var n int
	err := again(func() (err error) {
		n, err = unix.Readlinkat(u.fd, "", buf)
		return err
	})
	if err != nil {
		return nil, status(err)
	}
	return buf[:n], fuse.OK
}
