// SPDX-License-Identifier: Apache-2.0

// Puppet makes a running process call the kernel as if a guest had taken it
// over: it stops it, has its first thread make system calls, and lets it go on.
// It tries what a back-end process must not be able to do and writes one line
// for each attempt: what it was and the number of the error, 0 for success.
//
//	puppet PID SHIM-PID OTHER-DOMID
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "puppet:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("want PID SHIM-PID OTHER-DOMID, got %q", args)
	}
	var n [3]int
	for i, a := range args {
		var err error
		if n[i], err = strconv.Atoi(a); err != nil {
			return err
		}
	}
	device, err := xenDevice()
	if err != nil {
		return err
	}
	// ptrace(2) belongs to a thread.
	runtime.LockOSThread()
	p, err := seize(n[0])
	if err != nil {
		return err
	}
	defer p.release()
	return attempts(p, n[1], n[2], device)
}

// xenDevice is the number of /dev/xen/privcmd.
func xenDevice() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat("/dev/xen/privcmd", &st); err != nil {
		return 0, fmt.Errorf("/dev/xen/privcmd: %w", err)
	}
	return st.Rdev, nil
}

// puppet is a process whose threads are stopped, the first of which makes calls,
// with memory to put arguments in.
type puppet struct {
	pid     int
	threads []int // those that are stopped
	saved   syscall.PtraceRegs
	text    [8]byte
	memory  uint64
	used    uint64
}

const memorySize = 64 << 10

func seize(pid int) (*puppet, error) {
	p := &puppet{pid: pid}
	if err := p.stop(); err != nil {
		p.detach()
		return nil, err
	}
	if err := syscall.PtraceGetRegs(pid, &p.saved); err != nil {
		return nil, fmt.Errorf("read registers: %w", err)
	}
	if _, err := syscall.PtracePeekText(pid, uintptr(p.saved.Rip), p.text[:]); err != nil {
		return nil, fmt.Errorf("read code: %w", err)
	}
	code := p.text
	copy(code[:], "\x0f\x05\xcc") // syscall; int3
	if _, err := syscall.PtracePokeText(pid, uintptr(p.saved.Rip), code[:]); err != nil {
		return nil, fmt.Errorf("write code: %w", err)
	}
	at, err := p.call(unix.SYS_MMAP, 0, memorySize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, ^uint64(0), 0)
	if err != nil {
		p.release()
		return nil, fmt.Errorf("memory for arguments: %w", err)
	}
	p.memory = at
	return p, nil
}

// stop stops all threads. The code that is put in place of the first one's is
// that of functions that all threads call: one that came there would die of the
// int3, and the process with it.
func (p *puppet) stop() error {
	for before := -1; before < len(p.threads); { // until all that could start one are stopped
		before = len(p.threads)
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.pid))
		if err != nil {
			return err
		}
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			if err != nil {
				return err
			}
			if slices.Contains(p.threads, tid) {
				continue
			}
			switch err := attach(tid); {
			case err == nil:
				p.threads = append(p.threads, tid)
			case !errors.Is(err, unix.ESRCH): // it has not ended
				return err
			}
		}
	}
	return nil
}

func attach(tid int) error {
	if err := syscall.PtraceAttach(tid); err != nil {
		return fmt.Errorf("attach to %d: %w", tid, err)
	}
	return wait(tid, syscall.SIGSTOP)
}

func (p *puppet) detach() {
	for _, tid := range p.threads {
		_ = syscall.PtraceDetach(tid)
	}
}

// wait waits until a thread that is traced stops with a signal.
func wait(tid int, want syscall.Signal) error {
	for {
		var ws syscall.WaitStatus
		if _, err := syscall.Wait4(tid, &ws, syscall.WALL, nil); err != nil {
			return fmt.Errorf("wait: %w", err)
		}
		switch {
		case !ws.Stopped():
			return fmt.Errorf("the process ended: %#x", ws)
		case ws.StopSignal() == want:
			return nil
		}
		// Go's own signals, to be seen again when it runs.
		if err := syscall.PtraceCont(tid, 0); err != nil {
			return fmt.Errorf("go on: %w", err)
		}
	}
}

// call has the thread make one system call.
func (p *puppet) call(nr uint64, args ...uint64) (uint64, error) {
	regs := p.saved
	regs.Orig_rax = ^uint64(0)
	regs.Rax = nr
	for i, r := range []*uint64{&regs.Rdi, &regs.Rsi, &regs.Rdx, &regs.R10, &regs.R8, &regs.R9} {
		*r = 0
		if i < len(args) {
			*r = args[i]
		}
	}
	if err := syscall.PtraceSetRegs(p.pid, &regs); err != nil {
		return 0, fmt.Errorf("set registers: %w", err)
	}
	if err := syscall.PtraceCont(p.pid, 0); err != nil {
		return 0, fmt.Errorf("go on: %w", err)
	}
	if err := wait(p.pid, syscall.SIGTRAP); err != nil {
		return 0, err
	}
	if err := syscall.PtraceGetRegs(p.pid, &regs); err != nil {
		return 0, fmt.Errorf("read registers: %w", err)
	}
	if rax := int64(regs.Rax); rax < 0 && rax > -4096 {
		return 0, syscall.Errno(-rax)
	}
	return regs.Rax, nil
}

// put copies b into the process and returns its address there.
func (p *puppet) put(b []byte) uint64 {
	at := p.memory + p.used
	p.used += uint64(len(b)+15) &^ 15
	if p.used > memorySize {
		p.used, at = uint64(len(b)+15)&^15, p.memory
	}
	if _, err := syscall.PtracePokeData(p.pid, uintptr(at), b); err != nil {
		panic(fmt.Sprintf("puppet: write %d bytes: %v", len(b), err))
	}
	return at
}

func (p *puppet) str(s string) uint64 { return p.put(append([]byte(s), 0)) }

func (p *puppet) release() {
	if p.memory != 0 {
		_, _ = p.call(unix.SYS_MUNMAP, p.memory, memorySize)
	}
	_, _ = syscall.PtracePokeText(p.pid, uintptr(p.saved.Rip), p.text[:])
	_ = syscall.PtraceSetRegs(p.pid, &p.saved)
	p.detach()
}
