// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// ioctls of xen/privcmd.h and xen/evtchn.h.
const (
	privcmdHypercall   = 0x305000
	privcmdMmapBatchV2 = 0x205004
	evtchnBindVirq     = 0x44500
	evtchnBindInterdom = 0x84501
	evtchnBindUnbound  = 0x44502
)

// maxFD is above every descriptor of a back-end that serves one container.
const maxFD = 128

// report writes one attempt. Only the errno of the call itself counts: anything
// else went wrong here.
func report(what string, err error) error {
	var e syscall.Errno
	switch {
	case err == nil:
		fmt.Printf("%s: 0\n", what)
	case errors.As(err, &e):
		fmt.Printf("%s: %d %v\n", what, int(e), e)
	default:
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// attempts tries each way that could lead out of the process.
func attempts(p *puppet, shim, domid int, device uint64) error {
	const cwd = ^uint64(99) // AT_FDCWD
	const root = "../../../../../../../../../../../.."
	try := func(what string, nr uint64, args ...uint64) error {
		_, err := p.call(nr, args...)
		return report(what, err)
	}
	errs := []error{
		// The control: a call that may succeed shows that the method works.
		try("control: getpid", unix.SYS_GETPID),
		try("open /dev/xen/privcmd", unix.SYS_OPENAT, cwd, p.str("/dev/xen/privcmd"), unix.O_RDWR, 0),
		try("open /dev/xen/hypercall", unix.SYS_OPENAT, cwd, p.str("/dev/xen/hypercall"), unix.O_RDWR, 0),
		try("open /dev/mem", unix.SYS_OPENAT, cwd, p.str("/dev/mem"), unix.O_RDWR, 0),
		try("open /proc/1/mem", unix.SYS_OPENAT, cwd, p.str("/proc/1/mem"), unix.O_RDWR, 0),
		try("open /etc/passwd", unix.SYS_OPENAT, cwd, p.str(root+"/etc/passwd"), unix.O_RDONLY, 0),
		try("make a file in its root", unix.SYS_OPENAT, cwd, p.str("/x"), unix.O_CREAT|unix.O_RDWR, 0o600),
		try("make a device in its root", unix.SYS_MKNODAT, cwd, p.str("/x"), unix.S_IFCHR|0o600, device),
		try("execve", unix.SYS_EXECVE, p.str("/proc/self/exe"), 0, 0),
		try("mount", unix.SYS_MOUNT, p.str("none"), p.str("/"), p.str("proc"), 0, 0),
		try("new user namespace", unix.SYS_UNSHARE, unix.CLONE_NEWUSER),
		try("new process", unix.SYS_CLONE, uint64(unix.SIGCHLD), 0, 0, 0, 0),
		try("kill the shim", unix.SYS_KILL, uint64(shim), 0),
		try("trace the shim", unix.SYS_PTRACE, unix.PTRACE_ATTACH, uint64(shim), 0, 0),
		try("read the shim's memory", unix.SYS_PROCESS_VM_READV, uint64(shim), 0, 0, 0, 0, 0),
		try("a descriptor of the shim", unix.SYS_PIDFD_OPEN, uint64(shim), 0),
		try("socket", unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM, 0),
		try("load a module", unix.SYS_INIT_MODULE, 0, 0, 0),
		try("bpf", unix.SYS_BPF, 0, 0, 0),
		try("io_uring", unix.SYS_IO_URING_SETUP, 8, 0),
		try("all capabilities", unix.SYS_CAPSET, p.capHeader(), p.capAll()),
		try("chroot", unix.SYS_CHROOT, p.str("/")),
	}
	for fd := uint64(0); fd < maxFD; fd++ {
		errs = append(errs, descriptor(p, fd, uint32(domid), device, root))
	}
	return errors.Join(errs...)
}

// descriptor tries what one of the process's descriptors could allow, and says
// only what succeeded, or where an export is.
func descriptor(p *puppet, fd uint64, domid uint32, device uint64, root string) error {
	if _, err := p.call(unix.SYS_FCNTL, fd, unix.F_GETFD, 0); err != nil {
		return nil // not open
	}
	for _, io := range []struct {
		name string
		nr   uint64
		arg  []byte
	}{
		{"hypercall", privcmdHypercall, words64(17, 0, 0, 0, 0, 0)},
		{"map foreign memory", privcmdMmapBatchV2, words64(uint64(domid)<<32|1, p.memory, p.memory, p.memory)},
		{"bind a VIRQ", evtchnBindVirq, words(0)},
		{"bind an event channel of another domain", evtchnBindInterdom, words(domid, 1)},
		{"offer an event channel to another domain", evtchnBindUnbound, words(domid)},
	} {
		if _, err := p.call(unix.SYS_IOCTL, fd, io.nr, p.put(io.arg)); err == nil {
			fmt.Printf("descriptor %d: %s: 0\n", fd, io.name)
		}
	}
	// Files that a host has and a container has not; /var/tmp/puppet is this program.
	for _, name := range []string{"/var/tmp/puppet", "/proc/1/status", "/dev/xen/privcmd"} {
		if _, err := p.call(unix.SYS_OPENAT, fd, p.str(root+name), unix.O_RDONLY, 0); err == nil {
			fmt.Printf("descriptor %d: open %s%s: 0\n", fd, root, name)
		}
	}
	node := p.str("puppet-node")
	if _, err := p.call(unix.SYS_MKNODAT, fd, node, unix.S_IFCHR|0o600, device); err != nil {
		return nil // no directory, or a read-only one
	}
	fmt.Printf("control: descriptor %d is a directory that can be written\n", fd)
	_, err := p.call(unix.SYS_OPENAT, fd, node, unix.O_RDWR, 0)
	if err2 := report(fmt.Sprintf("descriptor %d: open a device node of Xen", fd), err); err2 != nil {
		return err2
	}
	_, err = p.call(unix.SYS_UNLINKAT, fd, node, 0)
	return err
}

func words(v ...uint32) []byte {
	var b []byte
	for _, w := range v {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return append(b, make([]byte, 16)...)
}

func words64(v ...uint64) []byte {
	var b []byte
	for _, w := range v {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return append(b, make([]byte, 16)...)
}

// capHeader and capAll are the arguments of capset(2), version 3.
func (p *puppet) capHeader() uint64 { return p.put(words(0x20080522, 0)) }

func (p *puppet) capAll() uint64 {
	all := ^uint32(0)
	return p.put(words(all, all, all, all, all, all))
}
