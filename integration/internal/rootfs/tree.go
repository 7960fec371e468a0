// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"path"
	"slices"
	"strings"
)

// Kind is the type of a node.
type Kind byte

// The kinds of nodes.
const (
	Dir Kind = iota
	File
	Symlink
)

// Node is one file, directory or symbolic link. Hard links are one node under
// several names.
type Node struct {
	Kind     Kind
	Mode     uint32 // permission bits with setuid, setgid and sticky: 0o7777
	UID, GID int
	Data     []byte // File
	Target   string // Symlink
}

// Tree maps clean paths without a leading slash ("usr/bin/env") to nodes. The
// root directory is implied. A directory exists for each path in the tree.
type Tree struct {
	nodes map[string]*Node
}

// usrMerged are the top directories that Debian has moved below /usr; packages
// may still name the old place.
var usrMerged = []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"}

// New returns an empty tree.
func New() *Tree { return &Tree{nodes: map[string]*Node{}} }

// NewMerged returns a tree with the links of a merged /usr (/bin to usr/bin and
// so on). Names added later are put where the links lead.
func NewMerged() *Tree {
	t := New()
	for _, d := range []string{"bin", "sbin", "lib", "lib64"} {
		t.Mkdir("usr/"+d, 0o755)
		t.nodes[d] = &Node{Kind: Symlink, Mode: 0o777, Target: "usr/" + d}
	}
	return t
}

// clean turns a name into a key of the map, or "" for the root.
func (t *Tree) clean(name string) string {
	p := strings.TrimPrefix(path.Clean("/"+name), "/")
	first, _, _ := strings.Cut(p, "/")
	if first == p || !slices.Contains(usrMerged, first) {
		return p
	}
	if n, ok := t.nodes[first]; ok && n.Kind == Symlink {
		return "usr/" + p
	}
	return p
}

// put enters a node, with parents. A directory never replaces a link to one.
func (t *Tree) put(name string, n *Node) {
	p := t.clean(name)
	if p == "" {
		return
	}
	if old, ok := t.nodes[p]; ok && n.Kind == Dir && old.Kind == Symlink {
		return
	}
	for d := path.Dir(p); d != "."; d = path.Dir(d) {
		if _, ok := t.nodes[d]; ok {
			break
		}
		t.nodes[d] = &Node{Kind: Dir, Mode: 0o755}
	}
	t.nodes[p] = n
}

// Mkdir adds a directory owned by root, or changes the mode of one.
func (t *Tree) Mkdir(name string, mode uint32) { t.put(name, &Node{Kind: Dir, Mode: mode}) }

// WriteFile adds a file owned by root. The tree keeps data.
func (t *Tree) WriteFile(name string, mode uint32, data []byte) {
	t.put(name, &Node{Kind: File, Mode: mode, Data: data})
}

// Symlink adds a symbolic link.
func (t *Tree) Symlink(target, name string) {
	t.put(name, &Node{Kind: Symlink, Mode: 0o777, Target: target})
}

// Chown sets the owner of an existing name.
func (t *Tree) Chown(name string, uid, gid int) error {
	n, ok := t.nodes[t.clean(name)]
	if !ok {
		return fmt.Errorf("rootfs: chown %s: %w", name, fs.ErrNotExist)
	}
	n.UID, n.GID = uid, gid
	return nil
}

// Lookup returns the node at exactly this name; links are not followed except
// those of a merged /usr.
func (t *Tree) Lookup(name string) (*Node, bool) {
	n, ok := t.nodes[t.clean(name)]
	return n, ok
}

// ReadFile returns the contents of a file in the tree.
func (t *Tree) ReadFile(name string) ([]byte, error) {
	n, ok := t.Lookup(name)
	if !ok || n.Kind != File {
		return nil, fmt.Errorf("rootfs: read %s: %w", name, fs.ErrNotExist)
	}
	return n.Data, nil
}

// Remove removes a name and all below it. A missing name is no error.
func (t *Tree) Remove(name string) {
	p := t.clean(name)
	for k := range t.nodes {
		if k == p || strings.HasPrefix(k, p+"/") {
			delete(t.nodes, k)
		}
	}
}

// Names returns all names in order, a directory before its contents.
func (t *Tree) Names() []string {
	names := make([]string, 0, len(t.nodes))
	for k := range t.nodes {
		names = append(names, k)
	}
	slices.Sort(names)
	return names
}

// Clone returns a tree with the same nodes, to which names can be added
// without changing t. Nodes are shared: do not Chown in a clone what came from t.
func (t *Tree) Clone() *Tree {
	c := New()
	for k, n := range t.nodes {
		c.nodes[k] = n
	}
	return c
}

// AddDeb adds the files of a Debian package for which keep is true; a nil keep
// means all. keep sees clean names.
func (t *Tree) AddDeb(ctx context.Context, debPath string, keep func(name string) bool) error {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", debPath)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("rootfs: unpack %s: %w", debPath, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("rootfs: unpack %s: %w", debPath, err)
	}
	terr := t.AddTar(out, keep)
	io.Copy(io.Discard, out) // let the child end by itself
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("rootfs: unpack %s: %w: %s", debPath, err, bytes.TrimSpace(stderr.Bytes()))
	}
	if terr != nil {
		return fmt.Errorf("rootfs: unpack %s: %w", debPath, terr)
	}
	return nil
}

// AddTar adds the entries of a tar stream for which keep is true.
func (t *Tree) AddTar(r io.Reader, keep func(name string) bool) error {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
		if p := t.clean(h.Name); p == "" || keep != nil && !keep(p) {
			continue
		}
		n := &Node{Mode: uint32(h.Mode) & 0o7777, UID: h.Uid, GID: h.Gid}
		switch h.Typeflag {
		case tar.TypeDir:
			n.Kind = Dir
		case tar.TypeReg:
			n.Kind = File
			if n.Data, err = io.ReadAll(tr); err != nil {
				return fmt.Errorf("read %s from tar: %w", h.Name, err)
			}
		case tar.TypeSymlink:
			n.Kind, n.Target = Symlink, h.Linkname
		case tar.TypeLink:
			old, ok := t.Lookup(h.Linkname)
			if !ok {
				return fmt.Errorf("read tar: hard link %s to %s: %w", h.Name, h.Linkname, fs.ErrNotExist)
			}
			n = old
		default:
			return fmt.Errorf("read tar: %s has unsupported type %q", h.Name, h.Typeflag)
		}
		t.put(h.Name, n)
	}
}
