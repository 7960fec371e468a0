// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// install puts the filter on the calling thread (seccomp(2)).
func (f *filter) install() error {
	prog := unix.SockFprog{Len: uint16(len(f.steps)), Filter: unsafe.SliceData(f.steps)}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(f.flags), uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(f)
	if errno != 0 {
		return f.wrap(errno)
	}
	return nil
}

// image is a program with its arguments as execve(2) takes them.
type image struct {
	file      *byte
	args, env []*byte
}

func newImage(file string, args, env []string) (im image, err error) {
	if im.file, err = unix.BytePtrFromString(file); err != nil {
		return im, err
	}
	if im.args, err = pointers(args); err != nil {
		return im, err
	}
	im.env, err = pointers(env)
	return im, err
}

// pointers is a list that ends with NULL.
func pointers(list []string) ([]*byte, error) {
	out := make([]*byte, len(list)+1)
	for i, s := range list {
		var err error
		if out[i], err = unix.BytePtrFromString(s); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// exec replaces this process, after it has installed f, which may be nil. Under
// the filter it makes no system call but that one, since the filter may allow no
// other. syscall.Exec does more: it restores a limit of open files, which
// setRlimits has seen to, and waits for threads that are being made.
func (im image) exec(f *filter) error {
	var prog unix.SockFprog
	var flags uint32
	if f != nil {
		prog = unix.SockFprog{Len: uint16(len(f.steps)), Filter: unsafe.SliceData(f.steps)}
		flags = f.flags
	}
	filterErr, execErr := filterAndExec(&prog, flags, im.file, unsafe.SliceData(im.args), unsafe.SliceData(im.env))
	runtime.KeepAlive(im)
	runtime.KeepAlive(f)
	if filterErr != 0 {
		return f.wrap(filterErr)
	}
	return execErr
}

// filterAndExec makes two system calls, the first one if there is a filter.
// Without a check of the stack the runtime has no occasion to give the thread to
// another goroutine in between; its signal for that is off (agent.fork).
//
//go:nosplit
func filterAndExec(prog *unix.SockFprog, flags uint32, file *byte, args, env **byte) (filterErr, execErr unix.Errno) {
	if prog.Len != 0 {
		_, _, filterErr = unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), uintptr(unsafe.Pointer(prog)))
		if filterErr != 0 {
			return filterErr, 0
		}
	}
	_, _, execErr = unix.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(file)), uintptr(unsafe.Pointer(args)), uintptr(unsafe.Pointer(env)))
	return 0, execErr
}
