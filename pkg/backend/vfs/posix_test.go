// SPDX-License-Identifier: Apache-2.0

package vfs_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/backend/vfs"
)

// TestPosix runs the same steps on the host's file system and through a mount of
// it by this machine's kernel; both must say the same.
func TestPosix(t *testing.T) {
	fs := newFS(t, vfs.Config{NodeFDs: 8})
	host := t.TempDir()
	mustDo(t, os.Chmod(host, 0o755))
	export(t, fs, "root", host, vfs.PrivateOptions())
	served := filepath.Join(mount(t, fs), "root")
	native := t.TempDir()
	mustDo(t, os.Chmod(native, 0o755))
	for _, c := range posixCases {
		t.Run(c.what, func(t *testing.T) {
			var said [2]string
			for i, base := range []string{native, served} {
				dir := filepath.Join(base, strings.ReplaceAll(c.what, " ", "-"))
				mustDo(t, os.Mkdir(dir, 0o777))
				mustDo(t, os.Chmod(dir, 0o777))
				var b strings.Builder
				c.do(dir, func(args ...any) { fmt.Fprintln(&b, args...) })
				said[i] = strings.ReplaceAll(b.String(), dir, "DIR")
			}
			if said[0] != said[1] || said[0] == "" {
				t.Errorf("the host says\n%s\nand the mount\n%s", said[0], said[1])
			}
		})
	}
}

// describe is what lstat says, without inode number and times.
func describe(path string) string {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return err.Error()
	}
	size := st.Size
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		size = 0
	}
	return fmt.Sprintf("%#o links %d owner %d:%d device %#x size %d", st.Mode, st.Nlink, st.Uid, st.Gid, st.Rdev, size)
}

func inode(path string) uint64 {
	var st unix.Stat_t
	unix.Lstat(path, &st)
	return st.Ino
}

// asUser runs a shell command in dir without privileges.
func asUser(dir, script string) string {
	cmd := exec.Command("/bin/sh", "-c", "umask 022; "+script)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1234, Gid: 1235}}
	out, err := cmd.CombinedOutput()
	return fmt.Sprint(string(out), err)
}

var posixCases = []struct {
	what string
	do   func(d string, say func(...any))
}{
	{"links", func(d string, say func(...any)) {
		a, b, l := d+"/a", d+"/b", d+"/l"
		say(os.WriteFile(a, []byte("data"), 0o644), os.Link(a, b), describe(a), describe(b), inode(a) == inode(b))
		say(os.Remove(a), describe(a), describe(b))
		say(os.Symlink("/nowhere", l), describe(l), os.Link(l, d+"/l2"), describe(d+"/l2"))
		text, err := os.Readlink(d + "/l2")
		say(text, err)
		say(os.Symlink(strings.Repeat("x", 4095), d+"/long"), describe(d+"/long"))
		text, err = os.Readlink(d + "/long")
		say(len(text), err)
	}},
	{"unlinked but open", func(d string, say func(...any)) {
		f, err := os.OpenFile(d+"/f", os.O_RDWR|os.O_CREATE, 0o640)
		say(err, os.Remove(d+"/f"))
		_, err = f.WriteString("still here")
		say(err, f.Chmod(0o600), f.Chown(3, 4), f.Truncate(5))
		st, err := f.Stat()
		say(st.Size(), st.Mode(), st.Sys().(*syscall.Stat_t).Nlink, st.Sys().(*syscall.Stat_t).Uid, err)
		b := make([]byte, 20)
		n, err := f.ReadAt(b, 0)
		say(string(b[:n]), err, f.Close())
		g, err := os.Open(d)
		say(err, os.Mkdir(d+"/sub", 0o755))
		sub, err := os.Open(d + "/sub")
		say(err, os.Remove(d+"/sub"))
		names, err := sub.Readdirnames(-1)
		say(names, err, sub.Close(), g.Close())
	}},
	{"rename", func(d string, say func(...any)) {
		a, b := d+"/a", d+"/b"
		say(os.WriteFile(a, []byte("A"), 0o644), os.WriteFile(b, []byte("B"), 0o644))
		f, err := os.Open(b)
		say(err, os.Rename(a, b), describe(a), describe(b))
		buf := make([]byte, 1)
		_, err = f.Read(buf)
		st, _ := f.Stat()
		say(string(buf), err, st.Sys().(*syscall.Stat_t).Nlink, f.Close())
		say(os.Mkdir(d+"/dir", 0o755), os.WriteFile(d+"/dir/x", nil, 0o644))
		say(unix.Renameat2(unix.AT_FDCWD, b, unix.AT_FDCWD, d+"/dir", unix.RENAME_EXCHANGE), describe(b), describe(d+"/dir"), describe(b+"/x"))
		say(unix.Renameat2(unix.AT_FDCWD, b, unix.AT_FDCWD, d+"/dir", unix.RENAME_NOREPLACE))
		say(unix.Rename(b, b+"/x/y") != nil, unix.Rename(b, b+"/y"), unix.Rmdir(b))
	}},
	{"special files", func(d string, say func(...any)) {
		say(unix.Mkfifo(d+"/p", 0o640), describe(d+"/p"))
		say(unix.Mknod(d+"/c", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))), describe(d+"/c"))
		say(unix.Mknod(d+"/b", unix.S_IFBLK|0o600, int(unix.Mkdev(259, 300))), describe(d+"/b"))
		say(unix.Mknod(d+"/s", unix.S_IFSOCK|0o600, 0), describe(d+"/s"))
		say(os.Chmod(d+"/p", 0o622), os.Chown(d+"/c", 5, 6), describe(d+"/p"), describe(d+"/c"))
		say(unix.Lchown(d+"/b", 7, 8), describe(d+"/b"))
		f, err := os.OpenFile(d+"/p", os.O_RDWR, 0)
		say(err)
		_, err = f.WriteString("through the fifo")
		say(err, f.Close())
	}},
	{"append and mapped pages", func(d string, say func(...any)) {
		a, err := os.OpenFile(d+"/f", os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
		say(err)
		b, err := os.OpenFile(d+"/f", os.O_WRONLY|os.O_APPEND, 0o644)
		say(err)
		a.WriteString("1")
		b.WriteString("2")
		a.WriteString(strings.Repeat("3", 4095))
		say(dirty(d+"/f"), a.Close(), b.Close())
		data, err := os.ReadFile(d + "/f")
		say(len(data), string(data[:10]), err)
	}},
	{"set-id bits", func(d string, say func(...any)) {
		f := d + "/f"
		for _, script := range []string{"echo x >> f", ": > f", "dd if=/dev/zero of=f bs=1 count=1 conv=notrunc status=none"} {
			say(os.WriteFile(f, []byte("12345"), 0o777), unix.Chmod(f, 0o6777), describe(f))
			say(asUser(d, script), describe(f))
		}
		say(unix.Chmod(f, 0o6777), unix.Chown(f, 1, 1), describe(f))
		say(unix.Chmod(f, 0o6777), os.WriteFile(f, []byte("root may"), 0), describe(f))
	}},
	{"ownership", func(d string, say func(...any)) {
		say(asUser(d, "echo a > f; mkdir dir; ln -s t l; mkfifo p"), describe(d+"/f"), describe(d+"/dir"), describe(d+"/l"), describe(d+"/p"))
		say(os.Mkdir(d+"/sg", 0o777), unix.Chown(d+"/sg", 0, 99), unix.Chmod(d+"/sg", 0o2777))
		say(asUser(d, "echo a > sg/f; mkdir sg/dir; ln -s t sg/l"), describe(d+"/sg/f"), describe(d+"/sg/dir"), describe(d+"/sg/l"))
		say(os.Mkdir(d+"/tmp", 0o777), unix.Chmod(d+"/tmp", 0o1777), asUser(d, "echo a > tmp/f"))
		say(os.Chown(d+"/tmp/f", 4321, 4321), asUser(d, "rm -f tmp/f 2>&1 | sed 's/.*: //'"), describe(d+"/tmp/f"))
		say(unix.Lchown(d+"/l", 5, 6), describe(d+"/l"))
	}},
	{"holes and space", func(d string, say func(...any)) {
		f, err := os.OpenFile(d+"/f", os.O_RDWR|os.O_CREATE, 0o644)
		say(err)
		f.WriteAt([]byte("end"), 1<<20)
		off, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA)
		say(off, err)
		off, err = unix.Seek(int(f.Fd()), 0, unix.SEEK_HOLE)
		say(off, err)
		say(unix.Fallocate(int(f.Fd()), 0, 0, 2<<20), describe(d+"/f"))
		say(unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 1<<20, 4096))
		b := make([]byte, 3)
		_, err = f.ReadAt(b, 1<<20)
		say(b, err)
		g, err := os.Create(d + "/g")
		say(err)
		from, to := int64(10), int64(0)
		n, err := unix.CopyFileRange(int(f.Fd()), &from, int(g.Fd()), &to, 5000, 0)
		say(n, err, describe(d+"/g"), f.Close(), g.Close())
	}},
	{"times", func(d string, say func(...any)) {
		say(os.WriteFile(d+"/f", nil, 0o644), os.Symlink("t", d+"/l"))
		for _, name := range []string{"/f", "/l"} {
			ts := []unix.Timespec{{Sec: -5, Nsec: 7}, {Sec: 1 << 31, Nsec: 999999999}}
			say(unix.UtimesNanoAt(unix.AT_FDCWD, d+name, ts, unix.AT_SYMLINK_NOFOLLOW))
			var st unix.Stat_t
			say(unix.Lstat(d+name, &st), st.Atim, st.Mtim)
		}
	}},
	{"temporary file without a name", func(d string, say func(...any)) {
		fd, err := unix.Open(d, unix.O_TMPFILE|unix.O_RDWR, 0o640)
		say(err)
		unix.Write(fd, []byte("tmp"))
		say(unix.Linkat(unix.AT_FDCWD, fmt.Sprint("/proc/self/fd/", fd), unix.AT_FDCWD, d+"/f", unix.AT_SYMLINK_FOLLOW))
		data, err := os.ReadFile(d + "/f")
		say(string(data), err, describe(d+"/f"), unix.Close(fd))
	}},
	{"attributes", func(d string, say func(...any)) {
		f := d + "/f"
		say(os.WriteFile(f, nil, 0o644), unix.Setxattr(f, "user.a", []byte("1"), unix.XATTR_CREATE), unix.Setxattr(f, "user.a", []byte("2"), unix.XATTR_CREATE))
		b := make([]byte, 100)
		n, err := unix.Getxattr(f, "user.a", b)
		say(string(b[:max(n, 0)]), err)
		n, err = unix.Getxattr(f, "user.b", b)
		say(n, err)
		n, err = unix.Listxattr(f, b)
		say(string(b[:max(n, 0)]), err, unix.Removexattr(f, "user.a"), unix.Removexattr(f, "user.a"))
		caps := []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0} // cap_net_raw+ep
		say(unix.Setxattr(f, "security.capability", caps, 0))
		n, err = unix.Getxattr(f, "security.capability", b)
		say(n, err, os.WriteFile(f, []byte("changed"), 0))
		n, err = unix.Getxattr(f, "security.capability", b)
		say(n, err)
	}},
	{"names", func(d string, say func(...any)) {
		for _, n := range []int{254, 255, 256} {
			_, err := os.Create(d + "/" + strings.Repeat("n", n))
			say(n, errors.Is(err, unix.ENAMETOOLONG), err == nil)
		}
		for _, name := range []string{"with space", "new\nline", "\xff\xfe", "...", "-", "*"} {
			say(os.WriteFile(d+"/"+name, nil, 0o644), describe(d+"/"+name))
		}
		_, err := os.OpenFile(d+"/...", os.O_CREATE|os.O_EXCL, 0o644)
		say(err, os.Remove(d+"/..."), unix.Rmdir(d+"/*"), unix.Unlink(d+"/nothing"))
	}},
	{"large directory", func(d string, say func(...any)) {
		for i := range 600 {
			if err := os.WriteFile(fmt.Sprintf("%s/file-with-a-rather-long-name-%d", d, i), nil, 0o644); err != nil {
				say(err)
			}
		}
		list, err := os.ReadDir(d)
		say(len(list), err)
		for _, e := range list {
			if info, err := e.Info(); err != nil || !info.Mode().IsRegular() || e.Type() != 0 {
				say(e, err)
			}
		}
		say(os.RemoveAll(d), describe(d))
	}},
}

// dirtyEnv names the file that a child of the test binary dirties.
const dirtyEnv = "VFS_TEST_DIRTY"

func TestMain(m *testing.M) {
	if path := os.Getenv(dirtyEnv); path != "" {
		if err := dirtyMain(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// dirty has a child write a number to each page of a file through a mapping and
// exit, without msync or munmap. It is a process of its own since a fault on a
// mapping stops all of Go, and with it the server that is to resolve the fault.
func dirty(path string) error {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), dirtyEnv+"="+path)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func dirtyMain(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	for i := 0; i < len(mem)-3; i += 4096 {
		binary.LittleEndian.PutUint32(mem[i:], uint32(i)|1)
	}
	return nil
}

func TestMappedPagesReachTheHost(t *testing.T) {
	const size = 16 << 20
	fs := newFS(t, vfs.Config{})
	host := t.TempDir()
	export(t, fs, "root", host, vfs.PrivateOptions())
	path := filepath.Join(mount(t, fs), "root/f")
	mustDo(t, os.WriteFile(path, nil, 0o644))
	mustDo(t, os.Truncate(path, size))
	mustDo(t, dirty(path))
	got, err := os.ReadFile(filepath.Join(host, "f"))
	mustDo(t, err)
	if len(got) != size {
		t.Fatalf("the host has %d bytes", len(got))
	}
	for i := 0; i < size; i += 4096 {
		if binary.LittleEndian.Uint32(got[i:]) != uint32(i)|1 {
			t.Fatalf("page %d is not what was written", i/4096)
		}
	}
}

// TestWalk reads every file of a tree that is much larger than the bound of
// descriptors.
func TestWalk(t *testing.T) {
	const dirs, files, bound = 10, 100, 64
	host := t.TempDir()
	for i := range dirs {
		mustDo(t, os.Mkdir(filepath.Join(host, fmt.Sprint(i)), 0o755))
		for j := range files {
			mustDo(t, os.WriteFile(filepath.Join(host, fmt.Sprint(i), fmt.Sprint(j)), []byte(fmt.Sprint(i, j)), 0o644))
		}
	}
	served := newFS(t, vfs.Config{NodeFDs: bound})
	export(t, served, "root", host, vfs.PrivateOptions())
	m := filepath.Join(mount(t, served), "root")
	seen, most := 0, 0
	err := filepath.WalkDir(m, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		seen++
		got, err := os.ReadFile(path)
		want, _ := os.ReadFile(host + strings.TrimPrefix(path, m))
		if err != nil || !bytes.Equal(got, want) {
			return fmt.Errorf("%s: %q, want %q, %v", path, got, want, err)
		}
		most = max(most, served.Descriptors())
		return nil
	})
	mustDo(t, err)
	if seen != dirs*files {
		t.Errorf("%d files", seen)
	}
	if most > bound+16 { // released files may still be on their way
		t.Errorf("%d descriptors", most)
	}
}
