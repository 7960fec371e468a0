// SPDX-License-Identifier: Apache-2.0

package libos

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCloneMount does with an export's descriptor what a back-end could do that
// a guest has taken over.
func TestCloneMount(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to clone mounts")
	}
	outside := t.TempDir()
	inside := filepath.Join(outside, "export")
	if err := os.WriteFile(filepath.Join(outside, "secret"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(inside, 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := os.OpenFile(inside, unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	open := func(tree *os.File, name string, flags int) error {
		fd, err := unix.Openat(int(tree.Fd()), name, flags, 0o600)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
	// What the plain descriptor allows shows that the test can fail.
	if err := open(dir, "../secret", unix.O_RDONLY); err != nil {
		t.Fatalf("plain descriptor: %v", err)
	}
	for _, readOnly := range []bool{false, true} {
		tree, err := cloneMount(dir, readOnly)
		if err != nil {
			t.Fatal(err)
		}
		defer tree.Close()
		for _, name := range []string{"../secret", "../../../../../../../../etc/passwd"} {
			if err := open(tree, name, unix.O_RDONLY); !errors.Is(err, unix.ENOENT) {
				t.Errorf("read only %v: open %s: %v", readOnly, name, err)
			}
		}
		err = open(tree, "new", unix.O_CREAT|unix.O_RDWR)
		if readOnly != errors.Is(err, unix.EROFS) || !readOnly && err != nil {
			t.Errorf("read only %v: create: %v", readOnly, err)
		}
		if readOnly {
			continue
		}
		if err := unix.Mknodat(int(tree.Fd()), "null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
			t.Fatalf("make a node: %v", err)
		}
		if err := open(tree, "null", unix.O_RDWR); !errors.Is(err, unix.EACCES) {
			t.Errorf("open a device: %v", err)
		}
	}
	if _, err := os.Stat(filepath.Join(inside, "new")); err != nil {
		t.Errorf("the file is not in the directory itself: %v", err)
	}
}
