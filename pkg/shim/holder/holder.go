// SPDX-License-Identifier: Apache-2.0

package holder

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/shim/netns"
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

// Config says where a holder is.
type Config struct {
	ID string // shown in the process list
	// NetNS is the path of a network namespace; empty means a new one.
	NetNS string
	// Cgroup is the folder of a cgroup of version 2 to start in; nil means that of
	// the caller. It stays the caller's.
	Cgroup *os.File
}

// Start starts a holder. An error about the network namespace has an identity of
// package netns.
func Start(c Config) (*Holder, error) {
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
	attr := &os.ProcAttr{
		Dir:   "/",
		Env:   []string{"GOMAXPROCS=1"},
		Files: []*os.File{null, null, null, r},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	if c.Cgroup != nil {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(c.Cgroup.Fd())
	}
	var p *os.Process
	start := func() error {
		var err error
		p, err = os.StartProcess("/proc/self/exe", []string{"xcontainer-holder", Role, c.ID}, attr)
		return err
	}
	if c.NetNS == "" {
		attr.Sys.Cloneflags = unix.CLONE_NEWNET
		err = start()
	} else {
		err = netns.Do(c.NetNS, start)
	}
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

// SetOOMScoreAdj sets how soon the host's kernel kills the holder, and with it
// the container, when the host's memory ends. Less than it has wants a privilege
// that a shim in a container may lack.
func (h *Holder) SetOOMScoreAdj(adj int) error {
	name := fmt.Sprintf("/proc/%d/oom_score_adj", h.Pid())
	if err := os.WriteFile(name, []byte(strconv.Itoa(adj)), 0); err != nil {
		return fmt.Errorf("holder: set its oom_score_adj to %d: %w", adj, err)
	}
	return nil
}

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
