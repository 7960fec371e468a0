// SPDX-License-Identifier: Apache-2.0

package vfs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// use is a node for the length of one request: its export is not removed and its
// descriptor stays open until done is called. A synthetic directory has no
// descriptor, fd is -1.
type use struct {
	fs     *FS
	n      *node
	fd     int
	change bool // the request changes the export
}

// begin starts to use the node with this id. The error is ESTALE if there is no
// such node, its export was removed, or its file is no longer where it was.
func (fs *FS) begin(id uint64) (use, fuse.Status) {
	n := fs.find(id)
	if n == nil {
		return use{}, eStale
	}
	e := n.exp()
	if e == nil {
		return use{fs: fs, n: n, fd: -1}, fuse.OK
	}
	if !e.enter() {
		return use{}, eStale
	}
	fd, err := fs.pin(n)
	if err != nil {
		e.leave()
		return use{}, status(err)
	}
	return use{fs: fs, n: n, fd: fd}, fuse.OK
}

// beginChange is begin for a request that changes the file: it answers EROFS for
// a read-only export and for the synthetic tree.
func (fs *FS) beginChange(id uint64) (use, fuse.Status) {
	u, st := fs.begin(id)
	if st.Ok() && (u.n.vol == nil || u.n.vol.exp.opts.ReadOnly) {
		u.done()
		return use{}, fuse.EROFS
	}
	u.change = true
	return u, st
}

// and uses a second node of the same export; unpin ends that.
func (u use) and(id uint64) (use, fuse.Status) {
	n := u.fs.find(id)
	switch {
	case n == nil:
		return use{}, eStale
	case n.exp() != u.n.exp():
		return use{}, fuse.EXDEV
	}
	fd, err := u.fs.pin(n)
	if err != nil {
		return use{}, status(err)
	}
	return use{fs: u.fs, n: n, fd: fd}, fuse.OK
}

func (u use) unpin() { u.fs.unpin(u.n) }

func (u use) done() {
	if e := u.n.exp(); e != nil {
		if u.change { // afterwards: a sync before the change does not count
			e.dirty.Store(true)
		}
		u.fs.unpin(u.n)
		e.leave()
	}
}

// pin returns the descriptor of n, which unpin releases. The caller is in n's
// export.
func (fs *FS) pin(n *node) (int, error) {
	fd, err := fs.tryPin(n)
	if err == unix.ESTALE {
		// A rename on its way may have moved n or a directory above it.
		fs.rename.RLock()
		fd, err = fs.tryPin(n)
		fs.rename.RUnlock()
	}
	if err == unix.ESTALE {
		return fs.pinOpen(n)
	}
	return fd, err
}

// pinOpen pins n by way of a handle that the guest has open of it, whose file
// may have no name at all any more.
func (fs *FS) pinOpen(n *node) (int, error) {
	h := fs.anyHandle(n)
	if h == nil {
		return -1, unix.ESTALE
	}
	defer h.release()
	fd, err := fs.reopen(h.fd, unix.O_PATH)
	if err != nil {
		return -1, err
	}
	return fs.adopt(n, fd), nil
}

// tryPin goes up from n to the nearest ancestor with a descriptor, then down
// again, opening one component at a time.
func (fs *FS) tryPin(n *node) (int, error) {
	t := &fs.nodeTable
	t.mu.Lock()
	at := n
	var below []*node
	var names []string
	for at.held == nil {
		if at.parent == nil || len(below) == maxDepth {
			t.mu.Unlock()
			return -1, unix.ESTALE
		}
		below = append(below, at)
		names = append(names, at.name)
		at = at.parent
	}
	fd := at.held.fd
	t.pinLocked(at)
	t.mu.Unlock()

	for i := len(below) - 1; i >= 0; i-- {
		next, err := fs.pinChild(fd, names[i], below[i])
		fs.unpin(at)
		if err != nil {
			return -1, err
		}
		at, fd = below[i], next
	}
	return fd, nil
}

// pinChild opens n, which is said to be name in the directory dir, and pins it.
func (fs *FS) pinChild(dir int, name string, n *node) (int, error) {
	fd, err := openPath(dir, name)
	if err != nil {
		if err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP {
			err = unix.ESTALE
		}
		return -1, err
	}
	var sx unix.Statx_t
	if err := statFD(fd, &sx); err != nil {
		unix.Close(fd)
		return -1, err
	}
	if !n.same(&sx) {
		unix.Close(fd)
		return -1, unix.ESTALE
	}
	return fs.adopt(n, fd), nil
}

// adopt gives n the descriptor fd, unless it has one already, and pins it.
func (fs *FS) adopt(n *node, fd int) int {
	var fds closing
	t := &fs.nodeTable
	t.mu.Lock()
	if n.held == nil {
		n.held = &held{n: n, fd: fd}
	} else {
		fds.add(fd)
	}
	fd = n.held.fd
	t.pinLocked(n)
	t.trimLocked(&t.lru, &fds)
	t.mu.Unlock()
	fds.close()
	return fd
}

func (t *nodeTable) pinLocked(n *node) {
	h := n.held
	h.users++
	if n.permanent || n.gone {
		return
	}
	r := h.list
	if r == nil {
		r = &t.lru
	}
	h.unlist()
	r.push(h)
}

func (fs *FS) unpin(n *node) {
	var fds closing
	t := &fs.nodeTable
	t.mu.Lock()
	n.held.users--
	if n.gone && n.held.users == 0 {
		n.letGoLocked(&fds)
	}
	t.mu.Unlock()
	fds.close()
}
