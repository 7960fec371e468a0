// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// childEnv holds the profile for a child of the test, which installs it and
// becomes the command in its arguments.
const childEnv = "SECCOMP_TEST_PROFILE"

// failed is the exit status of a child that has no filter.
const failed = 99

func TestMain(m *testing.M) {
	if p := os.Getenv(childEnv); p != "" {
		fmt.Fprintln(os.Stderr, child(p))
		os.Exit(failed)
	}
	os.Exit(m.Run())
}

func child(profile string) error {
	var p specs.LinuxSeccomp
	if err := json.Unmarshal([]byte(profile), &p); err != nil {
		return err
	}
	f, err := Compile(&p)
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	prog := unix.SockFprog{Len: uint16(len(f.Program) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&f.Program[0]))}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(f.Flags), uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	return unix.Exec("/bin/sh", []string{"sh", "-c", os.Args[1]}, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"})
}

// under runs a shell command under a profile.
func under(t *testing.T, p *specs.LinuxSeccomp, command string) (string, syscall.WaitStatus) {
	t.Helper()
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", command)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), childEnv+"="+string(data))
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Exited() && ws.ExitStatus() == failed {
		t.Fatalf("no filter was installed: %s", out)
	}
	return string(out), ws
}

// TestInstalled has the kernel take programs and decide by them.
func TestInstalled(t *testing.T) {
	mkdir := func(a specs.LinuxSeccompAction, errno *uint) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86, specs.ArchX32},
			Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: a, ErrnoRet: errno}}}
	}
	full := uint(unix.ENOSPC)
	if out, ws := under(t, mkdir(specs.ActErrno, &full), "echo before; mkdir x"); ws.ExitStatus() != 1 ||
		!strings.Contains(out, "before\n") || !strings.Contains(out, "No space left on device") {
		t.Errorf("errno: %d, %s", ws.ExitStatus(), out)
	}
	for _, a := range []specs.LinuxSeccompAction{specs.ActKill, specs.ActKillProcess, specs.ActTrap} {
		if out, ws := under(t, mkdir(a, nil), "exec mkdir x"); !ws.Signaled() || ws.Signal() != unix.SIGSYS {
			t.Errorf("%s: %v, %s", a, ws, out)
		}
	}
	if out, ws := under(t, mkdir(specs.ActLog, nil), "mkdir x && ls"); ws.ExitStatus() != 0 || out != "x\n" {
		t.Errorf("log: %d, %s", ws.ExitStatus(), out)
	}
}

// TestDefaultProfileInstalled: what containers do works, what they must not fails.
func TestDefaultProfileInstalled(t *testing.T) {
	p := profiles(t)["plain"]
	out, ws := under(t, p, "mkdir x && ls -l /proc/self/fd >x/y && cat x/y | wc -l >/dev/null && rm -r x && sleep 0.01 && echo fine")
	if ws.ExitStatus() != 0 || out != "fine\n" {
		t.Errorf("%d, %s", ws.ExitStatus(), out)
	}
	for _, c := range []string{"unshare -m true", "chroot / true"} {
		if out, ws := under(t, p, c); ws.ExitStatus() == 0 || !strings.Contains(out, "Operation not permitted") {
			t.Errorf("%s: %d, %s", c, ws.ExitStatus(), out)
		}
	}
}
