// SPDX-License-Identifier: Apache-2.0

package vfs

import (
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// maxDepth bounds how many directories are opened one after the other to find a
// node again. Guests can nest deeper than any path is long; nodes down there are
// found as long as one of the last maxDepth ancestors has a descriptor.
const maxDepth = 4096

// volume is one device of the host as seen through one export.
type volume struct {
	exp   *export
	dev   uint64
	space uint16 // high bits of inode numbers
}

// nodeKey identifies a file.
type nodeKey struct {
	vol *volume
	ino uint64
}

// node is a file that the guest knows, or a directory of the synthetic tree.
// There may be many, so it is kept small. The first fields never change; the
// others are guarded by nodeTable.mu.
type node struct {
	id    uint64  // FUSE node id, never used twice
	vol   *volume // nil: synthetic
	ino   uint64  // on the host
	btime int64   // time of birth in ns, 0 where the host does not say
	typ   uint32  // S_IFMT bits of the mode

	children  int32 // nodes whose parent this is
	permanent bool  // root of an export, or synthetic: lives until Remove
	gone      bool  // left the table; its descriptor closes with the last user
	nlookup   uint64
	parent    *node // with name: where the file was seen last, nil if nowhere
	name      string
	held      *held // nil: no descriptor
	syn       *synDir
}

// exp is the export that n belongs to, nil for a synthetic directory.
func (n *node) exp() *export {
	if n.vol == nil {
		return nil
	}
	return n.vol.exp
}

// held is the O_PATH descriptor of a node.
type held struct {
	n     *node
	fd    int
	users int   // requests that use fd
	list  *ring // lru or orphans; nil for the root of an export and when gone
	prev  *held
	next  *held
}

// ring is a list of descriptors, least recently used last.
type ring struct {
	head held // sentinel
	n    int
	max  int
}

func (r *ring) init(max int) {
	r.head.prev, r.head.next, r.max = &r.head, &r.head, max
}

func (r *ring) push(h *held) {
	h.list, h.prev, h.next = r, &r.head, r.head.next
	h.prev.next, h.next.prev = h, h
	r.n++
}

func (h *held) unlist() {
	if h.list == nil {
		return
	}
	h.prev.next, h.next.prev = h.next, h.prev
	h.list.n--
	h.list, h.prev, h.next = nil, nil, nil
}

// letGoLocked closes n's descriptor.
func (n *node) letGoLocked(fds *closing) {
	if n.held != nil {
		n.held.unlist()
		fds.add(n.held.fd)
		n.held = nil
	}
}

// nodeTable holds all nodes. The low half of a node id is a slot, the high half
// counts the uses of the slot, so that an id of the past is never taken for a
// node of the present.
type nodeTable struct {
	mu      sync.Mutex
	slots   []*node
	uses    []uint32
	free    []uint32
	max     int
	byKey   map[nodeKey]*node
	lru     ring // can be opened again by name
	orphans ring // cannot: the last name is gone
	root    *node
	exports map[string]*export
	spaces  map[uint16]bool // inode number spaces in use
	synIno  uint64
}

func (t *nodeTable) initNodes(cfg Config) {
	t.max = cfg.Nodes
	t.byKey = make(map[nodeKey]*node)
	t.exports = make(map[string]*export)
	t.spaces = make(map[uint16]bool)
	t.lru.init(cfg.NodeFDs)
	t.orphans.init(cfg.OrphanFDs)
	t.slots = make([]*node, 1) // node id 0 means none, FUSE_ROOT_ID is 1
	t.uses = make([]uint32, 1)
	t.root = t.newSynLocked(nil, "")
}

// addLocked gives n an id.
func (t *nodeTable) addLocked(n *node) {
	var slot uint32
	if k := len(t.free); k > 0 {
		slot, t.free = t.free[k-1], t.free[:k-1]
		t.uses[slot]++
	} else {
		slot = uint32(len(t.slots))
		t.slots = append(t.slots, nil)
		t.uses = append(t.uses, 0)
	}
	t.slots[slot] = n
	n.id = uint64(t.uses[slot])<<32 | uint64(slot)
}

// find returns the node with this id, or nil.
func (t *nodeTable) find(id uint64) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.findLocked(id)
}

func (t *nodeTable) findLocked(id uint64) *node {
	slot := uint32(id)
	if int(slot) >= len(t.slots) || t.slots[slot] == nil || t.slots[slot].id != id {
		return nil
	}
	return t.slots[slot]
}

// same says whether sx describes the file that n stands for. The time of birth
// tells a new file from an old one whose inode number it was given.
func (n *node) same(sx *unix.Statx_t) bool {
	return n.ino == sx.Ino && n.vol.dev == devOf(sx) && n.btime == btimeOf(sx) && n.typ == uint32(sx.Mode)&unix.S_IFMT
}

// intern returns the node for the file that sx describes, seen as name in
// parent, with one more reference of the guest.
func (t *nodeTable) intern(parent *node, name string, sx *unix.Statx_t) (*node, fuse.Status) {
	var fds closing
	t.mu.Lock()
	key := nodeKey{t.volumeLocked(parent.vol.exp, devOf(sx)), sx.Ino}
	n := t.byKey[key]
	if n != nil && !n.same(sx) {
		delete(t.byKey, key) // the number was used again: the old file is no more
		t.moveLocked(n, nil, "", &fds)
		n = nil
	}
	st := fuse.OK
	switch {
	case n == nil && len(t.slots)-len(t.free) > t.max:
		st = eNFile
	case n == nil:
		n = &node{vol: key.vol, ino: key.ino, btime: btimeOf(sx), typ: uint32(sx.Mode) & unix.S_IFMT}
		t.addLocked(n)
		t.byKey[key] = n
		fallthrough
	default:
		n.nlookup++
		t.moveLocked(n, parent, name, &fds)
	}
	t.mu.Unlock()
	fds.close()
	return n, st
}

// moveLocked records where n was seen last; nil means nowhere.
func (t *nodeTable) moveLocked(n, parent *node, name string, fds *closing) {
	if n.permanent || n == parent || n.parent == parent && n.name == name {
		return
	}
	old := n.parent
	if parent != nil {
		parent.children++
	}
	n.parent, n.name = parent, name
	if parent != nil && n.held != nil && n.held.list == &t.orphans { // linked again
		n.held.unlist()
		t.lru.push(n.held)
		t.trimLocked(&t.lru, fds)
	}
	if old != nil {
		old.children--
		t.dropLocked(old, fds)
	}
}

// dropLocked takes n and then its parents out of the table if neither the guest
// nor another node refers to them.
func (t *nodeTable) dropLocked(n *node, fds *closing) {
	for n != nil && n.nlookup == 0 && n.children == 0 && !n.permanent && !n.gone {
		n.gone = true
		slot := uint32(n.id)
		t.slots[slot] = nil
		t.free = append(t.free, slot)
		t.unkeyLocked(n)
		if n.held != nil {
			n.held.unlist()
			if n.held.users == 0 {
				n.letGoLocked(fds)
			}
		}
		p := n.parent
		n.parent = nil
		if p != nil {
			p.children--
		}
		n = p
	}
}

// unkeyLocked makes sure that no lookup finds n.
func (t *nodeTable) unkeyLocked(n *node) {
	if key := (nodeKey{n.vol, n.ino}); t.byKey[key] == n {
		delete(t.byKey, key)
	}
}

// trimLocked takes descriptors from the least recently used nodes of r until it
// keeps its bound. Those in use by requests are passed over.
func (t *nodeTable) trimLocked(r *ring, fds *closing) {
	for h := r.head.prev; h != &r.head && r.n > r.max; {
		victim := h
		h = h.prev
		if victim.users == 0 {
			victim.n.letGoLocked(fds)
		}
	}
}

// Forget takes n references of the guest back.
func (fs *FS) Forget(id, n uint64) {
	var fds closing
	fs.nodeTable.mu.Lock()
	if nd := fs.findLocked(id); nd != nil {
		nd.nlookup -= min(nd.nlookup, n)
		fs.dropLocked(nd, &fds)
	}
	fs.nodeTable.mu.Unlock()
	fds.close()
}

// forgetAll drops every node but the permanent ones.
func (t *nodeTable) forgetAll() {
	var fds closing
	t.mu.Lock()
	for i, n := range t.slots {
		if n == nil {
			continue
		}
		n.nlookup, n.children = 0, 0
		if n.permanent {
			continue
		}
		n.gone, n.parent = true, nil
		n.letGoLocked(&fds)
		t.slots[i] = nil
		t.free = append(t.free, uint32(i))
		t.unkeyLocked(n)
	}
	t.mu.Unlock()
	fds.close()
}

// closing collects descriptors to be closed without a lock: closing the last one
// of a deleted file frees its blocks, which takes time.
type closing []int

func (c *closing) add(fd int) { *c = append(*c, fd) }

func (c closing) close() {
	for _, fd := range c {
		unix.Close(fd)
	}
}

func devOf(sx *unix.Statx_t) uint64 { return uint64(sx.Dev_major)<<32 | uint64(sx.Dev_minor) }

func btimeOf(sx *unix.Statx_t) int64 {
	if sx.Mask&unix.STATX_BTIME == 0 {
		return 0
	}
	return sx.Btime.Sec*1e9 + int64(sx.Btime.Nsec)
}
