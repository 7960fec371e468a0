// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"
)

// childInfo is what waitid fills of siginfo_t, from
// include/uapi/asm-generic/siginfo.h with the union's SIGCHLD member.
type childInfo struct {
	_      structs.HostLayout
	signo  int32
	errno  int32
	code   int32
	_      int32
	pid    int32
	uid    uint32
	status int32
	_      [100]byte
}

// siginfo_t is 128 bytes (SI_MAX_SIZE of the same header).
var _ [128]byte = [unsafe.Sizeof(childInfo{})]byte{}

// waitZombie blocks until a child has ended and returns its pid; the child
// stays a zombie, so the pid stays its own.
func waitZombie() (int, error) {
	var info childInfo
	_, _, errno := unix.Syscall6(unix.SYS_WAITID, unix.P_ALL, 0, uintptr(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(info.pid), nil
}
