// SPDX-License-Identifier: Apache-2.0

package vfs_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/backend/vfs"
	"github.com/xcontainer/xcontainer/pkg/backend/vfs/vfstest"
)

func (w *world) getattr(node uint64) error {
	_, err := w.Call(vfstest.Getattr, node, 104, vfstest.U64(0, 0))
	return err
}

func (w *world) mkdir(t *testing.T, dir uint64, name string) uint64 {
	t.Helper()
	e, err := w.Entry(vfstest.Mkdir, dir, vfstest.U32(0o755, 0), vfstest.Name(name))
	mustDo(t, err)
	return e.Node
}

func (w *world) create(t *testing.T, dir uint64, name, data string) uint64 {
	t.Helper()
	e, fh, err := w.CreateFile(dir, name, unix.O_RDWR, 0o644)
	mustDo(t, err)
	_, err = w.WriteAt(e.Node, fh, 0, []byte(data), 0)
	mustDo(t, err)
	mustDo(t, w.Close(vfstest.Release, e.Node, fh))
	return e.Node
}

func (w *world) read(t *testing.T, node uint64) string {
	t.Helper()
	fh, err := w.OpenFile(vfstest.Open, node, unix.O_RDONLY)
	if err != nil {
		t.Error(err)
		return ""
	}
	got, err := w.ReadAt(node, fh, 0, 100)
	mustDo(t, err)
	mustDo(t, w.Close(vfstest.Release, node, fh))
	return string(got)
}

// churn uses enough other nodes to take every descriptor that can be taken.
func (w *world) churn(t *testing.T, n int) {
	t.Helper()
	dir := w.mkdir(t, w.root, "churn")
	for i := range n {
		node := w.create(t, dir, fmt.Sprint(i), "")
		mustDo(t, w.getattr(node))
	}
	mustDo(t, os.RemoveAll(filepath.Join(w.dir, "churn")))
}

func TestDescriptorsAreBounded(t *testing.T) {
	const bound = 32
	w := newWorld(t, vfs.Config{NodeFDs: bound, OrphanFDs: bound}, vfs.PrivateOptions())
	var nodes []uint64
	for i := range 20 {
		dir := w.mkdir(t, w.root, fmt.Sprint("d", i))
		for j := range 20 {
			nodes = append(nodes, w.create(t, dir, fmt.Sprint(j), fmt.Sprint(i, j)))
			if n := w.fs.Descriptors(); n > bound {
				t.Fatalf("%d descriptors after %d files", n, len(nodes))
			}
		}
	}
	for i, node := range nodes {
		if got, want := w.read(t, node), fmt.Sprint(i/20, i%20); got != want {
			t.Fatalf("file %d holds %q, want %q", i, got, want)
		}
	}
	// Unlinked files that the guest has not forgotten have a bound of their
	// own: the last ones still work, the others are gone for good.
	for i := range 20 {
		dir, err := w.Walk("x", fmt.Sprint("d", i))
		mustDo(t, err)
		for j := range 20 {
			_, err := w.Call(vfstest.Unlink, dir.Node, 0, vfstest.Name(fmt.Sprint(j)))
			mustDo(t, err)
		}
	}
	if n := w.fs.Descriptors(); n > 2*bound {
		t.Errorf("%d descriptors after all files were unlinked", n)
	}
	if err := w.getattr(nodes[len(nodes)-1]); err != nil {
		t.Errorf("last file unlinked: %v", err)
	}
	if err := w.getattr(nodes[0]); !errors.Is(err, unix.ESTALE) {
		t.Errorf("first file unlinked: %v", err)
	}
	for _, node := range nodes {
		w.Do(vfstest.Pages(append(w.Header(vfstest.Forget, 1, node, 48), vfstest.U64(9)...)), nil)
	}
	if n := w.fs.Descriptors(); n > bound {
		t.Errorf("%d descriptors after all files were forgotten", n)
	}
}

// TestOpenFilesAreNeverLost has more files open without a name than there may be
// orphans.
func TestOpenFilesAreNeverLost(t *testing.T) {
	w := newWorld(t, vfs.Config{NodeFDs: 4, OrphanFDs: 4}, vfs.PrivateOptions())
	var nodes []uint64
	for i := range 20 {
		name := fmt.Sprint("f", i)
		e, _, err := w.CreateFile(w.root, name, unix.O_RDWR, 0o644)
		mustDo(t, err)
		_, err = w.Call(vfstest.Unlink, w.root, 0, vfstest.Name(name))
		mustDo(t, err)
		nodes = append(nodes, e.Node)
	}
	for i, node := range nodes {
		if err := w.getattr(node); err != nil {
			t.Errorf("file %d: getattr: %v", i, err)
		}
		if err := w.setattr(node, 1, 0o600); err != nil {
			t.Errorf("file %d: chmod: %v", i, err)
		}
	}
}

func TestHandlesAreBounded(t *testing.T) {
	w := newWorld(t, vfs.Config{Handles: 3}, vfs.PrivateOptions())
	node := w.create(t, w.root, "f", "")
	var fh uint64
	for range 3 {
		var err error
		fh, err = w.OpenFile(vfstest.Open, node, unix.O_RDONLY)
		mustDo(t, err)
	}
	if _, err := w.OpenFile(vfstest.Open, node, unix.O_RDONLY); !errors.Is(err, unix.ENFILE) {
		t.Errorf("fourth open: %v", err)
	}
	mustDo(t, w.Close(vfstest.Release, node, fh))
	if _, err := w.OpenFile(vfstest.Open, node, unix.O_RDONLY); err != nil {
		t.Errorf("open after a close: %v", err)
	}
}

// TestFoundAgain takes a node's descriptor away and moves things before it is
// used again.
func TestFoundAgain(t *testing.T) {
	rename := func(w *world, t *testing.T, dir uint64, from string, to uint64, name string) {
		t.Helper()
		_, err := w.Call(vfstest.Rename, dir, 0, vfstest.U64(to), vfstest.Name(from), vfstest.Name(name))
		mustDo(t, err)
	}
	for _, c := range []struct {
		what string
		do   func(t *testing.T, w *world, a, b, f uint64)
		err  error
	}{
		{"nothing", func(*testing.T, *world, uint64, uint64, uint64) {}, nil},
		{"renamed", func(t *testing.T, w *world, a, b, f uint64) { rename(w, t, b, "f", b, "g") }, nil},
		{"moved", func(t *testing.T, w *world, a, b, f uint64) { rename(w, t, b, "f", w.root, "g") }, nil},
		{"directory above renamed", func(t *testing.T, w *world, a, b, f uint64) { rename(w, t, w.root, "a", w.root, "c") }, nil},
		{"moved by the host", func(t *testing.T, w *world, a, b, f uint64) {
			mustDo(t, os.Rename(filepath.Join(w.dir, "a/b/f"), filepath.Join(w.dir, "a/f")))
		}, unix.ESTALE},
		{"replaced by the host", func(t *testing.T, w *world, a, b, f uint64) {
			mustDo(t, os.WriteFile(filepath.Join(w.dir, "n"), []byte("new"), 0o644))
			mustDo(t, os.Rename(filepath.Join(w.dir, "n"), filepath.Join(w.dir, "a/b/f")))
		}, unix.ESTALE},
		{"replaced by a link to it", func(t *testing.T, w *world, a, b, f uint64) {
			mustDo(t, os.Rename(filepath.Join(w.dir, "a/b/f"), filepath.Join(w.dir, "f")))
			mustDo(t, os.Symlink("../../f", filepath.Join(w.dir, "a/b/f")))
		}, unix.ESTALE},
		{"directory replaced by a link to it", func(t *testing.T, w *world, a, b, f uint64) {
			mustDo(t, os.Rename(filepath.Join(w.dir, "a/b"), filepath.Join(w.dir, "b")))
			mustDo(t, os.Symlink("../b", filepath.Join(w.dir, "a/b")))
		}, unix.ESTALE},
		{"unlinked", func(t *testing.T, w *world, a, b, f uint64) {
			_, err := w.Call(vfstest.Unlink, b, 0, vfstest.Name("f"))
			mustDo(t, err)
		}, nil},
		{"other link left", func(t *testing.T, w *world, a, b, f uint64) {
			_, err := w.Entry(vfstest.Link, w.root, vfstest.U64(f), vfstest.Name("other"))
			mustDo(t, err)
			_, err = w.Call(vfstest.Unlink, b, 0, vfstest.Name("f"))
			mustDo(t, err)
		}, nil},
	} {
		w := newWorld(t, vfs.Config{NodeFDs: 8}, vfs.PrivateOptions())
		a := w.mkdir(t, w.root, "a")
		b := w.mkdir(t, a, "b")
		f := w.create(t, b, "f", "data")
		w.churn(t, 20)
		c.do(t, w, a, b, f)
		// Nothing is left open but what may have lost its name.
		w.churn(t, 20)
		if err := w.getattr(f); !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", c.what, err, c.err)
		} else if err == nil {
			if got := w.read(t, f); got != "data" {
				t.Errorf("%s: read %q", c.what, got)
			}
		}
	}
}

func TestLookupHealsStaleNode(t *testing.T) {
	w := newWorld(t, vfs.Config{NodeFDs: 4}, vfs.PrivateOptions())
	f := w.create(t, w.root, "f", "data")
	mustDo(t, os.Rename(filepath.Join(w.dir, "f"), filepath.Join(w.dir, "g")))
	w.churn(t, 10)
	if err := w.getattr(f); !errors.Is(err, unix.ESTALE) {
		t.Errorf("moved by the host: %v", err)
	}
	e, err := w.Entry(vfstest.Lookup, w.root, vfstest.Name("g"))
	if err != nil || e.Node != f {
		t.Errorf("node %#x became %#x, %v", f, e.Node, err)
	}
	if err := w.getattr(f); err != nil {
		t.Error(err)
	}
}

func TestRemoveExport(t *testing.T) {
	w := newWorld(t, vfs.Config{}, vfs.PrivateOptions())
	export(t, w.fs, "c2/mounts/0", filepath.Join(w.top, "secret"), vfs.SharedOptions())
	f := w.create(t, w.root, "f", "data")
	fh, err := w.OpenFile(vfstest.Open, f, unix.O_RDWR)
	mustDo(t, err)
	dh, err := w.OpenFile(vfstest.Opendir, w.root, 0)
	mustDo(t, err)

	// Requests go on all the while.
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				if _, err := w.ReadAt(f, fh, 0, 10); err != nil {
					if !errors.Is(err, unix.ESTALE) && !errors.Is(err, unix.EBADF) {
						t.Errorf("read during remove: %v", err)
					}
					return
				}
			}
		})
	}
	mustDo(t, w.fs.Remove("x"))
	wg.Wait()
	if n := w.fs.Descriptors(); n != 0 {
		t.Errorf("%d descriptors are held", n)
	}
	for what, err := range map[string]error{
		"getattr": w.getattr(f), "getattr of the root": w.getattr(w.root),
	} {
		if !errors.Is(err, unix.ESTALE) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := w.WriteAt(f, fh, 0, []byte("x"), 0); !errors.Is(err, unix.EBADF) {
		t.Errorf("write: %v", err)
	}
	if err := w.Close(vfstest.Releasedir, w.root, dh); err != nil {
		t.Errorf("releasedir: %v", err)
	}
	if _, err := w.Walk("x"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("lookup: %v", err)
	}
	if err := w.fs.Remove("x"); !errors.Is(err, vfs.ErrUnknown) {
		t.Errorf("second remove: %v", err)
	}
	if e, err := w.Walk("c2", "mounts", "0"); err != nil || e.Mode&unix.S_IFMT != unix.S_IFREG {
		t.Errorf("the other export: mode %#o, %v", e.Mode, err)
	}
	mustDo(t, w.fs.Remove("c2/mounts/0"))
	if names, err := w.List(vfstest.Root); err != nil || len(names) != 2 {
		t.Errorf("root holds %v, %v", names, err)
	}
	// The name is free again, and is a new thing.
	export(t, w.fs, "x", w.dir, vfs.PrivateOptions())
	if e, err := w.Walk("x"); err != nil || e.Node == w.root {
		t.Errorf("added again: node %#x, was %#x, %v", e.Node, w.root, err)
	}
}

func TestSetIDBits(t *testing.T) {
	const kill, noCache = 1 << 2, 0
	w := newWorld(t, vfs.Config{}, vfs.PrivateOptions())
	for _, c := range []struct {
		what       string
		flags      uint32
		mode, want uint32
	}{
		{"write by a privileged caller", 0, 0o6755, 0o6755},
		{"write by another", kill, 0o6755, 0o755},
		{"write by another, group may not execute", kill, 0o6745, 0o2745},
		{"sticky", kill, 0o1755, 0o1755},
	} {
		name := fmt.Sprint(c.what)
		e, fh, err := w.CreateFile(w.root, name, unix.O_RDWR, 0o644)
		mustDo(t, err)
		mustDo(t, w.setattr(e.Node, 1, c.mode))
		if e, err := w.Walk("x", name); err != nil || e.Mode&0o6000 != 0 && e.AttrTTL != noCache {
			t.Errorf("%s: attributes may be kept for %d s, %v", c.what, e.AttrTTL, err)
		}
		if _, err := w.WriteAt(e.Node, fh, 0, []byte("x"), c.flags); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		if e, err := w.Walk("x", name); err != nil || e.Mode&0o7777 != c.want {
			t.Errorf("%s: mode %#o, want %#o, %v", c.what, e.Mode, c.want, err)
		}
	}
}

func TestOwnership(t *testing.T) {
	w := newWorld(t, vfs.Config{}, vfs.PrivateOptions())
	mustDo(t, os.Mkdir(filepath.Join(w.dir, "sg"), 0o755))
	mustDo(t, os.Chown(filepath.Join(w.dir, "sg"), 0, 77))
	mustDo(t, os.Chmod(filepath.Join(w.dir, "sg"), 0o777|os.ModeSetgid))
	sg, err := w.Walk("x", "sg")
	mustDo(t, err)
	w.UID, w.GID = 1000, 1001
	old := unix.Umask(0o77) // must not matter
	defer unix.Umask(old)
	u32, name := vfstest.U32, vfstest.Name
	for _, c := range []struct {
		what string
		dir  uint64
		call func(dir uint64) (vfstest.Entry, error)
		gid  uint32
		mode uint32
	}{
		{"directory", w.root, func(d uint64) (vfstest.Entry, error) {
			return w.Entry(vfstest.Mkdir, d, u32(0o775, 0), name("d"))
		}, 1001, 0o775},
		{"directory in a set-gid directory", sg.Node, func(d uint64) (vfstest.Entry, error) {
			return w.Entry(vfstest.Mkdir, d, u32(0o775, 0), name("d"))
		}, 77, 0o2775},
		{"file in a set-gid directory", sg.Node, func(d uint64) (vfstest.Entry, error) {
			e, _, err := w.CreateFile(d, "f", unix.O_RDWR, 0o666)
			return e, err
		}, 77, 0o666},
		{"set-uid file", w.root, func(d uint64) (vfstest.Entry, error) {
			e, _, err := w.CreateFile(d, "s", unix.O_RDWR, 0o4711)
			return e, err
		}, 1001, 0o4711},
		{"fifo", w.root, func(d uint64) (vfstest.Entry, error) {
			return w.Entry(vfstest.Mknod, d, u32(unix.S_IFIFO|0o622, 0, 0, 0), name("p"))
		}, 1001, 0o622},
		{"link", w.root, func(d uint64) (vfstest.Entry, error) {
			return w.Entry(vfstest.Symlink, d, name("l"), name("text"))
		}, 1001, 0o777},
		{"file without a name", w.root, func(d uint64) (vfstest.Entry, error) {
			b, err := w.Call(vfstest.Tmpfile, d, 144, u32(unix.O_RDWR, 0o640, 0, 0), name("/"))
			if err != nil {
				return vfstest.Entry{}, err
			}
			return vfstest.ParseEntry(b), nil
		}, 1001, 0o640},
	} {
		e, err := c.call(c.dir)
		if err != nil || e.UID != 1000 || e.GID != c.gid || e.Mode&0o7777 != c.mode {
			t.Errorf("%s: owner %d:%d mode %#o, want 1000:%d %#o, %v", c.what, e.UID, e.GID, e.Mode, c.gid, c.mode, err)
		}
	}
}

func TestSync(t *testing.T) {
	w := newWorld(t, vfs.Config{}, vfs.PrivateOptions())
	export(t, w.fs, "file", filepath.Join(w.top, "secret"), vfs.SharedOptions())
	w.create(t, w.root, "f", "data")
	for range 2 {
		if _, err := w.Call(vfstest.Syncfs, vfstest.Root, 0, vfstest.U64(0)); err != nil {
			t.Error(err)
		}
	}
}

func TestStatfs(t *testing.T) {
	w := newWorld(t, vfs.Config{}, vfs.PrivateOptions())
	var host unix.Statfs_t
	mustDo(t, unix.Statfs(w.dir, &host))
	for _, c := range []struct {
		node   uint64
		blocks uint64
	}{{vfstest.Root, 0}, {w.root, host.Blocks}} {
		b, err := w.Call(vfstest.Statfs, c.node, 80)
		if err != nil || binary.LittleEndian.Uint64(b) != c.blocks {
			t.Errorf("node %d: %x, %v, want %d blocks", c.node, b, err, c.blocks)
		}
	}
}
