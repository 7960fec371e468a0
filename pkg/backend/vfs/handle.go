// SPDX-License-Identifier: Apache-2.0

package vfs

import (
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// handle is a file or directory that the guest has open. Its descriptor is of
// its own, so it works on after the file was unlinked or the node's descriptor
// was closed.
type handle struct {
	fs     *FS
	id     uint64
	n      *node
	fd     int  // -1 for a synthetic directory
	write  bool // opened for writing
	append bool // the guest opened it with O_APPEND

	users  int  // requests that use fd; handleTable.mu
	closed bool // released by the guest; handleTable.mu

	dir dirStream
}

// handleTable holds all open handles by their number, which is never used twice.
type handleTable struct {
	mu   sync.Mutex
	byID map[uint64]*handle
	last uint64
	max  int
	busy int // released handles that a request still uses
}

func (t *handleTable) initHandles(max int) {
	t.byID = make(map[uint64]*handle)
	t.max = max
}

// addHandle takes ownership of fd, also when it fails.
func (fs *FS) addHandle(n *node, fd int, flags uint32) (*handle, fuse.Status) {
	h := &handle{
		fs: fs, n: n, fd: fd,
		write:  flags&unix.O_ACCMODE != unix.O_RDONLY,
		append: flags&unix.O_APPEND != 0,
	}
	t := &fs.handleTable
	t.mu.Lock()
	if len(t.byID)+t.busy >= t.max {
		t.mu.Unlock()
		if fd >= 0 {
			unix.Close(fd)
		}
		return nil, eNFile
	}
	t.last++
	h.id = t.last
	t.byID[h.id] = h
	t.mu.Unlock()
	return h, fuse.OK
}

// beginHandle uses an open handle of the node until done is called. The handle's
// export is not removed in the meantime.
func (fs *FS) beginHandle(node, id uint64) (*handle, fuse.Status) {
	h, st := fs.holdHandle(node, id)
	if !st.Ok() {
		return nil, st
	}
	if e := h.n.exp(); e != nil && !e.enter() {
		h.release()
		return nil, eStale
	}
	return h, fuse.OK
}

func (h *handle) done() {
	h.release()
	if e := h.n.exp(); e != nil {
		e.leave()
	}
}

// holdHandle is beginHandle for a caller that is in the export already.
func (fs *FS) holdHandle(node, id uint64) (*handle, fuse.Status) {
	t := &fs.handleTable
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.byID[id]
	if h == nil || h.n.id != node {
		return nil, fuse.EBADF
	}
	h.users++
	return h, fuse.OK
}

// anyHandle is holdHandle for whatever handle of n there is, or nil. It looks at
// all of them: few nodes are lost while they are open.
func (fs *FS) anyHandle(n *node) *handle {
	t := &fs.handleTable
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range t.byID {
		if h.n == n && h.fd >= 0 {
			h.users++
			return h
		}
	}
	return nil
}

func (h *handle) release() {
	t := &h.fs.handleTable
	t.mu.Lock()
	h.users--
	fd := -1
	if h.closed && h.users == 0 {
		t.busy--
		fd, h.fd = h.fd, -1
	}
	t.mu.Unlock()
	if fd >= 0 {
		unix.Close(fd)
	}
}

// closeHandle ends the guest's use of a handle.
func (fs *FS) closeHandle(node, id uint64) {
	t := &fs.handleTable
	t.mu.Lock()
	h := t.byID[id]
	if h == nil || h.n.id != node {
		t.mu.Unlock()
		return
	}
	delete(t.byID, id)
	h.closed = true
	fd := -1
	if h.users == 0 {
		fd, h.fd = h.fd, -1
	} else {
		t.busy++
	}
	t.mu.Unlock()
	if fd >= 0 {
		unix.Close(fd)
	}
}

// closeHandles closes all handles of an export, or all there are if e is nil.
// The caller has made sure that no request is in the export; one that waits to
// enter it finds it removed and touches no descriptor.
func (fs *FS) closeHandles(e *export) {
	var fds closing
	t := &fs.handleTable
	t.mu.Lock()
	for id, h := range t.byID {
		if e != nil && h.n.exp() != e {
			continue
		}
		delete(t.byID, id)
		h.closed = true
		if h.users > 0 {
			t.busy++
		}
		if h.fd >= 0 {
			fds.add(h.fd)
			h.fd = -1
		}
	}
	t.mu.Unlock()
	fds.close()
}

func (fs *FS) openHandles() int {
	t := &fs.handleTable
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.busy
	for _, h := range t.byID {
		if h.fd >= 0 {
			n++
		}
	}
	return n
}
