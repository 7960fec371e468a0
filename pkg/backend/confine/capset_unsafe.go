// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// capset sets permitted and effective capabilities of all threads, and none
// inheritable. The kernel reads both arguments in each thread; they lie on the
// heap or stack of the caller, which stays put since its address was taken.
func capset(caps uint64) syscall.Errno {
	h := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	d := &[2]unix.CapUserData{}
	for i := range d {
		d[i].Permitted = uint32(caps >> (32 * i))
		d[i].Effective = d[i].Permitted
	}
	_, _, e := syscall.AllThreadsSyscall(unix.SYS_CAPSET,
		uintptr(unsafe.Pointer(h)), uintptr(unsafe.Pointer(d)), 0)
	runtime.KeepAlive(h)
	runtime.KeepAlive(d)
	return e
}

// seccomp installs a program on all threads, with no_new_privs.
func seccomp(prog []unix.SockFilter) error {
	// no_new_privs belongs to a thread until the filter is on all: both calls
	// must be made by the same one.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	p := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	// With TSYNC the other threads get the filter and no_new_privs as well; a
	// positive result is a thread that could not.
	r, _, e := syscall.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&p)))
	runtime.KeepAlive(prog)
	if e != 0 {
		return e
	}
	if r != 0 {
		return unix.ESRCH
	}
	return nil
}
