// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// denied are system calls that a back-end has no use for and that reach beyond
// its descriptors. They answer EPERM.
var denied = []uint32{
	// other programs and processes
	unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_FORK, unix.SYS_VFORK,
	unix.SYS_KILL, unix.SYS_TKILL, unix.SYS_RT_SIGQUEUEINFO, unix.SYS_PIDFD_SEND_SIGNAL,
	unix.SYS_PIDFD_OPEN, unix.SYS_PIDFD_GETFD, unix.SYS_PTRACE,
	unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PROCESS_MADVISE, unix.SYS_KCMP,
	unix.SYS_SETPRIORITY, unix.SYS_IOPRIO_SET, unix.SYS_SCHED_SETAFFINITY, unix.SYS_SCHED_SETATTR,
	unix.SYS_SCHED_SETPARAM, unix.SYS_SCHED_SETSCHEDULER, unix.SYS_MIGRATE_PAGES, unix.SYS_MOVE_PAGES,
	// new ends of communication; those that exist were handed over
	unix.SYS_SOCKET, unix.SYS_CONNECT, unix.SYS_BIND, unix.SYS_LISTEN, unix.SYS_ACCEPT, unix.SYS_ACCEPT4,
	unix.SYS_SHMGET, unix.SYS_MSGGET, unix.SYS_SEMGET, unix.SYS_MQ_OPEN,
	// mounts and namespaces
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_UNSHARE, unix.SYS_SETNS,
	unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT,
	unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD,
	// the kernel at large
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD,
	unix.SYS_KEXEC_FILE_LOAD, unix.SYS_REBOOT, unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD,
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL, unix.SYS_IOPL, unix.SYS_IOPERM,
	unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME, unix.SYS_SYSLOG,
	unix.SYS_ACCT, unix.SYS_PERSONALITY, unix.SYS_MODIFY_LDT, unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME,
	unix.SYS_CLOCK_ADJTIME, unix.SYS_ADJTIMEX, unix.SYS_VHANGUP,
}

// Offsets in struct seccomp_data of linux/seccomp.h.
const (
	dataNr   = 0
	dataArch = 4
	dataArg0 = 16 // low half, little endian
)

// x32 is the bit of the x32 ABI's numbers.
const x32 = 0x40000000

const newNamespace = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER |
	unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP

const (
	allow  = unix.SECCOMP_RET_ALLOW
	refuse = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	absent = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

func filterSyscalls() error {
	if runtime.GOARCH != "amd64" {
		return unix.ENOTSUP
	}
	return seccomp(program(uint32(unix.Getpid())))
}

func load(off uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off}
}

func ret(v uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: v}
}

func jump(op uint16, k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, K: k, Jt: yes, Jf: no}
}

// program makes the filter of the process pid. Each test stands before its
// answer and jumps over it.
func program(pid uint32) []unix.SockFilter {
	p := []unix.SockFilter{
		load(dataArch),
		jump(unix.BPF_JEQ, unix.AUDIT_ARCH_X86_64, 1, 0),
		ret(unix.SECCOMP_RET_KILL_PROCESS),
		load(dataNr),
		jump(unix.BPF_JGE, x32, 0, 1),
		ret(refuse),
		jump(unix.BPF_JEQ, unix.SYS_CLONE3, 0, 1),
		ret(absent), // its flags lie in memory; clone does
		// Threads, and nothing in a new namespace.
		jump(unix.BPF_JEQ, unix.SYS_CLONE, 0, 5),
		load(dataArg0),
		jump(unix.BPF_JSET, unix.CLONE_THREAD, 1, 0),
		ret(refuse),
		jump(unix.BPF_JSET, newNamespace, 0, 1),
		ret(refuse),
		load(dataNr), // clone falls through: no other test fits
		// Signals to its own threads.
		jump(unix.BPF_JEQ, unix.SYS_TGKILL, 0, 4),
		load(dataArg0),
		jump(unix.BPF_JEQ, pid, 1, 0),
		ret(refuse),
		ret(allow),
		// Its own limits.
		jump(unix.BPF_JEQ, unix.SYS_PRLIMIT64, 0, 4),
		load(dataArg0),
		jump(unix.BPF_JEQ, 0, 1, 0),
		ret(refuse),
		ret(allow),
	}
	for _, nr := range denied {
		p = append(p, jump(unix.BPF_JEQ, nr, 0, 1), ret(refuse))
	}
	return append(p, ret(allow))
}
