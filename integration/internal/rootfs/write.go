// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"archive/tar"
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// epoch is the time stamp of every file, so that output depends on contents
// only. Not 0, since some programs take that for "unset".
var epoch = time.Unix(1700000000, 0)

// WriteTar writes the tree as a tar stream, ordered by name.
func (t *Tree) WriteTar(w io.Writer) error {
	tw := tar.NewWriter(w)
	first := map[*Node]string{}
	for _, name := range t.Names() {
		n := t.nodes[name]
		h := &tar.Header{Name: name, Mode: int64(n.Mode), Uid: n.UID, Gid: n.GID, ModTime: epoch, Format: tar.FormatPAX}
		switch n.Kind {
		case Dir:
			h.Typeflag, h.Name = tar.TypeDir, name+"/"
		case Symlink:
			h.Typeflag, h.Linkname = tar.TypeSymlink, n.Target
		case File:
			if orig, ok := first[n]; ok {
				h.Typeflag, h.Linkname = tar.TypeLink, orig
				break
			}
			first[n] = name
			h.Typeflag, h.Size = tar.TypeReg, int64(len(n.Data))
		}
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("rootfs: write tar: %s: %w", name, err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := tw.Write(n.Data); err != nil {
				return fmt.Errorf("rootfs: write tar: %s: %w", name, err)
			}
		}
	}
	if err := tw.Close(); err != nil {
		return fmt.Errorf("rootfs: write tar: %w", err)
	}
	return nil
}

// File type bits of a cpio mode, as in stat(2).
const (
	cpioDir     = 0o040000
	cpioFile    = 0o100000
	cpioSymlink = 0o120000
)

// WriteCpio writes the tree as a "newc" cpio archive, the format of an
// initramfs (Linux Documentation/driver-api/early-userspace/buffer-format.rst).
// Hard links become copies.
func (t *Tree) WriteCpio(w io.Writer) error {
	bw := bufio.NewWriter(w)
	var off int
	pad := func() {
		for ; off%4 != 0; off++ {
			bw.WriteByte(0)
		}
	}
	entry := func(ino int, name string, mode uint32, uid, gid int, data []byte) {
		n, _ := fmt.Fprintf(bw, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
			ino, mode, uid, gid, 1, epoch.Unix(), len(data), 0, 0, 0, 0, len(name)+1, 0)
		off += n
		bw.WriteString(name)
		bw.WriteByte(0)
		off += len(name) + 1
		pad()
		bw.Write(data)
		off += len(data)
		pad()
	}
	for i, name := range t.Names() {
		n := t.nodes[name]
		switch n.Kind {
		case Dir:
			entry(i+1, name, cpioDir|n.Mode, n.UID, n.GID, nil)
		case File:
			entry(i+1, name, cpioFile|n.Mode, n.UID, n.GID, n.Data)
		case Symlink:
			entry(i+1, name, cpioSymlink|n.Mode, n.UID, n.GID, []byte(n.Target))
		}
	}
	entry(0, "TRAILER!!!", 0, 0, 0, nil)
	if err := bw.Flush(); err != nil {
		return fmt.Errorf("rootfs: write cpio: %w", err)
	}
	return nil
}

// WriteDir writes the tree below an existing empty directory. Owners are set
// only by root; others make a disk image from the directory with every owner
// mapped to root.
func (t *Tree) WriteDir(dir string) error {
	root := os.Geteuid() == 0
	first := map[*Node]string{}
	names := t.Names()
	for _, name := range names {
		n, p := t.nodes[name], filepath.Join(dir, name)
		var err error
		switch orig, linked := first[n]; {
		case n.Kind == Dir:
			err = os.Mkdir(p, 0o755)
		case n.Kind == Symlink:
			err = os.Symlink(n.Target, p)
		case linked:
			err = os.Link(orig, p)
		default:
			first[n] = p
			err = os.WriteFile(p, n.Data, 0o600)
		}
		if err == nil && root {
			err = os.Lchown(p, n.UID, n.GID)
		}
		if err != nil {
			return fmt.Errorf("rootfs: write directory: %w", err)
		}
	}
	// Modes last, children first: a directory may be made unwritable, and a
	// chown clears the setuid bit.
	for i := len(names) - 1; i >= 0; i-- {
		n, p := t.nodes[names[i]], filepath.Join(dir, names[i])
		if n.Kind == Symlink {
			continue
		}
		if err := os.Chmod(p, goMode(n.Mode)); err != nil {
			return fmt.Errorf("rootfs: write directory: %w", err)
		}
	}
	return nil
}

// goMode converts Unix mode bits to Go's.
func goMode(m uint32) fs.FileMode {
	g := fs.FileMode(m & 0o777)
	if m&0o4000 != 0 {
		g |= fs.ModeSetuid
	}
	if m&0o2000 != 0 {
		g |= fs.ModeSetgid
	}
	if m&0o1000 != 0 {
		g |= fs.ModeSticky
	}
	return g
}
