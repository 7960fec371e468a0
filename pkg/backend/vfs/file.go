// SPDX-License-Identifier: Apache-2.0

package vfs

import (
	"io"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// openFlags are the flags of open(2) that the host sees. O_APPEND is carried out
// on each write, since writes of mapped pages come through any handle of the
// file and must not be appended. O_DIRECT is the guest's own affair: guest pages
// mapped from another domain cannot be the target of direct input and output.
const openFlags = unix.O_ACCMODE | unix.O_TRUNC | unix.O_SYNC | unix.O_DSYNC

// maxCopy bounds how many bytes one copy_file_range moves, so that a request
// ends. The caller asks again for the rest.
const maxCopy = 64 << 20

// fallocModes are the modes of fallocate(2) that are passed on.
const fallocModes = unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_ZERO_RANGE |
	unix.FALLOC_FL_COLLAPSE_RANGE | unix.FALLOC_FL_INSERT_RANGE

// openable says whether a file of this type may be opened by the guest as a
// regular file.
func openable(typ uint32) fuse.Status {
	switch typ {
	case unix.S_IFREG:
		return fuse.OK
	case unix.S_IFDIR:
		return fuse.EISDIR
	case unix.S_IFLNK:
		return eLoop
	}
	return eNXIO // the guest opens its own devices, fifos and sockets
}

// Open opens a regular file.
func (fs *FS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	begin := fs.begin
	if in.Flags&(unix.O_ACCMODE|unix.O_TRUNC) != unix.O_RDONLY {
		begin = fs.beginChange
	}
	u, st := begin(in.NodeId)
	if !st.Ok() {
		return st
	}
	defer u.done()
	return fs.openNode(u, in.Flags, in.Mode&fuse.OPEN_KILL_SUIDGID != 0, out)
}

// openNode opens the file of u, whose type is checked, not its name.
func (fs *FS) openNode(u use, flags uint32, kill bool, out *fuse.OpenOut) fuse.Status {
	if st := openable(u.n.typ); !st.Ok() {
		return st
	}
	if kill && flags&unix.O_TRUNC != 0 {
		if err := fs.dropPrivileges(u.fd); err != nil {
			return status(err)
		}
	}
	fd, err := fs.reopen(u.fd, int(flags&openFlags))
	if err != nil {
		return status(err)
	}
	return fs.giveHandle(u.n, fd, flags, out)
}

// giveHandle makes fd, which it takes over, an open file of the guest.
func (fs *FS) giveHandle(n *node, fd int, flags uint32, out *fuse.OpenOut) fuse.Status {
	h, st := fs.addHandle(n, fd, flags)
	if !st.Ok() {
		return st
	}
	out.Fh = h.id
	if n.vol.exp.opts.KeepCache {
		out.OpenFlags |= fuse.FOPEN_KEEP_CACHE
	}
	if !h.write {
		out.OpenFlags |= fuse.FOPEN_NOFLUSH // nothing to report at close
	}
	return fuse.OK
}

// Release closes a file. Requests that use it end first.
func (fs *FS) Release(_ <-chan struct{}, in *fuse.ReleaseIn) { fs.closeHandle(in.NodeId, in.Fh) }

// readResult reads a handle into the place where the reply is put together.
type readResult struct {
	h    *handle
	off  int64
	size int
}

// Read promises to read from a handle; the handle is in use until the result is
// done with.
func (fs *FS) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	r, st := fs.startRead(in)
	if !st.Ok() {
		return nil, st
	}
	r.size = min(r.size, len(buf))
	return r, fuse.OK
}

func (fs *FS) startRead(in *fuse.ReadIn) (*readResult, fuse.Status) {
	if int64(in.Offset) < 0 {
		return nil, fuse.EINVAL
	}
	h, st := fs.beginHandle(in.NodeId, in.Fh)
	if !st.Ok() {
		return nil, st
	}
	if h.n.typ != unix.S_IFREG {
		h.done()
		return nil, fuse.EISDIR
	}
	return &readResult{h, int64(in.Offset), int(in.Size)}, fuse.OK
}

func (r *readResult) Size() int { return r.size }

func (r *readResult) Done() { r.h.done() }

func (r *readResult) Bytes(buf []byte) ([]byte, fuse.Status) {
	buf = buf[:min(len(buf), r.size)]
	n, st := r.Readv([][]byte{buf})
	return buf[:n], st
}

// Readv reads into dst, which may be guest memory.
func (r *readResult) Readv(dst [][]byte) (int, fuse.Status) {
	var n int
	err := again(func() (err error) {
		n, err = unix.Preadv(r.h.fd, dst, r.off)
		return err
	})
	return max(n, 0), status(err)
}

// Write writes contiguous data.
func (fs *FS) Write(c <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	return fs.Writev(c, in, [][]byte{data})
}

// Writev writes data, which may be guest memory.
func (fs *FS) Writev(_ <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	if int64(in.Offset) < 0 {
		return 0, fuse.EINVAL
	}
	h, st := fs.beginHandle(in.NodeId, in.Fh)
	if !st.Ok() {
		return 0, st
	}
	defer h.done()
	if !h.write || h.n.typ != unix.S_IFREG {
		return 0, fuse.EBADF
	}
	defer h.n.vol.exp.dirty.Store(true)
	if in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0 {
		if err := fs.dropPrivileges(h.fd); err != nil {
			return 0, status(err)
		}
	}
	flags := 0
	if h.append && in.WriteFlags&fuse.WRITE_CACHE == 0 {
		flags = unix.RWF_APPEND
	}
	var n int
	err := again(func() (err error) {
		n, err = unix.Pwritev2(h.fd, data, int64(in.Offset), flags)
		return err
	})
	if err != nil {
		return 0, status(err)
	}
	return uint32(n), fuse.OK
}

// withHandle runs f on an open regular file; write says that it must be open for
// writing.
func (fs *FS) withHandle(node, fh uint64, write bool, f func(h *handle) error) fuse.Status {
	h, st := fs.beginHandle(node, fh)
	if !st.Ok() {
		return st
	}
	defer h.done()
	if h.n.typ != unix.S_IFREG || write && !h.write {
		return fuse.EBADF
	}
	if write {
		defer h.n.vol.exp.dirty.Store(true)
	}
	return status(again(func() error { return f(h) }))
}

// Flush is sent when a descriptor of the guest is closed. Closing a copy of ours
// brings out what a network file system has to report.
func (fs *FS) Flush(_ <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	return fs.withHandle(in.NodeId, in.Fh, false, func(h *handle) error {
		fd, err := unix.FcntlInt(uintptr(h.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if err := unix.Close(fd); err != unix.EINTR { // closed all the same
			return err
		}
		return nil
	})
}

// Fsync writes a file to the host's disk.
func (fs *FS) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return fs.withHandle(in.NodeId, in.Fh, false, func(h *handle) error { return syncFD(h.fd, in.FsyncFlags) })
}

// syncFD is fsync, or fdatasync where flags has FUSE_FSYNC_FDATASYNC.
func syncFD(fd int, flags uint32) error {
	if flags&1 != 0 {
		return unix.Fdatasync(fd)
	}
	return unix.Fsync(fd)
}

// Fallocate reserves, punches or moves a part of a file.
func (fs *FS) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	if in.Mode&^fallocModes != 0 {
		return eOpNotSupp
	}
	return fs.withHandle(in.NodeId, in.Fh, true, func(h *handle) error {
		if err := fs.dropUnlessRoot(&in.InHeader, h.fd); err != nil {
			return err
		}
		return unix.Fallocate(h.fd, in.Mode, int64(in.Offset), int64(in.Length))
	})
}

// dropUnlessRoot is dropPrivileges for requests that do not say whether the
// caller may keep the set-id bits (CAP_FSETID).
func (fs *FS) dropUnlessRoot(h *fuse.InHeader, fd int) error {
	if h.Uid == 0 {
		return nil
	}
	return fs.dropPrivileges(fd)
}

// Lseek finds data and holes; other seeks are the guest's own.
func (fs *FS) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	if in.Whence != unix.SEEK_DATA && in.Whence != unix.SEEK_HOLE &&
		in.Whence != io.SeekStart && in.Whence != io.SeekEnd {
		return fuse.EINVAL
	}
	return fs.withHandle(in.NodeId, in.Fh, false, func(h *handle) error {
		off, err := unix.Seek(h.fd, int64(in.Offset), int(in.Whence))
		out.Offset = uint64(off)
		return err
	})
}

// CopyFileRange copies within one export without the data passing through the
// guest.
func (fs *FS) CopyFileRange(_ <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	if in.Flags != 0 {
		return 0, fuse.EINVAL
	}
	src, st := fs.beginHandle(in.NodeId, in.FhIn)
	if !st.Ok() {
		return 0, st
	}
	defer src.done()
	dst, st := fs.holdHandle(in.NodeIdOut, in.FhOut)
	if !st.Ok() {
		return 0, st
	}
	defer dst.release()
	switch {
	case src.n.vol.exp != dst.n.vol.exp:
		return 0, fuse.EXDEV // the guest copies by itself
	case src.n.typ != unix.S_IFREG || dst.n.typ != unix.S_IFREG || !dst.write:
		return 0, fuse.EBADF
	}
	defer dst.n.vol.exp.dirty.Store(true)
	if err := fs.dropUnlessRoot(&in.InHeader, dst.fd); err != nil {
		return 0, status(err)
	}
	var n int
	err := again(func() (err error) {
		from, to := int64(in.OffIn), int64(in.OffOut)
		n, err = unix.CopyFileRange(src.fd, &from, dst.fd, &to, int(min(in.Len, maxCopy)), 0)
		return err
	})
	if err != nil {
		return 0, status(err)
	}
	return uint32(n), fuse.OK
}
