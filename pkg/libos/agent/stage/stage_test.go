// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

func TestParseOptions(t *testing.T) {
	for _, c := range []struct {
		fstype string
		list   string
		want   mountOptions
	}{
		{"tmpfs", "", mountOptions{}},
		{"tmpfs", "ro,rw,ro", mountOptions{set: unix.MOUNT_ATTR_RDONLY}},
		{"tmpfs", "ro,rw", mountOptions{clear: unix.MOUNT_ATTR_RDONLY}},
		{"tmpfs", "noatime,strictatime", mountOptions{set: unix.MOUNT_ATTR_STRICTATIME, clear: unix.MOUNT_ATTR__ATIME}},
		{"tmpfs", "sync,size=1k,mode=700", mountOptions{flags: []string{"sync"}, data: [][2]string{{"size", "1k"}, {"mode", "700"}}}},
		{"bind", "rbind,ro,rprivate", mountOptions{bind: true, recursive: true, set: unix.MOUNT_ATTR_RDONLY,
			propagation: []propagation{{unix.MS_PRIVATE, true}}}},
		{"bind", "bind,rro,rnosuid", mountOptions{bind: true, rset: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID}},
		{"devpts", "newinstance,gid=5", mountOptions{data: [][2]string{{"gid", "5"}}}},
		{"proc", "nosuid,noexec,nodev,defaults,async", mountOptions{set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NODEV}},
	} {
		var list []string
		if c.list != "" {
			list = strings.Split(c.list, ",")
		}
		got, err := parseOptions(c.fstype, list)
		if err != nil || !reflect.DeepEqual(*got, c.want) {
			t.Errorf("%s %s: got %+v, %v, want %+v", c.fstype, c.list, got, err, c.want)
		}
	}
	for _, c := range [][2]string{
		{"tmpfs", "bind"}, {"tmpfs", "rbind"}, {"tmpfs", "tmpcopyup"}, {"tmpfs", "newinstance"}, {"tmpfs", "hidepid=2"},
		{"bind", "size=1"}, {"bind", "idmap"}, {"proc", "mode=1"}, {"proc", ""}, {"proc", "r"}, {"proc", "="},
	} {
		if _, err := parseOptions(c[0], []string{c[1]}); err == nil || !strings.Contains(err.Error(), c[1]) {
			t.Errorf("%s %q: got %v, want an error that names the option", c[0], c[1], err)
		}
	}
}

// TestAttributesAreLegal: the kernel refuses an attribute that is set and
// cleared at once, but for the access time field.
func TestAttributesAreLegal(t *testing.T) {
	var names []string
	for name := range attributes {
		names = append(names, name)
	}
	for _, a := range names {
		for _, b := range names {
			o, err := parseOptions("tmpfs", []string{a, b})
			if err != nil {
				t.Fatal(err)
			}
			attr := o.attr()
			if both := attr.Attr_set & attr.Attr_clr &^ unix.MOUNT_ATTR__ATIME; both != 0 {
				t.Errorf("%s,%s sets and clears %#x", a, b, both)
			}
			if attr.Attr_set&unix.MOUNT_ATTR__ATIME != 0 && attr.Attr_clr&unix.MOUNT_ATTR__ATIME != unix.MOUNT_ATTR__ATIME {
				t.Errorf("%s,%s sets the access time without clearing it", a, b)
			}
		}
	}
}

const (
	testPasswd = "root:x:0:0:root:/root:/bin/sh\n# comment\n\nshort:x\nbad:x:no:0::/:\n" +
		"app:x:1000:1000::/home/app:/bin/sh\nalias:x:1000:1001::/home/alias:/bin/sh\nmax:x:4294967295:0::/:\nnohome:x:5:6:::\n"
	testGroup = "root:x:0:\nwheel:x:10:root,app\napp:x:1000:\nbad:x:no:app\ndata:x:2000:app,alias\n"
)

func TestLookupUser(t *testing.T) {
	for _, c := range []struct {
		user *agentapi.User
		want identity
	}{
		{nil, identity{home: "/root"}},
		{&agentapi.User{Uid: 1000, Gid: 5, AdditionalGids: []uint32{7}}, identity{uid: 1000, gid: 5, groups: []uint32{7}, home: "/home/app"}},
		{&agentapi.User{Name: "app", Uid: 3, Gid: 4}, identity{uid: 1000, gid: 1000, groups: []uint32{10, 2000}, home: "/home/app"}},
		{&agentapi.User{Name: "alias"}, identity{uid: 1000, gid: 1001, groups: []uint32{2000}, home: "/home/alias"}},
		{&agentapi.User{Name: "app", AdditionalGids: []uint32{10}}, identity{uid: 1000, gid: 1000, groups: []uint32{10, 2000}, home: "/home/app"}},
		{&agentapi.User{Name: "app:wheel"}, identity{uid: 1000, gid: 10, home: "/home/app"}},
		{&agentapi.User{Name: "app:"}, identity{uid: 1000, gid: 1000, groups: []uint32{10, 2000}, home: "/home/app"}},
		{&agentapi.User{Name: ":data"}, identity{gid: 2000, home: "/root"}},
		{&agentapi.User{Name: "77"}, identity{uid: 77, home: "/"}},
		{&agentapi.User{Name: "77:88"}, identity{uid: 77, gid: 88, home: "/"}},
		{&agentapi.User{Name: "nohome"}, identity{uid: 5, gid: 6, home: "/"}},
	} {
		got, err := lookupUser(c.user, parsePasswd([]byte(testPasswd)), parseGroup([]byte(testGroup)))
		if err != nil || got.uid != c.want.uid || got.gid != c.want.gid || got.home != c.want.home || !slices.Equal(got.groups, c.want.groups) {
			t.Errorf("%v: got %+v, %v, want %+v", c.user, got, err, c.want)
		}
	}
	for _, name := range []string{"who", "app:what", "4294967295", "max", "-1", "bad"} {
		if got, err := lookupUser(&agentapi.User{Name: name}, parsePasswd([]byte(testPasswd)), parseGroup([]byte(testGroup))); err == nil {
			t.Errorf("%s: got %+v, want an error", name, got)
		}
	}
}

func TestParseCaps(t *testing.T) {
	set, err := parseCaps([]string{"CAP_CHOWN", "CAP_BPF"}, 40)
	if err != nil || set != 1|1<<39 {
		t.Errorf("got %#x, %v", set, err)
	}
	if set, err = parseCaps([]string{"CAP_CHOWN", "CAP_BPF"}, 30); err != nil || set != 1 {
		t.Errorf("older kernel: got %#x, %v", set, err)
	}
	var e *Error
	if _, err = parseCaps([]string{"chown"}, 40); !errors.As(err, &e) || e.Code != codes.InvalidArgument {
		t.Errorf("unknown name: %v", err)
	}
}

func TestFrames(t *testing.T) {
	var b bytes.Buffer
	for _, payload := range [][]byte{nil, []byte("x"), make([]byte, 70000)} {
		if err := WriteFrame(&b, Config, payload); err != nil {
			t.Fatal(err)
		}
		typ, got, err := ReadFrame(&b)
		if err != nil || typ != Config || !bytes.Equal(got, payload) {
			t.Errorf("%d bytes: got %c, %d bytes, %v", len(payload), typ, len(got), err)
		}
	}
	if _, _, err := ReadFrame(&b); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	for _, bad := range [][]byte{{1}, {1, 0, 0, 0, 'C'}, {255, 255, 255, 255, 'C'}} {
		if _, _, err := ReadFrame(bytes.NewReader(bad)); err == nil || err == io.EOF {
			t.Errorf("%v: got %v", bad, err)
		}
	}
	e := DecodeError(encodeError(failf(codes.NotFound, "no %s", "way")))
	if e.Code != codes.NotFound || e.Text != "no way" {
		t.Errorf("got %+v", e)
	}
	if e := DecodeError(nil); e.Code != codes.Internal {
		t.Errorf("got %+v", e)
	}
}

// TestPathsStayInside covers the walk itself; the agent's tests cover mounts.
func TestPathsStayInside(t *testing.T) {
	top := t.TempDir()
	rootDir := filepath.Join(top, "root")
	for _, d := range []string{"root/a/b", "root/abs/inside", "outside"} {
		if err := os.MkdirAll(filepath.Join(top, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"up": "../../../../outside", "abs-link": "/abs", "loop": "loop", "dangling": "nowhere", "file-link": "/etc-file", "far": "/one/two/../three", "up-far": "../../../made", "chain": "a/hop",
		"a/hop": "../abs/../end", "deep": "dangling-2/x", "dangling-2": "/last/../last/.", "through-file": "plain/x",
	} {
		if err := os.Symlink(target, filepath.Join(rootDir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(rootDir, "plain"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	root, err := unix.Open(rootDir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	before := len(open)
	for _, c := range []struct {
		name string
		made string // below rootDir; "" for an error
	}{
		{"/", "."}, {"/new/x/y", "new/x/y"}, {"a/b/c", "a/b/c"}, {"/a/../../../z", "z"},
		{"/abs-link/inside/more", "abs/inside/more"}, {"/loop/x", ""}, {"/loop", ""}, {"/dangling/x", "nowhere/x"},
		{"/up/x", "outside/x"}, {"/far", "one/three"}, {"/far/more", "one/three/more"}, {"/up-far", "made"}, {"/chain/c", "end/c"},
		{"/deep", "last/x"}, {"/plain", ""}, {"/plain/x", ""}, {"/through-file", ""},
	} {
		fd, err := mkdirAllIn(root, c.name, 0o755)
		if (err == nil) != (c.made != "") {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil {
			unix.Close(fd)
			if _, err := os.Stat(filepath.Join(rootDir, c.made)); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
	}
	for name, made := range map[string]string{"/file-link": "etc-file", "/abs-link/f": "abs/f", "/new-link-dir/../f": "f", "/far/file": "one/three/file"} {
		fd, err := createIn(root, name)
		if err != nil {
			t.Error(err)
			continue
		}
		unix.Close(fd)
		if st, err := os.Lstat(filepath.Join(rootDir, made)); err != nil || !st.Mode().IsRegular() {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	if fd, err := createIn(root, "/loop"); !errors.Is(err, unix.ELOOP) {
		t.Errorf("loop: %d, %v", fd, err)
	}
	if fds, err := os.ReadDir("/proc/self/fd"); err != nil || len(fds) > before {
		t.Errorf("%d descriptors, %d before, %v", len(fds), before, err)
	}
	if left, _ := os.ReadDir(filepath.Join(top, "outside")); len(left) != 0 {
		t.Errorf("%v was made outside", left)
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add(appendFrame(nil, Ready, []byte("x")))
	f.Add([]byte{255, 255, 255, 127, 'E'})
	f.Fuzz(func(t *testing.T, b []byte) {
		typ, payload, err := ReadFrame(bytes.NewReader(b))
		if err == nil && !bytes.HasPrefix(b, appendFrame(nil, typ, payload)) {
			t.Errorf("%x was read as %c %x", b, typ, payload)
		}
	})
}

func FuzzLookupUser(f *testing.F) {
	f.Add(testPasswd, testGroup, "app:data")
	f.Add(":::::\n", ":::\n", ":")
	f.Fuzz(func(t *testing.T, passwd, group, name string) {
		id, err := lookupUser(&agentapi.User{Name: name}, parsePasswd([]byte(passwd)), parseGroup([]byte(group)))
		if err == nil && (id.home == "" || id.uid == 1<<32-1 || id.gid == 1<<32-1) {
			t.Errorf("got %+v", id)
		}
	})
}

// TestDiskPath finds disks by their serial numbers, which are read once.
func TestDiskPath(t *testing.T) {
	dir := t.TempDir()
	for name, serial := range map[string]string{
		"vda": "disk1\n", "vdb": "disk0", "vdc": "disk0\x00\n", "vdd": "", "vde": "disk12", "sda": "disk7",
	} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "serial"), []byte(serial), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "vdf", "serial"), 0o755); err != nil { // cannot be read
		t.Fatal(err)
	}
	disks, err := findDisks(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	r := &rootMounts{disks: disks}
	for source, want := range map[string]string{"disk:0": "/dev/vdb", "disk:1": "/dev/vda", "disk:12": "/dev/vde"} {
		if got, err := r.diskPath(source); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %s", source, got, err, want)
		}
	}
	for source, want := range map[string]string{
		"disk:7":   "the guest has no disk 7 (of 6)",
		"disk:00":  "the guest has no disk 00 (of 6)",
		"disk:":    `source "disk:" is no disk`,
		"disk:256": `source "disk:256" is no disk`,
		"0":        `source "0" is no disk`,
	} {
		if got, err := r.diskPath(source); err == nil || err.Error() != want {
			t.Errorf("%s: %q, %v, want %s", source, got, err, want)
		}
	}
	// One without disks looks for them by itself.
	r = &rootMounts{}
	if _, err := r.diskPath("disk:255"); err == nil || r.disks == nil {
		t.Errorf("disks %v, error %v", r.disks, err)
	}
}
