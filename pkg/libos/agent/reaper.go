// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// reaper waits for every child of this process, those it has adopted included.
type reaper struct {
	// forks is held for reading from a fork until its pid is in handlers, and
	// for writing while a pid is reaped, so that no child ends unknown and no
	// pid is used again before its handler is gone.
	forks sync.RWMutex

	mu       sync.Mutex
	handlers map[int]func(unix.WaitStatus, time.Time)

	born chan struct{} // has a token when there may be a child
}

func newReaper() *reaper {
	return &reaper{
		handlers: make(map[int]func(unix.WaitStatus, time.Time)),
		born:     make(chan struct{}, 1),
	}
}

// start calls fork, and exited once when the child that fork made has ended.
// exited must not block. A child that starts another program is still the same
// child.
func (r *reaper) start(fork func() (int, error), exited func(unix.WaitStatus, time.Time)) (int, error) {
	r.forks.RLock()
	defer r.forks.RUnlock()
	pid, err := fork()
	if err != nil {
		return 0, err
	}
	r.mu.Lock()
	r.handlers[pid] = exited
	r.mu.Unlock()
	select {
	case r.born <- struct{}{}:
	default:
	}
	return pid, nil
}

// run reaps for ever.
func (r *reaper) run() {
	for {
		pid, err := waitZombie()
		switch {
		case err == nil:
			r.reap(pid)
		case errors.Is(err, unix.ECHILD):
			<-r.born
		}
	}
}

func (r *reaper) reap(pid int) {
	r.forks.Lock()
	defer r.forks.Unlock()
	var status unix.WaitStatus
	if got, err := unix.Wait4(pid, &status, unix.WNOHANG, nil); err != nil || got != pid {
		return // not a zombie any more; the next round tells
	}
	now := time.Now()
	r.mu.Lock()
	exited := r.handlers[pid]
	delete(r.handlers, pid)
	r.mu.Unlock()
	if exited != nil {
		exited(status, now)
	}
}
