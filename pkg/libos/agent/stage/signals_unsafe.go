// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"fmt"
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sigaction is struct sigaction of arch/x86/include/uapi/asm/signal.h as the
// system call rt_sigaction takes it.
type sigaction struct {
	_        structs.HostLayout
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

// sigIgn is SIG_IGN of include/uapi/asm-generic/signal-defs.h. Handlers need no
// reset, execve does that; what is ignored stays so.
const sigIgn = 1

// lastSignal is _NSIG of the same header.
const lastSignal = 64

// resetSignals gives every ignored signal its default action and empties this
// thread's signal mask.
func resetSignals() error {
	for sig := uintptr(1); sig <= lastSignal; sig++ {
		var act sigaction
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&act)), unsafe.Sizeof(act.mask), 0, 0)
		if errno != 0 || act.handler != sigIgn {
			continue
		}
		act = sigaction{}
		_, _, errno = unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&act)), 0, unsafe.Sizeof(act.mask), 0, 0)
		if errno != 0 {
			return fmt.Errorf("reset signal %d: %w", sig, errno)
		}
	}
	var empty unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &empty, nil); err != nil {
		return fmt.Errorf("empty the signal mask: %w", err)
	}
	return nil
}
