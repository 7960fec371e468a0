// SPDX-License-Identifier: Apache-2.0

package task

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/types"
	"golang.org/x/sys/unix"
)

func image(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOpenDisk(t *testing.T) {
	path := image(t, 1<<20)
	open := func(readOnly bool) *os.File {
		t.Helper()
		f, err := openDisk(path, readOnly)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	refused := func(readOnly bool) {
		t.Helper()
		if f, err := openDisk(path, readOnly); !errors.Is(err, ErrHostPath) || !strings.Contains(err.Error(), "is in use") {
			t.Errorf("opened %v, %v", f, err)
		}
	}
	w := open(false)
	if _, err := w.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	refused(false)
	refused(true)
	w.Close()
	r1, r2 := open(true), open(true)
	if _, err := r1.Write([]byte("x")); err == nil {
		t.Error("a read-only disk can be written")
	}
	refused(false)
	r1.Close()
	r2.Close()
	open(false).Close()
}

func TestOpenDiskRefuses(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		fifo:                      "is neither a regular file nor a block device",
		dir:                       "is neither a regular file nor a block device",
		"/dev/null":               "is neither a regular file nor a block device",
		image(t, 511):             "is empty",
		filepath.Join(dir, "not"): "no such file or directory; is the container's snapshot still there?",
	} {
		if f, err := openDisk(path, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: opened %v, %v, want %s", path, f, err, want)
		}
	}
}

// TestPrepareRootDisks: what was opened for a plan that fails is closed again.
func TestPrepareRootDisks(t *testing.T) {
	dir, path := t.TempDir(), image(t, 1<<20)
	r, why, err := prepareRoot(dir, []*types.Mount{{Type: "ext4", Source: path, Options: []string{"loop"}}}, false)
	if err != nil || why != "" || len(r.disks) != 1 || r.disks[0].ReadOnly || len(r.mounts) != 1 || r.poolBytes() != 256*4096 {
		t.Fatalf("%+v, %q, %v", r, why, err)
	}
	r.close()
	if _, err := os.Stat(rootfsDir(dir)); err == nil {
		t.Error("something was made on the host")
	}
	_, _, err = prepareRoot(dir, []*types.Mount{{Type: "ext4", Source: path}, {Type: "erofs", Source: "/no/such"}}, false)
	if err == nil {
		t.Error("opened what does not exist")
	}
	f, err := openDisk(path, false)
	if err != nil {
		t.Fatalf("the first disk is still open: %v", err)
	}
	f.Close()
}

// layersOnHost are mounts that name each other, as containerd has them for its
// erofs snapshotter, with directories for images.
func layersOnHost(t *testing.T) []*types.Mount {
	t.Helper()
	dir := t.TempDir()
	var list []*types.Mount
	for _, name := range []string{"rw", "top", "base"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "file"), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
		list = append(list, &types.Mount{Type: "bind", Source: filepath.Join(dir, name), Options: []string{"bind"}})
	}
	// overlay wants its upper directory on a file system that is no overlay.
	list[0] = &types.Mount{Type: "tmpfs", Source: "tmpfs"}
	return append(list, &types.Mount{Type: "format/mkdir/overlay", Source: "overlay", Options: []string{
		"X-containerd.mkdir.path={{ mount 0 }}/upper:0755:7:8",
		"X-containerd.mkdir.path={{ mount 0 }}/work",
		"lowerdir={{ overlay 1 2 }}", "upperdir={{ mount 0 }}/upper", "workdir={{ mount 0 }}/work",
	}})
}

func TestPrepareRootOnHost(t *testing.T) {
	dir := t.TempDir()
	r, why, err := prepareRoot(dir, layersOnHost(t), false)
	if err != nil || r.mounts != nil || why != "" {
		t.Fatalf("%+v, %q, %v", r, why, err)
	}
	if b, err := os.ReadFile(filepath.Join(rootfsDir(dir), "file")); string(b) != "top" {
		t.Errorf("file reads %q, %v", b, err)
	}
	if err := os.WriteFile(filepath.Join(rootfsDir(dir), "new"), nil, 0o644); err != nil {
		t.Error(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(rootfsDir(dir), &st); err != nil || st.Mode&0o777 != 0o755 || st.Uid != 7 || st.Gid != 8 {
		t.Errorf("root of mode %o, %d:%d, %v", st.Mode, st.Uid, st.Gid, err)
	}
	if err := unmountRootfs(dir); err != nil {
		t.Error(err)
	}
	noMounts(t, dir)
}

func TestPrepareRootOnHostFails(t *testing.T) {
	for name, option := range map[string]string{
		"unknown option":   "tomato",
		"mkdir outside":    "X-containerd.mkdir.path=/tmp/x:0755",
		"mkdir upwards":    "X-containerd.mkdir.path={{ mount 0 }}/../x:0755",
		"mkdir mode":       "X-containerd.mkdir.path={{ mount 0 }}/x:4755",
		"mkdir form":       "X-containerd.mkdir.path={{ mount 0 }}/x:0755:0",
		"unknown template": "lowerdir={{ mount 3 }}",
		"private":          "X-containerd.tomato=1",
	} {
		dir, list := t.TempDir(), layersOnHost(t)
		list[3].Options = append(list[3].Options, option)
		if _, _, err := prepareRoot(dir, list, true); err == nil {
			t.Errorf("%s: no error", name)
		}
		noMounts(t, dir)
	}
}

func noMounts(t *testing.T, dir string) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(b), dir) {
		t.Errorf("mounts below %s are left, %v", dir, err)
	}
}
