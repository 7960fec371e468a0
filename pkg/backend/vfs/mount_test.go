// SPDX-License-Identifier: Apache-2.0

package vfs_test

import (
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

const testPages = 124 // docs/noxs.md 7: a queue of 128 less 4

// newFS returns a file system that the test's end closes.
func newFS(t testing.TB, cfg vfs.Config) *vfs.FS {
	t.Helper()
	fs, err := vfs.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fs.Close() })
	return fs
}

// export adds the file or directory at path.
func export(t testing.TB, fs *vfs.FS, name, path string, opts vfs.Options) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := fs.Add(name, os.NewFile(uintptr(fd), path), opts); err != nil {
		t.Fatal(err)
	}
}

// mount mounts fs through this machine's kernel and returns where. Requests go
// through Server.Handle, as they do from a queue, in buffers of one page each.
func mount(t testing.TB, fs *vfs.FS) string {
	t.Helper()
	dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		t.Skip("no /dev/fuse: load the module fuse")
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other", dev)
	if err := unix.Mount("xcontainer", dir, "fuse", 0, data); err != nil {
		unix.Close(dev)
		if errors.Is(err, unix.EPERM) {
			t.Skip("mounting is not permitted: run as root")
		}
		t.Fatal(err)
	}
	srv := vfs.NewServer(fs, testPages, t.Logf)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { serve(dev, srv) })
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
			unix.Unmount(dir, unix.MNT_DETACH)
		}
		wg.Wait()
		unix.Close(dev)
	})
	usePollOnce(t, fs, dir)
	return dir
}

// usePollOnce makes the kernel learn that there is no FUSE_POLL. The Go runtime
// adds files to its epoll set by a system call that it takes for one that never
// waits, and would wait for us with no thread left to run us on.
func usePollOnce(t testing.TB, fs *vfs.FS, dir string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "poll")
	mustDo(t, os.WriteFile(file, nil, 0o600))
	export(t, fs, "poll", file, vfs.SharedOptions())
	fd, err := unix.Open(filepath.Join(dir, "poll"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	mustDo(t, err)
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
	mustDo(t, err)
	mustDo(t, unix.Close(fd))
	mustDo(t, fs.Remove("poll"))
}

func serve(dev int, srv *vfs.Server) {
	in, out := make([]byte, (testPages+2)*4096), make([]byte, (testPages+2)*4096)
	for {
		n, err := unix.Read(dev, in)
		if err == unix.EINTR || err == unix.EAGAIN || err == unix.ENOENT {
			continue
		}
		if err != nil { // ENODEV: unmounted
			return
		}
		if n := srv.Handle(vfstest.Pages(in[:n]), vfstest.Pages(out)); n > 0 {
			unix.Write(dev, out[:n])
		}
	}
}

func TestMountSmoke(t *testing.T) {
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "a"), []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	fs := newFS(t, vfs.Config{})
	export(t, fs, "c1/rootfs", host, vfs.PrivateOptions())
	export(t, fs, "c1/mounts/0", filepath.Join(host, "a"), vfs.SharedOptions())
	m := mount(t, fs)
	for _, name := range []string{"c1/rootfs/a", "c1/mounts/0"} {
		if got, err := os.ReadFile(filepath.Join(m, name)); err != nil || string(got) != "hello" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if err := os.WriteFile(filepath.Join(m, "c1/rootfs/b"), []byte("world"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(host, "b")); err != nil || string(got) != "world" {
		t.Errorf("b: %q, %v", got, err)
	}
	if err := fs.Remove("c1/rootfs"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(filepath.Join(m, "c1/rootfs/a")); err == nil {
		t.Error("file of a removed export can be read")
	}
	if err := fs.Remove("c1/mounts/0"); err != nil {
		t.Fatal(err)
	}
	if n := fs.Descriptors(); n != 0 {
		t.Errorf("%d descriptors are held with no export", n)
	}
}
