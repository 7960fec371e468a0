// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"strconv"
	"strings"
	"sync"
)

//go:generate go run gen.go

// x32Bit marks the numbers of the x32 calls of x86-64.
const x32Bit = 0x40000000

// table is the system calls of an architecture, by name.
type table map[string]uint32

// The tables are text until somebody needs them: most processes of this program
// never do.
var (
	amd64 = sync.OnceValue(func() table { return parseTable(tableAMD64) })
	i386  = sync.OnceValue(func() table { return parseTable(tableI386) })
	x32   = sync.OnceValue(func() table {
		t := table{}
		for name, nr := range amd64() {
			t[name] = nr | x32Bit
		}
		for i, name := range x32Own {
			t[name] = uint32(i+x32First) | x32Bit
		}
		return t
	})
)

func parseTable(text string) table {
	t := table{}
	for line := range strings.Lines(text) {
		name, nr, ok := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseUint(nr, 10, 32)
		if !ok || err != nil {
			panic("seccomp: table of system calls: " + line)
		}
		t[name] = uint32(n)
	}
	return t
}

// x32Own are the calls that x32 has under numbers of its own, from x32First on:
// arch/x86/entry/syscalls/syscall_64.tbl of Linux.
const x32First = 512

var x32Own = []string{
	"rt_sigaction", "rt_sigreturn", "ioctl", "readv", "writev", "recvfrom", "sendmsg", "recvmsg",
	"execve", "ptrace", "rt_sigpending", "rt_sigtimedwait", "rt_sigqueueinfo", "sigaltstack",
	"timer_create", "mq_notify", "kexec_load", "waitid", "set_robust_list", "get_robust_list",
	"vmsplice", "move_pages", "preadv", "pwritev", "rt_tgsigqueueinfo", "recvmmsg", "sendmmsg",
	"process_vm_readv", "process_vm_writev", "setsockopt", "getsockopt", "io_setup", "io_submit",
	"execveat", "preadv2", "pwritev2",
}

// carried is a call that i386 makes by another one, whose first argument is call.
type carried struct {
	by   string
	call uint64
}

// i386Carried: include/uapi/linux/net.h and ipc.h of Linux.
var i386Carried = map[string]carried{
	"socket": {"socketcall", 1}, "bind": {"socketcall", 2}, "connect": {"socketcall", 3},
	"listen": {"socketcall", 4}, "accept": {"socketcall", 5}, "getsockname": {"socketcall", 6},
	"getpeername": {"socketcall", 7}, "socketpair": {"socketcall", 8}, "send": {"socketcall", 9},
	"recv": {"socketcall", 10}, "sendto": {"socketcall", 11}, "recvfrom": {"socketcall", 12},
	"shutdown": {"socketcall", 13}, "setsockopt": {"socketcall", 14}, "getsockopt": {"socketcall", 15},
	"sendmsg": {"socketcall", 16}, "recvmsg": {"socketcall", 17}, "accept4": {"socketcall", 18},
	"recvmmsg": {"socketcall", 19}, "sendmmsg": {"socketcall", 20},
	"semop": {"ipc", 1}, "semget": {"ipc", 2}, "semctl": {"ipc", 3}, "semtimedop": {"ipc", 4},
	"msgsnd": {"ipc", 11}, "msgrcv": {"ipc", 12}, "msgget": {"ipc", 13}, "msgctl": {"ipc", 14},
	"shmat": {"ipc", 21}, "shmdt": {"ipc", 22}, "shmget": {"ipc", 23}, "shmctl": {"ipc", 24},
}
