// SPDX-License-Identifier: Apache-2.0

//go:build !race

// The race detector's runtime is C, where no system call can be made on all
// threads. For the same reason no import here may be one that uses cgo (net).

package confine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const roleEnv = "CONFINE_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) == "" {
		os.Exit(m.Run())
	}
	r := confinedMain()
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		os.Exit(3)
	}
}

// report is what the confined process found.
type report struct {
	Drop     string            // error of Drop
	Threads  []string          // lines of /proc/self/task/*/status that differ from the first thread's
	Status   map[string]string // of the first thread
	Root     []string          // entries of /
	Allowed  []string          // forbidden things that worked
	Failed   []string          // permitted things that did not
	Leftover []string          // descriptors that CloseOthers left
}

func confinedMain() report {
	var r report
	dir := os.NewFile(3, "dir")
	if err := CloseOthers(3); err != nil {
		r.Failed = append(r.Failed, err.Error())
	}
	for _, name := range []string{"4", "5"} {
		if to, err := os.Readlink("/proc/self/fd/" + name); err == nil && !strings.HasPrefix(to, "anon_inode:[event") {
			r.Leftover = append(r.Leftover, to)
		}
	}
	proc, err := unix.Open("/proc/self/task", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		r.Failed = append(r.Failed, "open /proc/self/task")
	}
	spawnThreads(8)
	if err := Drop(); err != nil {
		r.Drop = err.Error()
		return r
	}
	r.Status, r.Threads = threadStatus(proc)
	if entries, err := os.ReadDir("/"); err != nil {
		r.Failed = append(r.Failed, "list /: "+err.Error())
	} else {
		for _, e := range entries {
			r.Root = append(r.Root, e.Name())
		}
	}
	forbidden(&r)
	permitted(&r, int(dir.Fd()))
	return r
}

func spawnThreads(n int) {
	var ready sync.WaitGroup
	for range n {
		ready.Add(1)
		go func() {
			runtime.LockOSThread()
			ready.Done()
			select {}
		}()
	}
	ready.Wait()
}

// threadStatus returns the security fields of the first thread and those of
// others that differ.
func threadStatus(proc int) (first map[string]string, differ []string) {
	fd, err := unix.Openat(proc, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, []string{err.Error()}
	}
	tasks, err := os.NewFile(uintptr(fd), "task").Readdirnames(-1)
	if err != nil || len(tasks) < 8 {
		return nil, []string{fmt.Sprint(len(tasks), " threads ", err)}
	}
	for _, task := range tasks {
		fd, err := unix.Openat(proc, task+"/status", unix.O_RDONLY, 0)
		if err != nil {
			return nil, []string{err.Error()}
		}
		buf := make([]byte, 8192)
		n, _ := unix.Read(fd, buf)
		unix.Close(fd)
		st := map[string]string{}
		for line := range strings.Lines(string(buf[:n])) {
			k, v, _ := strings.Cut(line, ":")
			switch k {
			case "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp":
				st[k] = strings.TrimSpace(v)
			}
		}
		if first == nil {
			first = st
		}
		for k := range st {
			if st[k] != first[k] {
				differ = append(differ, task+" "+k+" "+st[k])
			}
		}
	}
	return first, differ
}

func forbidden(r *report) {
	for name, f := range map[string]func() error{
		"open /dev/xen":  func() error { _, err := os.Open("/dev/xen/privcmd"); return err },
		"open /proc":     func() error { _, err := os.Stat("/proc/self"); return err },
		"open the host":  func() error { _, err := os.Stat("/../../etc/passwd"); return err },
		"create in root": func() error { _, err := os.Create("/x"); return err },
		"exec":           func() error { return syscall.Exec("/bin/true", nil, nil) },
		"exec child":     func() error { return exec.Command("/bin/true").Run() },
		"socket":         func() error { _, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0); return err },
		"kill":           func() error { return unix.Kill(unix.Getppid(), 0) },
		"tgkill":         func() error { return unix.Tgkill(unix.Getppid(), unix.Getppid(), 0) },
		"prlimit other":  func() error { return unix.Prlimit(unix.Getppid(), unix.RLIMIT_NOFILE, nil, &unix.Rlimit{}) },
		"mount":          func() error { return unix.Mount("none", "/", "tmpfs", 0, "") },
		"unshare":        func() error { return unix.Unshare(unix.CLONE_NEWUSER) },
		"chroot":         func() error { return unix.Chroot("/") },
		"setuid 0 again": func() error { return unix.Sethostname([]byte("x")) },
		"raise caps": func() error {
			if e := capset(1 << unix.CAP_SYS_ADMIN); e != 0 {
				return e
			}
			return nil
		},
	} {
		if f() == nil {
			r.Allowed = append(r.Allowed, name)
		}
	}
}

func permitted(r *report, dir int) {
	openat := func(name string, flags, mode uint64) error {
		fd, err := unix.Openat2(dir, name, &unix.OpenHow{Flags: flags, Mode: mode, Resolve: unix.RESOLVE_BENEATH})
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
	for _, c := range []struct {
		name string
		f    func() error
	}{
		{"create in an export", func() error { return openat("new", unix.O_CREAT|unix.O_RDWR, 0o644) }},
		{"read a file of another owner without rights", func() error { return openat("secret", unix.O_RDWR, 0) }},
		{"chown", func() error { return unix.Fchownat(dir, "new", 1234, 1234, 0) }},
		{"chmod of another's file", func() error { return unix.Fchmodat(dir, "new", 0o4755, 0) }},
		{"mknod", func() error { return unix.Mknodat(dir, "null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) }},
		{"new goroutines on new threads", func() error { spawnThreads(4); return nil }},
		{"garbage collection", func() error { runtime.GC(); return nil }},
		{"own limits", func() error { return unix.Getrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{}) }},
		{"pipes", func() error { _, _, err := os.Pipe(); return err }},
	} {
		if err := c.f(); err != nil {
			r.Failed = append(r.Failed, c.name+": "+err.Error())
		}
	}
}

// confined runs this binary as a process that confines itself.
func confined(t *testing.T, flags uintptr) (report, string) {
	t.Helper()
	path := t.TempDir()
	if err := os.WriteFile(filepath.Join(path, "secret"), nil, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(path, "secret"), 4321, 4321); err != nil {
		t.Fatal(err)
	}
	dir, err := os.OpenFile(path, unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	extra, err := os.Open("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	var out, errs bytes.Buffer
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"=1")
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.ExtraFiles = []*os.File{dir, extra}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	return r, path
}

func TestDrop(t *testing.T) {
	before := mounts(t)
	r, path := confined(t, Cloneflags)
	if r.Drop != "" {
		t.Fatal(r.Drop)
	}
	if len(r.Threads)+len(r.Root)+len(r.Allowed)+len(r.Failed)+len(r.Leftover) > 0 {
		t.Errorf("threads that differ %q, in the root %q, allowed %q, failed %q, descriptors left %q",
			r.Threads, r.Root, r.Allowed, r.Failed, r.Leftover)
	}
	want := fmt.Sprintf("%016x", uint64(capabilities))
	none := fmt.Sprintf("%016x", 0)
	for k, v := range map[string]string{
		"CapPrm": want, "CapEff": want, "CapInh": none, "CapAmb": none, "CapBnd": none,
		"NoNewPrivs": "1", "Seccomp": "2",
	} {
		if r.Status[k] != v {
			t.Errorf("%s is %s, want %s", k, r.Status[k], v)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(path, "new"), &st); err != nil || st.Uid != 1234 {
		t.Errorf("file made by the confined process: uid %d, %v", st.Uid, err)
	}
	if after := mounts(t); after != before {
		t.Errorf("mounts of the host changed:\n%s\n%s", before, after)
	}
}

// TestDropRefusesSharedNamespace: it would exchange the root of the host.
func TestDropRefusesSharedNamespace(t *testing.T) {
	r, _ := confined(t, 0)
	if !strings.Contains(r.Drop, ErrShared.Error()) {
		t.Errorf("Drop: %q", r.Drop)
	}
	if err := ownNamespace(); !errors.Is(err, ErrShared) {
		t.Errorf("ownNamespace: %v", err)
	}
}

func mounts(t *testing.T) string {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
