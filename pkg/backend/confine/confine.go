// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Cloneflags is what the process must have been started with
// (syscall.SysProcAttr.Cloneflags): a process of several threads cannot enter a
// mount namespace of its own later.
const Cloneflags = unix.CLONE_NEWNS

// capabilities are those of the file service, see package vfs.
const capabilities = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FOWNER |
	1<<unix.CAP_FSETID | 1<<unix.CAP_MKNOD | 1<<unix.CAP_SETFCAP

// ErrShared is the identity of the error of a process that was not started with
// Cloneflags.
var ErrShared = errors.New("not in a mount namespace of its own")

// Drop confines the calling process: an empty, read-only root directory, no
// new privileges, the file service's capabilities and an empty bounding set, no
// core dumps, and a filter on system calls. It needs to be root, and a program
// without cgo, since Go can change all threads only of such. After an error the
// process is in between and must end.
func Drop() error {
	for _, s := range []struct {
		name string
		f    func() error
	}{
		{"leave the file system", leaveFileSystem},
		{"forbid core dumps", func() error { return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}) }},
		{"drop capabilities", dropCapabilities},
		{"filter system calls", filterSyscalls},
	} {
		if err := s.f(); err != nil {
			return fmt.Errorf("confine: %s: %w", s.name, err)
		}
	}
	return nil
}

// CloseOthers closes every descriptor that the process inherited but standard
// input, output and error and those of keep. Call it first in main, before the
// program opens anything itself.
func CloseOthers(keep ...int) error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("confine: list descriptors: %w", err)
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= 2 || slices.Contains(keep, fd) {
			continue
		}
		link, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || strings.HasPrefix(link, "anon_inode:[event") {
			continue // closed meanwhile, or the Go runtime's poller
		}
		unix.Close(fd)
	}
	return nil
}

// leaveFileSystem makes an empty tmpfs the root and current directory, in a
// mount namespace that holds nothing else. Descriptors keep what they refer to.
func leaveFileSystem() error {
	if err := ownNamespace(); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// Any directory will do as the place to mount on; this one is everywhere.
	const place = "/proc"
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_RDONLY
	if err := unix.Mount("none", place, "tmpfs", flags, "size=4k,nr_inodes=2,mode=555"); err != nil {
		return fmt.Errorf("mount an empty root: %w", err)
	}
	if err := unix.Chdir(place); err != nil {
		return fmt.Errorf("enter the empty root: %w", err)
	}
	err := unix.PivotRoot(".", ".")
	if errors.Is(err, unix.EINVAL) {
		// The root is the kernel's own rootfs, which cannot be exchanged.
		if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move the empty root: %w", err)
		}
		if err := unix.Chroot("."); err != nil {
			return fmt.Errorf("change root: %w", err)
		}
		return unix.Chdir("/")
	}
	if err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	// The old root now lies on top of the new one.
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the old root: %w", err)
	}
	return unix.Chdir("/")
}

// ownNamespace makes sure that what follows does not happen to the host.
func ownNamespace() error {
	var own unix.Stat_t
	if err := unix.Stat("/proc/self/ns/mnt", &own); err != nil {
		return fmt.Errorf("look at the mount namespace: %w", err)
	}
	known := false
	for _, pid := range []int{1, unix.Getppid()} {
		var other unix.Stat_t
		err := unix.Stat(fmt.Sprintf("/proc/%d/ns/mnt", pid), &other)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EACCES) {
			continue // the parent has gone, or init is not ours to look at
		}
		if err != nil {
			return fmt.Errorf("look at the mount namespace of process %d: %w", pid, err)
		}
		if own.Ino == other.Ino && own.Dev == other.Dev {
			return ErrShared
		}
		known = true
	}
	if !known {
		return fmt.Errorf("neither the parent's mount namespace nor init's can be seen: %w", ErrShared)
	}
	return nil
}

// dropCapabilities changes all threads.
func dropCapabilities() error {
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		_, _, e := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0)
		if e == unix.EINVAL {
			break // the kernel knows fewer
		}
		if e == unix.ENOTSUP {
			return fmt.Errorf("the program was built with cgo; build it with CGO_ENABLED=0: %w", e)
		}
		if e != 0 {
			return fmt.Errorf("bounding set: capability %d: %w", c, e)
		}
	}
	if e := capset(capabilities); e != 0 {
		return e
	}
	return nil
}
