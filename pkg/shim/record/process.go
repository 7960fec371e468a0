// SPDX-License-Identifier: Apache-2.0

package record

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Process is a process that is told apart from a later one with its pid by its
// start time.
type Process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks after boot, proc(5) stat field 22
}

// Of returns the process pid as it runs now.
func Of(pid int) (Process, error) {
	_, start, err := stat(pid)
	return Process{PID: pid, Start: start}, err
}

// Alive tells whether the process runs. One that has ended and is not yet reaped
// does not; one that cannot be looked at counts as running.
func (p Process) Alive() bool {
	if p.PID <= 0 {
		return false
	}
	state, start, err := stat(p.PID)
	if err != nil {
		return !gone(err)
	}
	return start == p.Start && !ended(state)
}

// Signal sends a signal. A process that has ended already, or whose pid another
// has now, is no error.
func (p Process) Signal(sig unix.Signal) error {
	fd, err := p.open()
	if fd < 0 || err != nil {
		return err
	}
	defer unix.Close(fd)
	return p.signal(fd, sig)
}

// Kill sends SIGKILL and waits for the end. A process that has ended already,
// or whose pid another has now, is no error.
func (p Process) Kill(ctx context.Context) error {
	fd, err := p.open()
	if fd < 0 || err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := p.signal(fd, unix.SIGKILL); err != nil {
		return err
	}
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 50)
		if n == 1 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for process %d: %w", p.PID, err)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait for process %d: %w", p.PID, context.Cause(ctx))
		}
	}
}

// open opens a pidfd, which the caller closes; it is negative if the process has
// ended.
func (p Process) open() (int, error) {
	if p.PID <= 0 {
		return -1, nil
	}
	// Open first, compare then: the descriptor stays with the process compared.
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return -1, nil
	}
	if err != nil {
		return -1, fmt.Errorf("open process %d: %w", p.PID, err)
	}
	_, start, err := stat(p.PID)
	if gone(err) || err == nil && start != p.Start {
		unix.Close(fd)
		return -1, nil
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("open process %d: %w", p.PID, err)
	}
	return fd, nil
}

func (p Process) signal(fd int, sig unix.Signal) error {
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("send %v to process %d: %w", sig, p.PID, err)
	}
	return nil
}

// stat reads a process's state and start time.
func stat(pid int) (state byte, start uint64, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// The second field is a name in parentheses that may hold anything.
	i := bytes.LastIndexByte(data, ')')
	if i < 0 {
		return 0, 0, fmt.Errorf("/proc/%d/stat: no name", pid)
	}
	fields := bytes.Fields(data[i+1:])
	const startField = 22 - 3 // the first field here is the third
	if len(fields) <= startField {
		return 0, 0, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields)+2)
	}
	start, err = strconv.ParseUint(string(fields[startField]), 10, 64)
	return fields[0][0], start, err
}

// gone tells whether err of stat means that there is no such process.
func gone(err error) bool { return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) }

// ended tells whether a process in that state has only to be reaped.
func ended(state byte) bool { return state == 'Z' || state == 'X' }
