// SPDX-License-Identifier: Apache-2.0

// Package netns starts processes in another network namespace of this host.
package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/shim/refusal"
)

// Identities of this package's errors.
var (
	// ErrNotFound: nothing has that path.
	ErrNotFound = errors.New("no such network namespace")
	// ErrInvalid: what has that path is no network namespace.
	ErrInvalid = errors.New("not a network namespace")
)

// Of is the path of the network namespace that a process is in.
func Of(pid int) string { return fmt.Sprintf("/proc/%d/ns/net", pid) }

// Do calls f on a thread that is in the network namespace path; processes that
// f starts are in it, too, but not the goroutines. Nothing else of this process
// ever runs on that thread.
func Do(path string, f func() error) error {
	ns, err := open(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	done := make(chan error, 1)
	go onThread(func() {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter network namespace %s: %w", path, err)
			return
		}
		done <- f()
	})
	return <-done
}

// onThread calls f on a thread that ends with it. The first thread cannot end,
// and is what others see in /proc/PID/ns: it is kept away.
func onThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f() // never unlocked: the thread ends with the goroutine
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f()
	}()
	<-done // till then the first thread is this goroutine's
	runtime.UnlockOSThread()
}

// open opens a network namespace. The path may name anything: it is looked at
// before it is opened, since opening a FIFO waits and opening a device may act.
func open(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, refusal.New(ErrNotFound, fmt.Sprintf("network namespace %s does not exist; make it first", path))
	}
	if err != nil {
		return nil, fmt.Errorf("network namespace %s: %w", path, err)
	}
	defer unix.Close(fd)
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return nil, fmt.Errorf("network namespace %s: %w", path, err)
	}
	invalid := refusal.New(ErrInvalid, fmt.Sprintf("%s is not a network namespace", path))
	if fs.Type != unix.NSFS_MAGIC {
		return nil, invalid
	}
	ns, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil, fmt.Errorf("network namespace %s: %w", path, err)
	}
	if kind, err := unix.IoctlRetInt(int(ns.Fd()), unix.NS_GET_NSTYPE); err != nil || kind != unix.CLONE_NEWNET {
		ns.Close()
		return nil, invalid
	}
	return ns, nil
}
