// SPDX-License-Identifier: Apache-2.0

package vfs_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/backend/vfs"
	"github.com/xcontainer/xcontainer/pkg/backend/vfs/vfstest"
)

// world is a host directory tree with an export in it and things around the
// export that a guest must not reach.
type world struct {
	*vfstest.Client
	fs   *vfs.FS
	top  string // holds secret, a file, and outside, a directory with a file
	dir  string // the export "x", beside them
	root uint64 // its node
}

func newWorld(t testing.TB, cfg vfs.Config, opts vfs.Options) *world {
	t.Helper()
	w := &world{Client: &vfstest.Client{}, fs: newFS(t, cfg), top: t.TempDir()}
	w.dir = filepath.Join(w.top, "x")
	mustDo(t, os.Mkdir(w.dir, 0o755))
	mustDo(t, os.Mkdir(filepath.Join(w.top, "outside"), 0o755))
	mustDo(t, os.WriteFile(filepath.Join(w.top, "secret"), []byte("secret"), 0o600))
	mustDo(t, os.WriteFile(filepath.Join(w.top, "outside/secret"), []byte("secret"), 0o600))
	export(t, w.fs, "x", w.dir, opts)
	w.Do = vfs.NewServer(w.fs, testPages, t.Logf).Handle
	if _, _, err := w.Mount(); err != nil {
		t.Fatal(err)
	}
	e, err := w.Walk("x")
	mustDo(t, err)
	w.root = e.Node
	return w
}

func mustDo(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tree describes everything below dir: names, modes, sizes, link texts.
func tree(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		link, _ := os.Readlink(path)
		data := []byte(nil)
		if info.Mode().IsRegular() {
			data, err = os.ReadFile(path)
		}
		fmt.Fprintf(&b, "%s %v %q %q\n", path, info.Mode(), link, data)
		return err
	})
	mustDo(t, err)
	return b.String()
}

// naming is a request that takes a name, or two.
type naming struct {
	what string
	op   uint32
	node uint64
	args []byte
	pre  string // a first, good name
	post string // a second, good name
}

func (w *world) namings(file uint64) []naming {
	u32, u64 := vfstest.U32, vfstest.U64
	return []naming{
		{what: "lookup", op: vfstest.Lookup, node: w.root},
		{what: "mkdir", op: vfstest.Mkdir, node: w.root, args: u32(0o755, 0)},
		{what: "mknod", op: vfstest.Mknod, node: w.root, args: u32(unix.S_IFREG|0o644, 0, 0, 0)},
		{what: "symlink", op: vfstest.Symlink, node: w.root, post: "text"},
		{what: "unlink", op: vfstest.Unlink, node: w.root},
		{what: "rmdir", op: vfstest.Rmdir, node: w.root},
		{what: "link", op: vfstest.Link, node: w.root, args: u64(file)},
		{what: "create", op: vfstest.Create, node: w.root, args: u32(unix.O_RDWR, 0o644, 0, 0)},
		{what: "rename from", op: vfstest.Rename, node: w.root, args: u64(w.root), post: "new"},
		{what: "rename to", op: vfstest.Rename, node: w.root, args: u64(w.root), pre: "file"},
		{what: "rename2 from", op: vfstest.Rename2, node: w.root, args: append(u64(w.root), u32(0, 0)...), post: "new"},
		{what: "rename2 to", op: vfstest.Rename2, node: w.root, args: append(u64(w.root), u32(2, 0)...), pre: "file"},
		{what: "lookup in the synthetic root", op: vfstest.Lookup, node: vfstest.Root},
		{what: "mkdir in the synthetic root", op: vfstest.Mkdir, node: vfstest.Root, args: u32(0o755, 0)},
	}
}

// request returns the request's bytes with name in its place, which may hold
// anything.
func (n naming) body(name string) []byte {
	b := append([]byte(nil), n.args...)
	for _, s := range []string{n.pre, name, n.post} {
		if s != "" || s == name {
			b = append(b, vfstest.Name(s)...)
		}
	}
	return b
}

func TestHostileNames(t *testing.T) {
	w := newWorld(t, vfs.Config{}, vfs.PrivateOptions())
	mustDo(t, os.WriteFile(filepath.Join(w.dir, "file"), nil, 0o644))
	file, err := w.Walk("x", "file")
	mustDo(t, err)
	before := tree(t, w.top)
	long := strings.Repeat("n", 256)
	// Paths lead to the test's own file only: a broken check must not cost the
	// machine that runs the test a file of its own.
	outside := filepath.Join(w.top, "secret")
	for _, n := range w.namings(file.Node) {
		for _, name := range []string{
			"..", ".", "/", "a/b", "../secret", "../../secret", outside, "file/", "./file", "..\x00", "file\x00x",
			"../x/file", long, strings.Repeat("../", 40) + outside[1:], ".go-fuse-epoll-hack",
		} {
			if n.node == vfstest.Root || !strings.HasPrefix(name, ".go") {
				if b, err := w.Call(n.op, n.node, 160, n.body(name)); err == nil {
					t.Errorf("%s %.20q: answered with %d bytes", n.what, name, len(b))
				} else if _, ok := errors.AsType[unix.Errno](err); !ok {
					t.Errorf("%s %.20q: %v", n.what, name, err)
				}
			}
		}
		if b, err := w.Call(n.op, n.node, 160, n.body("")); err == nil {
			t.Errorf("%s with an empty name: answered with %d bytes", n.what, len(b))
		}
	}
	if after := tree(t, w.top); after != before {
		t.Errorf("the host changed from\n%s\nto\n%s", before, after)
	}
}

func TestSymlinksAreNotFollowed(t *testing.T) {
	w := newWorld(t, vfs.Config{}, vfs.PrivateOptions())
	for name, text := range map[string]string{
		"abs": "/", "up": "../outside", "file": "../secret", "chain1": "chain2", "chain2": "up", "self": "self", "dot": ".",
	} {
		if _, err := w.Entry(vfstest.Symlink, w.root, vfstest.Name(name), vfstest.Name(text)); err != nil {
			t.Fatal(err)
		}
	}
	before := tree(t, w.top)
	for _, name := range []string{"abs", "up", "file", "chain1", "self", "dot"} {
		e, err := w.Walk("x", name)
		if err != nil || e.Mode&unix.S_IFMT != unix.S_IFLNK {
			t.Errorf("%s: mode %#o, %v", name, e.Mode, err)
			continue
		}
		u32 := vfstest.U32
		for _, c := range []struct {
			what string
			err  error
			call func() error
		}{
			{"open", unix.ELOOP, func() error { _, err := w.OpenFile(vfstest.Open, e.Node, unix.O_RDWR); return err }},
			{"opendir", unix.ENOTDIR, func() error { _, err := w.OpenFile(vfstest.Opendir, e.Node, 0); return err }},
			{"lookup below", unix.ENOTDIR, func() error { _, err := w.Entry(vfstest.Lookup, e.Node, vfstest.Name("secret")); return err }},
			{"mkdir below", unix.ENOTDIR, func() error {
				_, err := w.Entry(vfstest.Mkdir, e.Node, u32(0o755, 0), vfstest.Name("d"))
				return err
			}},
			{"create over", unix.ELOOP, func() error { _, _, err := w.CreateFile(w.root, name, unix.O_RDWR, 0o644); return err }},
			{"create below", unix.ENOTDIR, func() error { _, _, err := w.CreateFile(e.Node, "n", unix.O_RDWR, 0o644); return err }},
			{"truncate", unix.EINVAL, func() error { return w.setattr(e.Node, 1<<3, 0) }},
			{"chmod", unix.EOPNOTSUPP, func() error { return w.setattr(e.Node, 1<<0, 0o777) }},
			{"getxattr", unix.ENODATA, func() error {
				_, err := w.Call(vfstest.Getxattr, e.Node, 100, u32(100, 0), vfstest.Name("user.x"))
				return err
			}},
		} {
			if err := c.call(); !errors.Is(err, c.err) {
				t.Errorf("%s %s: %v, want %v", c.what, name, err, c.err)
			}
		}
	}
	if after := tree(t, w.top); after != before {
		t.Errorf("the host changed from\n%s\nto\n%s", before, after)
	}
}

// setattr sends SETATTR with one value, which is both size and mode.
func (c *world) setattr(node uint64, valid, value uint32) error {
	_, err := c.Call(vfstest.Setattr, node, 104, vfstest.U32(valid, 0), vfstest.U64(0, uint64(value), 0, 0, 0, 0),
		vfstest.U32(0, 0, 0, value, 0, 0, 0, 0))
	return err
}

func TestSpecialFilesAreNotOpened(t *testing.T) {
	w := newWorld(t, vfs.Config{}, vfs.PrivateOptions())
	const zero = 1<<8 | 5 // /dev/zero
	for name, arg := range map[string][2]uint32{
		"fifo": {unix.S_IFIFO | 0o666, 0}, "sock": {unix.S_IFSOCK | 0o666, 0},
		"chr": {unix.S_IFCHR | 0o666, zero}, "blk": {unix.S_IFBLK | 0o666, 7<<8 | 0},
	} {
		e, err := w.Entry(vfstest.Mknod, w.root, vfstest.U32(arg[0], arg[1], 0, 0), vfstest.Name(name))
		if err != nil || e.Mode != arg[0] {
			t.Errorf("mknod %s: mode %#o, %v", name, e.Mode, err)
			continue
		}
		// An open would wait for the other end, answer ENXIO from a driver's
		// own mouth or succeed; the device that exists tells them apart.
		for _, flags := range []uint32{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR | unix.O_NONBLOCK, unix.O_TRUNC | unix.O_RDWR} {
			if _, err := w.OpenFile(vfstest.Open, e.Node, flags); !errors.Is(err, unix.ENXIO) {
				t.Errorf("open %s with %#x: %v", name, flags, err)
			}
			if _, _, err := w.CreateFile(w.root, name, flags, 0o666); !errors.Is(err, unix.ENXIO) {
				t.Errorf("create over %s with %#x: %v", name, flags, err)
			}
		}
		if err := w.setattr(e.Node, 1<<3, 0); !errors.Is(err, unix.EINVAL) {
			t.Errorf("truncate %s: %v", name, err)
		}
		if err := w.setattr(e.Node, 1<<0, 0o600); err != nil {
			t.Errorf("chmod %s: %v", name, err)
		}
		if _, err := w.Call(vfstest.Unlink, w.root, 0, vfstest.Name(name)); err != nil {
			t.Errorf("unlink %s: %v", name, err)
		}
	}
}

func TestExportsStayApart(t *testing.T) {
	w := newWorld(t, vfs.Config{}, vfs.PrivateOptions())
	export(t, w.fs, "y/z", filepath.Join(w.top, "outside"), vfs.SharedOptions())
	export(t, w.fs, "y/again", w.dir, vfs.SharedOptions())
	mustDo(t, os.WriteFile(filepath.Join(w.dir, "f"), []byte("f"), 0o644))
	f, err := w.Walk("x", "f")
	mustDo(t, err)
	z, err := w.Walk("y", "z")
	mustDo(t, err)
	if z.EntryTTL != 0 || z.EntryNsec != 0 {
		t.Errorf("the name of an export may be kept for %d.%09d s", z.EntryTTL, z.EntryNsec)
	}
	if _, err := w.Entry(vfstest.Link, z.Node, vfstest.U64(f.Node), vfstest.Name("l")); !errors.Is(err, unix.EXDEV) {
		t.Errorf("link to another export: %v", err)
	}
	_, err = w.Call(vfstest.Rename, w.root, 0, vfstest.U64(z.Node), vfstest.Name("f"), vfstest.Name("f"))
	if !errors.Is(err, unix.EXDEV) {
		t.Errorf("rename to another export: %v", err)
	}
	same, err := w.Walk("y", "again", "f")
	mustDo(t, err)
	if same.Ino == f.Ino || same.Node == f.Node {
		t.Errorf("one file in two exports: inode %#x and %#x, node %#x and %#x", f.Ino, same.Ino, f.Node, same.Node)
	}
	again, err := w.Walk("x", "f")
	mustDo(t, err)
	if again.Ino != f.Ino || again.Node != f.Node {
		t.Errorf("looked up twice: inode %#x and %#x, node %#x and %#x", f.Ino, again.Ino, f.Node, again.Node)
	}
	names, err := w.List(vfstest.Root)
	mustDo(t, err)
	sort.Strings(names)
	if got := strings.Join(names, " "); got != ". .. x y" {
		t.Errorf("root holds %s", got)
	}
	for _, name := range []string{"", "/", "x/", "/x", "x/y", "y", "x", "..", "y/../x", "a\x00", strings.Repeat("d/", 9) + "e"} {
		fd, err := unix.Open(w.dir, unix.O_PATH, 0)
		mustDo(t, err)
		if err := w.fs.Add(name, os.NewFile(uintptr(fd), w.dir), vfs.Options{}); !errors.Is(err, vfs.ErrName) && !errors.Is(err, vfs.ErrExists) {
			t.Errorf("add %q: %v", name, err)
		}
	}
	if err := w.fs.Remove("y"); !errors.Is(err, vfs.ErrUnknown) {
		t.Errorf("remove a directory of exports: %v", err)
	}
}

func TestReadOnly(t *testing.T) {
	opts := vfs.SharedOptions()
	opts.ReadOnly = true
	w := newWorld(t, vfs.Config{}, opts)
	mustDo(t, os.WriteFile(filepath.Join(w.dir, "file"), []byte("data"), 0o644))
	before := tree(t, w.top)
	file, err := w.Walk("x", "file")
	mustDo(t, err)
	for _, n := range w.namings(file.Node) {
		if n.op == vfstest.Lookup {
			continue
		}
		if _, err := w.Call(n.op, n.node, 160, n.body("good")); !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: %v", n.what, err)
		}
	}
	for _, flags := range []uint32{unix.O_WRONLY, unix.O_RDWR, unix.O_RDONLY | unix.O_TRUNC} {
		if _, err := w.OpenFile(vfstest.Open, file.Node, flags); !errors.Is(err, unix.EROFS) {
			t.Errorf("open with %#x: %v", flags, err)
		}
	}
	if err := w.setattr(file.Node, 1, 0o777); !errors.Is(err, unix.EROFS) {
		t.Errorf("chmod: %v", err)
	}
	_, err = w.Call(vfstest.Setxattr, file.Node, 0, vfstest.U32(1, 0), vfstest.Name("user.x"), []byte("y"))
	if !errors.Is(err, unix.EROFS) {
		t.Errorf("setxattr: %v", err)
	}
	fh, err := w.OpenFile(vfstest.Open, file.Node, unix.O_RDONLY)
	mustDo(t, err)
	if _, err := w.WriteAt(file.Node, fh, 0, []byte("x"), 0); !errors.Is(err, unix.EBADF) {
		t.Errorf("write: %v", err)
	}
	if got, err := w.ReadAt(file.Node, fh, 0, 100); err != nil || string(got) != "data" {
		t.Errorf("read: %q, %v", got, err)
	}
	if after := tree(t, w.top); after != before {
		t.Errorf("the host changed from\n%s\nto\n%s", before, after)
	}
}

func TestForgedNumbers(t *testing.T) {
	w := newWorld(t, vfs.Config{}, vfs.PrivateOptions())
	a, fh, err := w.CreateFile(w.root, "a", unix.O_RDWR, 0o644)
	mustDo(t, err)
	b, _, err := w.CreateFile(w.root, "b", unix.O_RDONLY, 0o644)
	mustDo(t, err)
	for _, node := range []uint64{0, 2, 1 << 32, w.root | 1<<32, 1 << 63, ^uint64(0) - 1} {
		if node == w.root {
			continue
		}
		if _, err := w.Call(vfstest.Getattr, node, 104, vfstest.U64(0, 0)); err == nil && node != 2 {
			t.Errorf("getattr of node %#x succeeds", node)
		}
	}
	for _, c := range []struct{ node, fh uint64 }{{a.Node, fh + 9}, {a.Node, 0}, {b.Node, fh}, {vfstest.Root, fh}, {a.Node, ^uint64(0)}} {
		if _, err := w.ReadAt(c.node, c.fh, 0, 10); !errors.Is(err, unix.EBADF) {
			t.Errorf("read node %#x handle %#x: %v", c.node, c.fh, err)
		}
		if _, err := w.WriteAt(c.node, c.fh, 0, []byte("x"), 0); !errors.Is(err, unix.EBADF) {
			t.Errorf("write node %#x handle %#x: %v", c.node, c.fh, err)
		}
	}
	if _, err := w.ReadAt(a.Node, fh, 1<<63, 10); !errors.Is(err, unix.EINVAL) {
		t.Errorf("read at 2^63: %v", err)
	}
	// More references than were given out must not take a node away twice.
	for range 3 {
		req := append(w.Header(vfstest.Forget, 1, a.Node, 48), vfstest.U64(1<<40)...)
		if n := w.Do(vfstest.Pages(req), nil); n != 0 {
			t.Errorf("forget answered with %d bytes", n)
		}
	}
	if _, err := w.ReadAt(a.Node, fh, 0, 10); err != nil {
		t.Errorf("open file of a forgotten node: %v", err)
	}
	req := append(w.Header(vfstest.Forget, 1, w.root, 48), vfstest.U64(1<<40)...)
	w.Do(vfstest.Pages(req), nil)
	if _, err := w.Entry(vfstest.Lookup, w.root, vfstest.Name("b")); err != nil {
		t.Errorf("root of an export after forget: %v", err)
	}
}

func TestXattrFilter(t *testing.T) {
	w := newWorld(t, vfs.Config{}, vfs.PrivateOptions())
	path := filepath.Join(w.dir, "f")
	mustDo(t, os.WriteFile(path, nil, 0o644))
	mustDo(t, unix.Setxattr(path, "user.a", []byte("1"), 0))
	mustDo(t, unix.Setxattr(path, "trusted.host", []byte("1"), 0))
	f, err := w.Walk("x", "f")
	mustDo(t, err)
	set := func(name string, val []byte) error {
		_, err := w.Call(vfstest.Setxattr, f.Node, 0, vfstest.U32(uint32(len(val)), 0), vfstest.Name(name), val)
		return err
	}
	for _, name := range []string{"trusted.x", "security.selinux", "system.posix_acl_access", "system.posix_acl_default", "user.", "x", ""} {
		if err := set(name, []byte("v")); !errors.Is(err, unix.EOPNOTSUPP) {
			t.Errorf("set %q: %v", name, err)
		}
		if _, err := w.Call(vfstest.Getxattr, f.Node, 100, vfstest.U32(100, 0), vfstest.Name(name)); !errors.Is(err, unix.EOPNOTSUPP) {
			t.Errorf("get %q: %v", name, err)
		}
		if _, err := w.Call(vfstest.Removexatt, f.Node, 0, vfstest.Name(name)); !errors.Is(err, unix.EOPNOTSUPP) {
			t.Errorf("remove %q: %v", name, err)
		}
	}
	big := bytes.Repeat([]byte("b"), 2000)
	mustDo(t, set("user.big", big))
	got, err := w.Call(vfstest.Getxattr, f.Node, 4096, vfstest.U32(4096, 0), vfstest.Name("user.big"))
	if err != nil || !bytes.Equal(got, big) {
		t.Errorf("get user.big: %d bytes, %v", len(got), err)
	}
	if _, err := w.Call(vfstest.Getxattr, f.Node, 10, vfstest.U32(10, 0), vfstest.Name("user.big")); !errors.Is(err, unix.ERANGE) {
		t.Errorf("get user.big into 10 bytes: %v", err)
	}
	if got, err := w.Call(vfstest.Getxattr, f.Node, 8, vfstest.U32(0, 0), vfstest.Name("user.big")); err != nil || binary.LittleEndian.Uint32(got) != 2000 {
		t.Errorf("size of user.big: %v, %v", got, err)
	}
	got, err = w.Call(vfstest.Listxattr, f.Node, 4096, vfstest.U32(4096, 0))
	names := strings.Split(strings.TrimSuffix(string(got), "\x00"), "\x00")
	sort.Strings(names)
	if err != nil || strings.Join(names, " ") != "user.a user.big" {
		t.Errorf("list: %q, %v", names, err)
	}
}
