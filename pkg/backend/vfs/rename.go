// SPDX-License-Identifier: Apache-2.0

package vfs

import (
	"strconv"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// known returns the node for the entry name of the directory u, pinned, or nil
// if the guest knows of no such file. A node that loses its name must have its
// descriptor before, for it cannot be opened by name afterwards.
func (fs *FS) known(u use, name string) *node {
	var sx unix.Statx_t
	if statChild(u.fd, name, &sx) != nil {
		return nil
	}
	t := &fs.nodeTable
	t.mu.Lock()
	n := t.byKey[nodeKey{t.volumeLocked(u.n.vol.exp, devOf(&sx)), sx.Ino}]
	if n != nil && !n.same(&sx) {
		n = nil
	}
	if n != nil && n.held != nil {
		t.pinLocked(n)
		t.mu.Unlock()
		return n
	}
	t.mu.Unlock()
	if n == nil {
		return nil
	}
	if _, err := fs.pinChild(u.fd, name, n); err != nil {
		return nil
	}
	return n
}

// lost records that n is no longer called name in dir, and unpins it.
func (fs *FS) lost(n, dir *node, name string) {
	if n == nil {
		return
	}
	var sx unix.Statx_t
	if err := statFD(n.held.fd, &sx); err == nil && sx.Nlink == 0 || n.typ == unix.S_IFDIR {
		fs.orphan(n)
	} else {
		// Other names are left, which we may not know. Should the descriptor
		// be closed, ESTALE makes the guest look one of them up.
		var fds closing
		t := &fs.nodeTable
		t.mu.Lock()
		if n.parent == dir && n.name == name {
			t.moveLocked(n, nil, "", &fds)
		}
		t.mu.Unlock()
		fds.close()
	}
	fs.unpin(n)
}

// orphan records that n, which is pinned, has no name left. It keeps its
// descriptor, for which there is a bound of its own, until the guest forgets it.
func (fs *FS) orphan(n *node) {
	var fds closing
	t := &fs.nodeTable
	t.mu.Lock()
	if !n.permanent && !n.gone {
		t.unkeyLocked(n)
		t.moveLocked(n, nil, "", &fds)
		n.held.unlist()
		t.orphans.push(n.held)
		t.trimLocked(&t.orphans, &fds)
	}
	t.mu.Unlock()
	fds.close()
}

// Unlink removes a name of a file that is no directory.
func (fs *FS) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return fs.remove(h, name, 0)
}

// Rmdir removes an empty directory.
func (fs *FS) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return fs.remove(h, name, unix.AT_REMOVEDIR)
}

func (fs *FS) remove(h *fuse.InHeader, name string, flags int) fuse.Status {
	if st := checkName(name); !st.Ok() {
		return st
	}
	u, st := fs.beginChange(h.NodeId)
	if !st.Ok() {
		return st
	}
	defer u.done()
	n := fs.known(u, name)
	if err := again(func() error { return unix.Unlinkat(u.fd, name, flags) }); err != nil {
		if n != nil {
			fs.unpin(n)
		}
		return status(err)
	}
	fs.lost(n, u.n, name)
	return fuse.OK
}

// Rename moves a name within an export. RENAME_WHITEOUT is refused: it would
// make a device node that means something to overlay file systems.
func (fs *FS) Rename(_ <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	for _, name := range []string{from, to} {
		if st := checkName(name); !st.Ok() {
			return st
		}
	}
	if in.Flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return fuse.EINVAL
	}
	src, st := fs.beginChange(in.NodeId)
	if !st.Ok() {
		return st
	}
	defer src.done()
	dst, st := src.and(in.Newdir)
	if !st.Ok() {
		return st
	}
	defer dst.unpin()

	moved, other := fs.known(src, from), fs.known(dst, to)
	fs.rename.Lock()
	err := again(func() error { return unix.Renameat2(src.fd, from, dst.fd, to, uint(in.Flags)) })
	if err == nil {
		fs.seen(moved, dst.n, to)
		if in.Flags&unix.RENAME_EXCHANGE != 0 {
			fs.seen(other, src.n, from)
		}
	}
	fs.rename.Unlock()
	if moved != nil {
		fs.unpin(moved)
	}
	switch {
	case other == nil:
	case err != nil || other == moved || in.Flags&unix.RENAME_EXCHANGE != 0:
		fs.unpin(other)
	default:
		fs.lost(other, dst.n, to)
	}
	return status(err)
}

// seen records where n is now; n may be nil.
func (fs *FS) seen(n, dir *node, name string) {
	if n == nil {
		return
	}
	var fds closing
	fs.nodeTable.mu.Lock()
	fs.moveLocked(n, dir, name, &fds)
	fs.nodeTable.mu.Unlock()
	fds.close()
}

// Link gives a file another name within its export.
func (fs *FS) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	if st := checkName(name); !st.Ok() {
		return st
	}
	dir, st := fs.beginChange(in.NodeId)
	if !st.Ok() {
		return st
	}
	defer dir.done()
	file, st := dir.and(in.Oldnodeid)
	if !st.Ok() {
		return st
	}
	defer file.unpin()
	if file.n.typ == unix.S_IFDIR {
		return fuse.EPERM
	}
	err := again(func() error {
		// The link in /proc is followed; one that file itself is, is not.
		return unix.Linkat(fs.procFD, strconv.Itoa(file.fd), dir.fd, name, unix.AT_SYMLINK_FOLLOW)
	})
	if err != nil {
		return status(err)
	}
	var sx unix.Statx_t
	if err := statFD(file.fd, &sx); err != nil {
		return status(err)
	}
	t := &fs.nodeTable
	t.mu.Lock()
	if key := (nodeKey{file.n.vol, file.n.ino}); t.byKey[key] == nil && !file.n.gone {
		t.byKey[key] = file.n // was without a name
	}
	t.mu.Unlock()
	_, st = fs.fillEntry(dir.n, name, &sx, out)
	return st
}

// Sync writes what was changed in any export since the last Sync to the host's
// disk, and returns the first error.
func (fs *FS) Sync() fuse.Status {
	t := &fs.nodeTable
	t.mu.Lock()
	var all []*export
	for _, e := range t.exports {
		all = append(all, e)
	}
	t.mu.Unlock()
	result := fuse.OK
	for _, e := range all {
		if st := fs.syncExport(e); result.Ok() {
			result = st
		}
	}
	return result
}

func (fs *FS) syncExport(e *export) fuse.Status {
	if !e.enter() {
		return fuse.OK
	}
	defer e.leave()
	if !e.dirty.Swap(false) {
		return fuse.OK
	}
	fd, err := fs.reopen(int(e.file.Fd()), unix.O_RDONLY)
	if err == nil {
		err = again(func() error { return unix.Syncfs(fd) })
		unix.Close(fd)
	}
	if err != nil {
		e.dirty.Store(true)
	}
	return status(err)
}
