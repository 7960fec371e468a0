// SPDX-License-Identifier: Apache-2.0

package vfs_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/backend/vfs"
	"github.com/xcontainer/xcontainer/pkg/backend/vfs/vfstest"
)

func TestInit(t *testing.T) {
	fs := newFS(t, vfs.Config{})
	c := &vfstest.Client{Do: vfs.NewServer(fs, testPages, t.Logf).Handle}
	if _, err := c.Call(vfstest.Getattr, vfstest.Root, 104, vfstest.U64(0, 0)); !errors.Is(err, unix.EIO) {
		t.Errorf("before INIT: %v", err)
	}
	for _, c2 := range []struct {
		what  string
		patch []byte
	}{{"major 8", vfstest.U32(8, 41)}, {"minor 27", vfstest.U32(7, 27)}} {
		body := vfstest.InitBody()
		copy(body, c2.patch)
		if _, err := c.Call(vfstest.Init, 0, 64, body); !errors.Is(err, unix.EPROTO) {
			t.Errorf("%s: %v", c2.what, err)
		}
	}
	if _, err := c.Call(vfstest.Init, 0, 20, vfstest.InitBody()); !errors.Is(err, unix.EIO) {
		t.Errorf("no room for the reply: %v", err)
	}
	flags, maxWrite, err := c.Mount()
	mustDo(t, err)
	if maxWrite != testPages*4096 {
		t.Errorf("max_write %d", maxWrite)
	}
	for _, f := range []struct {
		name string
		bit  int
		want bool
	}{
		{"ATOMIC_O_TRUNC", 3, true}, {"POSIX_LOCKS", 1, false}, {"FLOCK_LOCKS", 10, false}, {"PARALLEL_DIROPS", 18, true},
		{"WRITEBACK_CACHE", 16, false}, {"POSIX_ACL", 20, false}, {"HANDLE_KILLPRIV_V2", 28, true}, {"SECURITY_CTX", 32, false},
		{"PASSTHROUGH", 37, false}, {"MAX_PAGES", 22, true}, {"EXPORT_SUPPORT", 4, false}, {"DONT_MASK", 6, false},
	} {
		if got := flags>>f.bit&1 != 0; got != f.want {
			t.Errorf("FUSE_%s is %v", f.name, got)
		}
	}
	if _, _, err := c.Mount(); !errors.Is(err, unix.EBUSY) {
		t.Errorf("second INIT: %v", err)
	}
	if _, err := c.Call(vfstest.Destroy, 0, 0); err != nil {
		t.Errorf("DESTROY: %v", err)
	}
	if _, _, err := c.Mount(); err != nil {
		t.Errorf("INIT after DESTROY: %v", err)
	}
}

func TestFormOfRequests(t *testing.T) {
	w := newWorld(t, vfs.Config{}, vfs.PrivateOptions())
	f, fh, err := w.CreateFile(w.root, "f", unix.O_RDWR, 0o644)
	mustDo(t, err)
	u32, u64 := vfstest.U32, vfstest.U64
	read := append(u64(fh, 0), append(u32(4096, 0), append(u64(0), u32(0, 0)...)...)...)
	request := func(op uint32, node uint64, body ...byte) []byte {
		return append(w.Header(op, 7, node, 40+len(body)), body...)
	}
	with := func(b []byte, off int, v ...byte) []byte {
		b = append([]byte(nil), b...)
		copy(b[off:], v)
		return b
	}
	getattr := request(vfstest.Getattr, f.Node, u64(0, 0)...)
	for _, c := range []struct {
		what   string
		req    []byte
		room   int
		unique uint64
		err    error
	}{
		{"empty", nil, 16, 0, unix.EIO},
		{"8 bytes", getattr[:8], 100, 0, unix.EIO},
		{"39 bytes", getattr[:39], 100, 7, unix.EIO},
		{"header only", getattr[:40], 120, 7, unix.EINVAL},
		{"length too large", with(getattr, 0, u32(57)...), 120, 7, unix.EINVAL},
		{"length too small", with(getattr, 0, u32(55)...), 120, 7, unix.EINVAL},
		{"extension", with(getattr, 36, 1), 120, 7, unix.EINVAL},
		{"node of all ones", with(getattr, 16, u64(^uint64(0))...), 120, 7, unix.EINVAL},
		{"no room for the attributes", getattr, 119, 7, unix.EIO},
		{"unknown opcode", request(4242, f.Node), 16, 7, unix.ENOSYS},
		{"opcode 0", request(0, f.Node), 16, 7, unix.ENOSYS},
		{"interrupt", request(vfstest.Interrupt, 0, u64(1)...), 16, 7, unix.ENOSYS},
		{"ioctl", request(vfstest.Ioctl, f.Node, make([]byte, 32)...), 100, 7, unix.ENOSYS},
		{"lock", request(vfstest.Getlk, f.Node, make([]byte, 48)...), 100, 7, unix.ENOSYS},
		{"name without NUL", request(vfstest.Lookup, w.root, 'f'), 200, 7, unix.EINVAL},
		{"two names", request(vfstest.Lookup, w.root, 'f', 0, 'g', 0), 200, 7, unix.EINVAL},
		{"rename with one name", request(vfstest.Rename, w.root, append(u64(w.root), 'f', 0)...), 16, 7, unix.EINVAL},
		{"read without room", request(vfstest.Read, f.Node, read...), 16 + 4095, 7, unix.EINVAL},
		{"read too much", request(vfstest.Read, f.Node, with(read, 16, u32(testPages*4096+1)...)...), 1 << 20, 7, unix.EINVAL},
		{"write of less than it says", request(vfstest.Write, f.Node, append(with(read, 16, u32(5)...), 1, 2, 3, 4)...), 24, 7, unix.EINVAL},
		{"write of more than it says", request(vfstest.Write, f.Node, append(with(read, 16, u32(3)...), 1, 2, 3, 4)...), 24, 7, unix.EINVAL},
		{"setxattr of less than it says", request(vfstest.Setxattr, f.Node, append(u32(9, 0), "user.a\x00val"...)...), 16, 7, unix.EINVAL},
		{"oversized request", request(vfstest.Symlink, w.root, make([]byte, 200<<10)...), 200, 7, unix.E2BIG},
		{"long link text", request(vfstest.Symlink, w.root, append([]byte("n\x00"), append(bytesOf('t', 4096), 0)...)...), 200, 7, unix.ENAMETOOLONG},
		{"forget without node", request(vfstest.Forget, f.Node), 0, 0, nil},
		{"batch forget that lies", request(vfstest.BatchForg, 0, append(u32(1000, 0), u64(99, 1)...)...), 0, 0, nil},
		{"no room for any reply", getattr, 15, 0, nil},
	} {
		out := make([]byte, c.room)
		n := w.Do(vfstest.Pages(c.req), vfstest.Pages(out))
		if c.err == nil {
			if n != 0 {
				t.Errorf("%s: answered with %d bytes", c.what, n)
			}
			continue
		}
		if _, err := vfstest.Parse(out[:n], c.unique); !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", c.what, err, c.err)
		}
	}
}

func bytesOf(b byte, n int) []byte {
	s := make([]byte, n)
	for i := range s {
		s[i] = b
	}
	return s
}

// TestChangingRequest changes a request's name while it is carried out: it is
// one of the two, or refused, but never the mixture that escapes.
func TestChangingRequest(t *testing.T) {
	w := newWorld(t, vfs.Config{}, vfs.PrivateOptions())
	before := tree(t, w.top)
	name := []byte("../secret\x00")
	req := append(w.Header(vfstest.Unlink, 7, w.root, 40+len(name)), name...)
	words := len(req) - len(name)
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; !stop.Load(); i++ {
			racyStore(req, words+2, "/a"[i&1]) // "../secret" and "..asecret"
		}
	})
	for range 20000 {
		w.Do([][]byte{req}, [][]byte{make([]byte, 16)})
	}
	stop.Store(true)
	wg.Wait()
	if after := tree(t, w.top); after != before {
		t.Errorf("the host changed from\n%s\nto\n%s", before, after)
	}
}

// TestRaces has the host swap a directory for a link to the outside, and a file
// for a fifo, while the guest opens what it finds there.
func TestRaces(t *testing.T) {
	w := newWorld(t, vfs.Config{NodeFDs: 4}, vfs.SharedOptions())
	at := func(name string) string { return filepath.Join(w.dir, name) }
	mustDo(t, os.Mkdir(at("d"), 0o755))
	mustDo(t, os.WriteFile(at("d/secret"), []byte("inside"), 0o644))
	mustDo(t, os.Symlink("../outside", at("l")))
	mustDo(t, os.WriteFile(at("f"), []byte("inside"), 0o644))
	mustDo(t, unix.Mkfifo(at("p"), 0o644))
	var stop atomic.Bool
	var wg sync.WaitGroup
	swap := func(a, b string) {
		wg.Go(func() {
			for !stop.Load() {
				unix.Renameat2(unix.AT_FDCWD, at(a), unix.AT_FDCWD, at(b), unix.RENAME_EXCHANGE)
			}
		})
	}
	swap("d", "l")
	swap("f", "p")
	reads := 0
	for range 3000 {
		for _, path := range [][]string{{"x", "d", "secret"}, {"x", "f"}} {
			e, err := w.Walk(path...)
			if err != nil {
				continue
			}
			fh, err := w.OpenFile(vfstest.Open, e.Node, unix.O_RDWR)
			if err != nil {
				continue
			}
			got, err := w.ReadAt(e.Node, fh, 0, 100)
			if err == nil && string(got) != "inside" {
				t.Fatalf("%v: read %q", path, got)
			}
			reads++
			mustDo(t, w.Close(vfstest.Release, e.Node, fh))
		}
	}
	stop.Store(true)
	wg.Wait()
	if reads == 0 {
		t.Error("nothing was read")
	}
}

// FuzzHandle feeds arbitrary requests after a good mount. Whatever they are, the
// reply is well-formed and the host outside the export is as before.
func FuzzHandle(f *testing.F) {
	u32, u64 := vfstest.U32, vfstest.U64
	c := &vfstest.Client{}
	seed := func(op uint32, node uint64, parts ...[]byte) {
		var body []byte
		for _, p := range parts {
			body = append(body, p...)
		}
		f.Add(append(c.Header(op, 7, node, 40+len(body)), body...), uint16(4096))
	}
	name := vfstest.Name
	const root = 2 // the export's
	seed(vfstest.Init, 0, vfstest.InitBody())
	seed(vfstest.Destroy, 0)
	seed(vfstest.Lookup, root, name("f"))
	seed(vfstest.Lookup, root, name("../secret"))
	seed(vfstest.Forget, root, u64(1))
	seed(vfstest.BatchForg, 0, u32(1, 0), u64(root, 1))
	seed(vfstest.Getattr, root, u64(0, 0))
	seed(vfstest.Setattr, root, u32(1, 0), u64(0, 0, 0, 0, 0, 0), u32(0, 0, 0, 0o700, 0, 0, 0, 0))
	seed(vfstest.Symlink, root, name("l"), name("/"))
	seed(vfstest.Mknod, root, u32(unix.S_IFIFO|0o600, 0, 0, 0), name("p"))
	seed(vfstest.Mkdir, root, u32(0o700, 0), name("d"))
	seed(vfstest.Rename2, root, u64(root), u32(2, 0), name("f"), name("g"))
	seed(vfstest.Link, root, u64(root), name("h"))
	seed(vfstest.Create, root, u32(unix.O_RDWR, 0o600, 0, 0), name("c"))
	seed(vfstest.Tmpfile, root, u32(unix.O_RDWR, 0o600, 0, 0), name("/"))
	seed(vfstest.Read, root, u64(1, 0), u32(100, 0), u64(0), u32(0, 0))
	seed(vfstest.Write, root, u64(1, 0), u32(3, 0), u64(0), u32(0, 0), []byte("abc"))
	seed(vfstest.Setxattr, root, u32(1, 0), name("user.x"), []byte("y"))
	seed(vfstest.Getxattr, root, u32(10, 0), name("user.x"))
	seed(vfstest.Listxattr, root, u32(10, 0))
	seed(vfstest.Readdirpl, root, u64(1, 0), u32(100, 0), u64(0), u32(0, 0))
	seed(vfstest.Lseek, root, u64(1, 0), u32(3, 0))
	seed(vfstest.Statfs, root)

	w := newWorld(f, vfs.Config{}, vfs.PrivateOptions())
	outside := filepath.Join(w.top, "outside")
	before := tree(f, outside)
	f.Fuzz(func(t *testing.T, req []byte, room uint16) {
		w.Do([][]byte{w.Header(vfstest.Destroy, 1, 0, 40)}, nil)
		if _, _, err := w.Mount(); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Walk("x"); err != nil {
			t.Fatal(err)
		}
		fh, err := w.OpenFile(vfstest.Opendir, w.root, 0)
		if err != nil {
			t.Fatal(err)
		}
		for i := 40; i+8 <= len(req) && i == 40; i++ {
			if req[i] == 1 { // the seeds' handle
				req = append(append(append([]byte(nil), req[:40]...), u64(fh)...), req[48:]...)
			}
		}
		out := make([]byte, room)
		n := w.Do(vfstest.Pages(req), vfstest.Pages(out))
		if n == 0 {
			return
		}
		unique := uint64(0)
		if len(req) >= 16 {
			unique = uint64(req[8]) | uint64(req[9])<<8 | uint64(req[10])<<16 | uint64(req[11])<<24 |
				uint64(req[12])<<32 | uint64(req[13])<<40 | uint64(req[14])<<48 | uint64(req[15])<<56
		}
		if _, err := vfstest.Parse(out[:n], unique); err != nil {
			if _, ok := errors.AsType[unix.Errno](err); !ok {
				t.Fatal(err)
			}
		}
		if after := tree(t, outside); after != before {
			t.Fatalf("the outside changed from\n%s\nto\n%s", before, after)
		}
	})
}
