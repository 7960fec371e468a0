// SPDX-License-Identifier: Apache-2.0

package holder

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// Role is the argument that makes the shim's binary a holder.
const Role = "holder"

// lifeline is the descriptor, in the holder, of the pipe whose other end only
// the shim has.
const lifeline = 3

// Run is the holder itself. It returns when the shim has gone.
func Run() error {
	f := os.NewFile(lifeline, "lifeline")
	if f == nil {
		return errors.New("holder: no pipe from the shim; only the shim starts a holder")
	}
	heedSignals()
	var b [1]byte
	for {
		n, err := unix.Read(lifeline, b[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("holder: wait for the shim's end: %w", err)
		}
		if n == 0 {
			return nil
		}
	}
}

// exitSignal is added to a signal's number in the exit status of a holder that
// ends because of a signal that it inherited as ignored.
const exitSignal = 128

// heedSignals makes the holder end at signals that Go leaves ignored when the
// parent's parent ignored them, as nohup and some service managers do.
func heedSignals() {
	ch := make(chan os.Signal, 1)
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(sig) {
			signal.Notify(ch, sig)
		}
	}
	go func() {
		if sig, ok := (<-ch).(syscall.Signal); ok {
			os.Exit(exitSignal + int(sig))
		}
	}()
}

// Holder is a running holder process.
type Holder struct {
	proc   *os.Process
	pipe   *os.File // the shim's end of the lifeline
	done   chan struct{}
	signal syscall.Signal // valid after done; 0 if no signal ended it
}

// Start starts a holder in a new network namespace. id is shown in the process
// list.
func Start(id string) (*Holder, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("holder: start: %w", err)
	}
	defer r.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("holder: start: %w", err)
	}
	defer null.Close()
	p, err := os.StartProcess("/proc/self/exe", []string{"xcontainer-holder", Role, id}, &os.ProcAttr{
		Dir:   "/",
		Env:   []string{"GOMAXPROCS=1"},
		Files: []*os.File{null, null, null, r},
		Sys:   &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWNET},
	})
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("holder: start: %w", err)
	}
	h := &Holder{proc: p, pipe: w, done: make(chan struct{})}
	go h.reap()
	return h, nil
}

func (h *Holder) reap() {
	defer close(h.done)
	state, err := h.proc.Wait()
	if err != nil {
		return
	}
	ws, ok := state.Sys().(syscall.WaitStatus)
	switch {
	case ok && ws.Signaled():
		h.signal = ws.Signal()
	case ok && ws.ExitStatus() > exitSignal:
		h.signal = syscall.Signal(ws.ExitStatus() - exitSignal)
	}
}

// Pid of the process. It stays the same after its end.
func (h *Holder) Pid() int { return h.proc.Pid }

// Done is closed when the process has ended and is reaped.
func (h *Holder) Done() <-chan struct{} { return h.done }

// Signal that ended the process, 0 if none did. Call it after Done.
func (h *Holder) Signal() syscall.Signal { return h.signal }

// Close kills the process and waits for its end. It may be called twice.
func (h *Holder) Close() {
	// A pid that is reaped already gives ErrProcessDone.
	_ = h.proc.Kill()
	<-h.done
	h.pipe.Close()
}
