// SPDX-License-Identifier: Apache-2.0

package vfs

import (
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

var (
	// ErrExists is the identity of the error for a name that is taken, or
	// lies above or below an export.
	ErrExists = errors.New("export exists")
	// ErrUnknown is the identity of the error for a name that is no export.
	ErrUnknown = errors.New("no such export")
	// ErrName is the identity of the error for a name that cannot be.
	ErrName = errors.New("bad export name")
)

// maxComponents bounds the depth of export names.
const maxComponents = 8

// Options say how an export is served.
type Options struct {
	// ReadOnly makes every change answer EROFS.
	ReadOnly bool
	// EntryTTL and AttrTTL say for how long the guest may take names and
	// attributes for granted without asking again.
	EntryTTL, AttrTTL time.Duration
	// NegativeTTL says the same of a name that was not there.
	NegativeTTL time.Duration
	// KeepCache lets the guest keep a file's data from one open to the next.
	// Without it only data read since the last open is cached.
	KeepCache bool
}

// PrivateOptions are for a directory that nobody but the guest changes, such as
// a container's root file system.
func PrivateOptions() Options {
	const day = 24 * time.Hour
	return Options{EntryTTL: day, AttrTTL: day, NegativeTTL: day, KeepCache: true}
}

// SharedOptions are for a directory that others change too, such as a bind
// mount. A change shows after a second at the latest, a new name at once.
func SharedOptions() Options {
	return Options{EntryTTL: time.Second, AttrTTL: time.Second}
}

// export is a directory or file of the host that the guest may see.
type export struct {
	name  string
	opts  Options
	file  *os.File // owns the root's descriptor
	root  *node
	dirty atomic.Bool // changed since the last sync

	// life is held for reading by each request that uses the export, and for
	// writing while it is removed.
	life    sync.RWMutex
	removed bool

	vols map[uint64]*volume // by device; nodeTable.mu
}

func (e *export) enter() bool {
	e.life.RLock()
	if e.removed {
		e.life.RUnlock()
		return false
	}
	return true
}

func (e *export) leave() { e.life.RUnlock() }

// synDir is a directory of the synthetic tree. nodeTable.mu guards children.
type synDir struct {
	parent   *node
	name     string
	ino      uint64
	children map[string]*node // synthetic directories and roots of exports
}

func (t *nodeTable) newSynLocked(parent *node, name string) *node {
	t.synIno++
	n := &node{
		typ: unix.S_IFDIR, permanent: true,
		syn: &synDir{parent: parent, name: name, ino: t.synIno, children: make(map[string]*node)},
	}
	t.addLocked(n)
	if parent != nil {
		parent.syn.children[name] = n
	}
	return n
}

// Add makes what dir refers to appear under name, which is one component or
// several with slashes between them. dir is a directory or a regular file and
// may be an O_PATH descriptor. Add takes ownership of dir, also when it fails.
func (fs *FS) Add(name string, dir *os.File, opts Options) error {
	if err := fs.add(name, dir, opts); err != nil {
		dir.Close()
		return fmt.Errorf("vfs: add export %q: %w", name, err)
	}
	return nil
}

func (fs *FS) add(name string, dir *os.File, opts Options) error {
	parts := strings.Split(name, "/")
	if len(parts) > maxComponents {
		return ErrName
	}
	for _, p := range parts {
		if !checkName(p).Ok() {
			return ErrName
		}
	}
	var sx unix.Statx_t
	fd := int(dir.Fd())
	if err := statFD(fd, &sx); err != nil {
		return err
	}
	typ := uint32(sx.Mode) & unix.S_IFMT
	if typ != unix.S_IFDIR && typ != unix.S_IFREG {
		return fmt.Errorf("file mode %#o: neither a directory nor a regular file", sx.Mode)
	}
	e := &export{name: name, opts: opts, file: dir, vols: make(map[uint64]*volume)}
	root := &node{ino: sx.Ino, btime: btimeOf(&sx), typ: typ, permanent: true}
	root.held = &held{n: root, fd: fd}
	e.root = root

	t := &fs.nodeTable
	t.mu.Lock()
	defer t.mu.Unlock()
	at := t.root
	for i, p := range parts[:len(parts)-1] {
		next := at.syn.children[p]
		if next != nil && next.syn == nil {
			return fmt.Errorf("%w: %s", ErrExists, strings.Join(parts[:i+1], "/"))
		}
		if next == nil {
			next = t.newSynLocked(at, p)
		}
		at = next
	}
	last := parts[len(parts)-1]
	if at.syn.children[last] != nil {
		return ErrExists
	}
	root.vol = t.volumeLocked(e, devOf(&sx))
	t.addLocked(root)
	t.byKey[nodeKey{root.vol, root.ino}] = root
	at.syn.children[last] = root
	t.exports[name] = e
	return nil
}

// Remove takes the export called name away. It waits for requests on it to end,
// closes the guest's open files in it, and returns when no descriptor of it is
// held; the guest's nodes of it answer ESTALE from then on.
func (fs *FS) Remove(name string) error {
	t := &fs.nodeTable
	t.mu.Lock()
	e := t.exports[name]
	if e != nil {
		t.unlinkExportLocked(e)
	}
	t.mu.Unlock()
	if e == nil {
		return fmt.Errorf("vfs: remove export %q: %w", name, ErrUnknown)
	}
	fs.dismantle(e)
	return nil
}

// takeExports unlinks all exports and returns them.
func (t *nodeTable) takeExports() []*export {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []*export
	for _, e := range t.exports {
		all = append(all, e)
	}
	for _, e := range all {
		t.unlinkExportLocked(e)
	}
	return all
}

// unlinkExportLocked takes e, and the directories above that are empty without
// it, out of the synthetic tree.
func (t *nodeTable) unlinkExportLocked(e *export) {
	delete(t.exports, e.name)
	parts := strings.Split(e.name, "/")
	path := []*node{t.root}
	for _, p := range parts[:len(parts)-1] {
		path = append(path, path[len(path)-1].syn.children[p])
	}
	for i := len(path) - 1; i >= 0; i-- {
		delete(path[i].syn.children, parts[i])
		if i == 0 || len(path[i].syn.children) > 0 {
			return
		}
		t.retireLocked(path[i])
	}
}

// retireLocked lets a permanent node go once the guest has forgotten it.
func (t *nodeTable) retireLocked(n *node) {
	var none closing
	n.permanent = false
	t.dropLocked(n, &none)
}

// dismantle closes everything of an export that is no longer in the tree.
func (fs *FS) dismantle(e *export) {
	e.life.Lock()
	defer e.life.Unlock()
	e.removed = true
	fs.closeHandles(e)

	var fds closing
	t := &fs.nodeTable
	t.mu.Lock()
	for _, r := range []*ring{&t.lru, &t.orphans} {
		for h := r.head.prev; h != &r.head; {
			victim := h
			h = h.prev
			if victim.n.exp() == e {
				victim.n.letGoLocked(&fds)
			}
		}
	}
	e.root.held = nil // e.file owns the descriptor
	t.retireLocked(e.root)
	for _, v := range e.vols {
		delete(t.spaces, v.space)
	}
	t.mu.Unlock()
	fds.close()
	e.file.Close()
}

// synEntry is one name in a synthetic directory.
type synEntry struct {
	name string
	ino  uint64
	typ  uint32
}

// listSyn returns the names in the synthetic directory n, sorted.
func (t *nodeTable) listSyn(n *node) []synEntry {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]synEntry, 0, len(n.syn.children))
	for name, c := range n.syn.children {
		ent := synEntry{name: name, typ: c.typ}
		if c.syn != nil {
			ent.ino = c.syn.ino
		} else {
			ent.ino = c.vol.guestIno(c.ino)
		}
		list = append(list, ent)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].name < list[j].name })
	return list
}

// lookupSyn finds name in a synthetic directory. The guest may keep the answer
// for no time at all, since exports come and go and virtio-fs has no way to tell
// it. For the root of an export the attributes keep their time.
func (fs *FS) lookupSyn(dir *node, name string, out *fuse.EntryOut) fuse.Status {
	t := &fs.nodeTable
	t.mu.Lock()
	n := dir.syn.children[name]
	if n != nil && n.syn != nil {
		n.nlookup++
		fs.synAttrLocked(n, &out.Attr)
		out.NodeId = n.id
	}
	t.mu.Unlock()
	switch {
	case n == nil:
		return fuse.ENOENT
	case n.syn != nil:
		return fuse.OK
	case !n.vol.exp.enter():
		return fuse.ENOENT
	}
	e := n.vol.exp
	defer e.leave()
	var sx unix.Statx_t
	if err := statFD(int(e.file.Fd()), &sx); err != nil {
		return status(err)
	}
	t.mu.Lock()
	n.nlookup++
	t.mu.Unlock()
	out.NodeId = n.id
	out.SetAttrTimeout(e.attrTTL(&sx))
	fs.fillAttr(e, &sx, &out.Attr)
	return fuse.OK
}

// synAttrLocked fills in the attributes of a synthetic directory.
func (fs *FS) synAttrLocked(n *node, a *fuse.Attr) {
	sec, nsec := uint64(fs.born.Unix()), uint32(fs.born.Nanosecond())
	*a = fuse.Attr{
		Ino: n.syn.ino, Mode: unix.S_IFDIR | 0o555, Nlink: 2, Blksize: 4096,
		Atime: sec, Mtime: sec, Ctime: sec, Atimensec: nsec, Mtimensec: nsec, Ctimensec: nsec,
	}
	for _, c := range n.syn.children {
		if c.typ == unix.S_IFDIR {
			a.Nlink++
		}
	}
}
