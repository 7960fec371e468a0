// SPDX-License-Identifier: Apache-2.0

package vfs

import (
	"bytes"
	"encoding/binary"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// direntBuf is how much of a directory is read at a time, in bytes: several
// entries of the longest name. Each directory that the guest is reading keeps a
// buffer, so it is small.
const direntBuf = 2 << 10

// dirStream is where the reading of an open directory stands.
type dirStream struct {
	mu   sync.Mutex
	next uint64 // offset of the entry that rest begins with
	buf  []byte
	rest []byte // entries read and not yet given out
	syn  []synEntry
}

// dirent is a directory entry; off is where the one after it is found.
type dirent struct {
	name string
	ino  uint64
	off  uint64
	typ  uint32 // S_IFMT bits
}

// OpenDir opens a directory.
func (fs *FS) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	u, st := fs.begin(in.NodeId)
	if !st.Ok() {
		return st
	}
	defer u.done()
	fd := -1
	switch {
	case u.n.typ != unix.S_IFDIR:
		return fuse.ENOTDIR
	case u.n.syn == nil:
		var err error
		if fd, err = openAt2(u.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0); err != nil {
			return status(err)
		}
	}
	h, st := fs.addHandle(u.n, fd, unix.O_RDONLY)
	if !st.Ok() {
		return st
	}
	out.Fh = h.id
	return fuse.OK
}

// ReleaseDir closes a directory.
func (fs *FS) ReleaseDir(in *fuse.ReleaseIn) { fs.closeHandle(in.NodeId, in.Fh) }

// FsyncDir writes a directory to the host's disk.
func (fs *FS) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	h, st := fs.beginHandle(in.NodeId, in.Fh)
	if !st.Ok() {
		return st
	}
	defer h.done()
	if h.fd < 0 || h.n.typ != unix.S_IFDIR {
		return fuse.EBADF
	}
	return status(again(func() error { return syncFD(h.fd, in.FsyncFlags) }))
}

// ReadDir lists a directory from an offset on.
func (fs *FS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return fs.readDir(in, func(h *handle, d dirent) bool {
		return out.AddDirEntry(fuse.DirEntry{Name: d.name, Ino: h.entryIno(d), Off: d.off, Mode: d.typ})
	})
}

// ReadDirPlus lists a directory and looks up each entry.
func (fs *FS) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return fs.readDir(in, func(h *handle, d dirent) bool {
		var sx unix.Statx_t
		real := h.n.syn == nil && d.name != "." && d.name != ".."
		if real {
			switch err := statChild(h.fd, d.name, &sx); {
			case err == unix.ENOENT:
				return true // gone since it was listed
			case err != nil:
				real = false
			default:
				d.typ = uint32(sx.Mode) & unix.S_IFMT
			}
		}
		entry := out.AddDirLookupEntry(fuse.DirEntry{Name: d.name, Ino: h.entryIno(d), Off: d.off, Mode: d.typ})
		if entry != nil && real {
			// If it fails the node id stays 0, which means no lookup.
			fs.fillEntry(h.n, d.name, &sx, entry)
		}
		return entry != nil
	})
}

// entryIno is the inode number of a listed entry, as stat would give it unless
// something is mounted there.
func (h *handle) entryIno(d dirent) uint64 {
	if h.n.syn != nil {
		return d.ino
	}
	return h.n.vol.guestIno(d.ino)
}

// readDir calls add for the entries from in.Offset on until it returns false.
func (fs *FS) readDir(in *fuse.ReadIn, add func(*handle, dirent) bool) fuse.Status {
	h, st := fs.beginHandle(in.NodeId, in.Fh)
	if !st.Ok() {
		return st
	}
	defer h.done()
	if h.n.typ != unix.S_IFDIR {
		return fuse.ENOTDIR
	}
	s := &h.dir
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.n.syn != nil {
		return fs.readSyn(h, in.Offset, add)
	}
	if in.Offset != s.next || in.Offset == 0 {
		if _, err := unix.Seek(h.fd, int64(in.Offset), 0); err != nil {
			return status(err)
		}
		s.next, s.rest = in.Offset, nil
	}
	for any := false; ; any = true {
		d, size, st := s.peek(h.fd)
		if !st.Ok() || size == 0 {
			return st
		}
		if !add(h, d) {
			if !any {
				return fuse.EINVAL // not even one entry fits
			}
			return fuse.OK
		}
		s.rest, s.next = s.rest[size:], d.off
	}
}

// peek returns the next entry and its size in s.rest, which is 0 at the end.
func (s *dirStream) peek(fd int) (dirent, int, fuse.Status) {
	if len(s.rest) == 0 {
		if s.buf == nil {
			s.buf = make([]byte, direntBuf)
		}
		var n int
		err := again(func() (err error) {
			n, err = unix.Getdents(fd, s.buf)
			return err
		})
		if err != nil {
			return dirent{}, 0, status(err)
		}
		if n <= 0 {
			s.buf = nil // most directories are read once
			return dirent{}, 0, fuse.OK
		}
		s.rest = s.buf[:n]
	}
	d, size, ok := parseDirent(s.rest)
	if !ok {
		s.rest = nil
		return dirent{}, 0, fuse.EIO
	}
	return d, size, fuse.OK
}

// parseDirent decodes struct linux_dirent64: ino u64, off u64, reclen u16, type
// u8, name with NUL.
func parseDirent(b []byte) (d dirent, size int, ok bool) {
	const head = 19
	if len(b) < head {
		return d, 0, false
	}
	size = int(binary.LittleEndian.Uint16(b[16:]))
	if size <= head || size > len(b) {
		return d, 0, false
	}
	name := b[head:size]
	if i := bytes.IndexByte(name, 0); i >= 0 {
		name = name[:i]
	}
	return dirent{
		name: string(name),
		ino:  binary.LittleEndian.Uint64(b),
		off:  binary.LittleEndian.Uint64(b[8:]),
		typ:  uint32(b[18]) << 12, // DT_ to S_IF
	}, size, true
}

// readSyn lists a synthetic directory as it was when the reading began.
func (fs *FS) readSyn(h *handle, off uint64, add func(*handle, dirent) bool) fuse.Status {
	s := &h.dir
	if off == 0 {
		up := h.n
		if h.n.syn.parent != nil {
			up = h.n.syn.parent
		}
		s.syn = append([]synEntry{
			{".", h.n.syn.ino, unix.S_IFDIR},
			{"..", up.syn.ino, unix.S_IFDIR},
		}, fs.listSyn(h.n)...)
	}
	for i := off; i < uint64(len(s.syn)); i++ {
		e := s.syn[i]
		if !add(h, dirent{e.name, e.ino, i + 1, e.typ}) {
			break
		}
	}
	return fuse.OK
}
