// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// other is a process in a network namespace of its own.
func other(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd.Process.Pid
}

func TestDo(t *testing.T) {
	pid := other(t)
	want, err := os.Readlink(Of(pid))
	if err != nil {
		t.Fatal(err)
	}
	var got []byte
	err = Do(Of(pid), func() error {
		var err error
		got, err = exec.Command("readlink", "/proc/self/ns/net").Output()
		return err
	})
	if err != nil || strings.TrimSpace(string(got)) != want {
		t.Errorf("in %q, %v; want %s", got, err, want)
	}
	wrong := errors.New("x")
	if err := Do(Of(pid), func() error { return wrong }); err != wrong {
		t.Errorf("got %v", err)
	}
}

func TestErrors(t *testing.T) {
	never := func() error {
		t.Error("called")
		return nil
	}
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path string
		kind error
		want string
	}{
		{dir + "/no", ErrNotFound, "network namespace " + dir + "/no does not exist; make it first"},
		{dir, ErrInvalid, dir + " is not a network namespace"},
		{fifo, ErrInvalid, fifo + " is not a network namespace"},
		{"/proc/self/ns/uts", ErrInvalid, "/proc/self/ns/uts is not a network namespace"},
	} {
		err := Do(tt.path, never)
		if !errors.Is(err, tt.kind) || err.Error() != tt.want {
			t.Errorf("%s: %v", tt.path, err)
		}
	}
}

// TestFirstThread: what the process shows in /proc is its first thread's, which
// must never be one that has gone elsewhere.
func TestFirstThread(t *testing.T) {
	before, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		if err := Do(Of(os.Getpid()), func() error { return unix.Unshare(unix.CLONE_NEWNET) }); err != nil {
			if errors.Is(err, unix.EPERM) {
				t.Skip("needs the right to make network namespaces")
			}
			t.Fatal(err)
		}
	}
	if after, err := os.Readlink("/proc/self/ns/net"); after != before || err != nil {
		t.Errorf("the process was in %s and is in %s, %v", before, after, err)
	}
}
