// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/xcontainer/xcontainer/pkg/libos/agent/stage"
)

// process is one that the host has asked for: a container's init or an exec.
type process struct {
	pid   int
	pidfd *os.File
	stdio *stdio
	ctl   *stageConn // to the stage, until its exec

	cgroup    *cgroup     // killed when it ends, or nil
	oom       *oomCounter // of its container
	oomBefore uint64      // that counter when the process was made
	killed    atomic.Bool // by the host's SIGKILL

	mu     sync.Mutex
	set    bool // stdio is complete: nothing adds to it any more
	reaped bool

	done chan struct{} // closed once exit is complete
	exit exit
}

// exit is how a process ended, and what its streams held then, in bytes.
type exit struct {
	status         uint32 // as a shell counts: 128 + signal
	at             time.Time
	stdout, stderr uint64
	oomKills       uint64 // in the container until then
	oomKilled      bool   // this process was one of them
}

// errEarlyEnd is what is known of a stage that ends without a word.
var errEarlyEnd = status.Error(codes.FailedPrecondition, "the process was killed before it could start")

// running reports whether the end of the process is not known yet.
func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// launch describes a second stage.
type launch struct {
	args   []string // after the name
	flags  uintptr  // CLONE_*
	cgroup *cgroup
	join   *process // init of the pid namespace that the stage is born in, or nil
	config proto.Message
}

// spawn starts a second stage with the given stdio and sends it its
// configuration. It owns io, also when it fails.
func (a *Agent) spawn(l launch, io *stdio) (*process, error) {
	payload, err := proto.Marshal(l.config)
	if err != nil {
		io.abandon()
		return nil, fmt.Errorf("encode configuration: %w", err)
	}
	ours, theirs, err := newStageConn()
	if err != nil {
		io.abandon()
		return nil, fmt.Errorf("socket to the stage: %w", err)
	}
	defer theirs.Close()
	p := &process{stdio: io, ctl: ours, done: make(chan struct{}), oom: &l.cgroup.oom, oomBefore: l.cgroup.oom.count()}
	if l.join == nil && l.flags&unix.CLONE_NEWPID == 0 {
		p.cgroup = l.cgroup // no pid namespace ends with this init
	}
	if err := a.fork(p, l, theirs); err != nil {
		ours.Close()
		io.abandon()
		return nil, fmt.Errorf("start the %s stage: %w", l.args[0], err)
	}
	io.closeChild()
	// A stage that has died already leaves its reason in the socket, or its
	// end: whoever reads it will see.
	_ = stage.WriteFrame(ours, stage.Config, payload)
	return p, nil
}

// fork makes the stage's process and registers it with the reaper.
func (a *Agent) fork(p *process, l launch, ctl *os.File) error {
	files := []uintptr{p.stdio.child[0].Fd(), p.stdio.child[1].Fd(), p.stdio.child[2].Fd(), ctl.Fd()}
	var join *os.File
	if l.join != nil {
		var err error
		if join, err = l.join.dupPidfd(); err != nil {
			return err
		}
		defer join.Close()
		files = append(files, join.Fd())
	}
	pidfd := -1
	attr := &syscall.ProcAttr{
		// The stage's own, not the program's. A signal of the runtime's to its
		// own thread would need a system call that a filter may not allow.
		Env:   []string{"GOGC=off", "GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1"},
		Files: files,
		Sys: &syscall.SysProcAttr{
			Setsid:      true,
			Cloneflags:  l.flags,
			UseCgroupFD: true,
			CgroupFD:    int(l.cgroup.dir.Fd()),
			PidFD:       &pidfd,
		},
	}
	start := func() (err error) {
		p.pid, err = a.reaper.start(func() (int, error) {
			pid, err := syscall.ForkExec(a.cfg.StageExe, append([]string{stage.Name}, l.args...), attr)
			if err == nil {
				p.pidfd = os.NewFile(uintptr(pidfd), "pidfd")
			}
			return pid, err
		}, p.exited)
		return err
	}
	if l.join == nil {
		return start()
	}
	err := inPidNamespace(join, start)
	if errors.Is(err, unix.EBUSY) {
		// A cgroup that hands controllers on to others has no processes of its
		// own (cgroup-v2.rst): the container's init has moved to one below.
		var dir *os.File
		if dir, err = l.cgroup.dirOf(l.join.pid); err == nil {
			defer dir.Close()
			attr.Sys.CgroupFD = int(dir.Fd())
			err = inPidNamespace(join, start)
		}
	}
	return err
}

// inPidNamespace runs f on a thread whose children are born in the pid
// namespace that pidfd's process lives in. The thread ends with it: nothing
// else may run there.
func inPidNamespace(pidfd *os.File, f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock, so the thread is not used again
		if err := unix.Setns(int(pidfd.Fd()), unix.CLONE_NEWPID); err != nil {
			result <- fmt.Errorf("enter pid namespace: %w", err)
			return
		}
		result <- f()
	}()
	return <-result
}

// exited records the end of the process. The reaper calls it.
func (p *process) exited(ws unix.WaitStatus, at time.Time) {
	p.exit.at = at
	p.exit.status = uint32(ws.ExitStatus())
	if ws.Signaled() {
		p.exit.status = 128 + uint32(ws.Signal())
	}
	p.exit.oomKills = p.oom.count()
	p.exit.oomKilled = ws.Signaled() && ws.Signal() == unix.SIGKILL && !p.killed.Load() && p.exit.oomKills > p.oomBefore
	p.pidfd.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reaped = true
	if p.cgroup != nil {
		// An exec that is born too late for this finds no init whose namespaces
		// it could enter. A cgroup that has gone has nobody left.
		_ = p.cgroup.signal(unix.SIGKILL)
	}
	p.finish()
}

// settled says that the process's stdio is complete. A process may end before
// its terminal has arrived here, and then its end is known only now.
func (p *process) settled() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.set = true
	p.finish()
}

// finish makes the end known once both have happened. The caller holds mu.
func (p *process) finish() {
	if !p.set || !p.reaped {
		return
	}
	select {
	case <-p.done:
	default:
		p.exit.stdout, p.exit.stderr = p.stdio.settle()
		close(p.done)
	}
}

// expect reads what the stage says until a frame of type want, which may be the
// end of the stream (0), and takes the terminal that comes before it.
func (p *process) expect(ctx context.Context, want stage.Type) error {
	_ = p.ctl.SetReadDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() { p.ctl.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	execing := false
	for {
		t, payload, fd, err := p.ctl.read()
		switch {
		case err == nil && t == stage.Terminal && fd >= 0 && p.stdio.master == nil:
			if err := p.stdio.setMaster(fd); err != nil {
				return status.Errorf(codes.Internal, "terminal: %v", err)
			}
			continue
		case fd >= 0:
			unix.Close(fd)
			return status.Error(codes.Internal, "stage sent a descriptor that nobody wanted")
		case err == nil && t == stage.Failed:
			e := stage.DecodeError(payload)
			return status.Error(e.Code, e.Text)
		case err == nil && t == stage.Exec && want == 0:
			execing = true
		case errors.Is(err, io.EOF) && execing:
			return nil
		case err == nil && t == want:
			return nil
		case ctx.Err() != nil:
			return status.FromContextError(ctx.Err()).Err()
		case err != nil && p.oom.count() > p.oomBefore:
			return status.Errorf(codes.FailedPrecondition, "the process was OOM-killed before it could start (memory limit too low?)")
		case err == nil:
			return status.Errorf(codes.Internal, "stage sent frame %q", t)
		default:
			return errEarlyEnd
		}
	}
}

// endTimeout is how long a process that seems to be ending may take.
const endTimeout = time.Second

// await waits for the end of the process, but not for ever.
func (p *process) await(limit time.Duration) {
	select {
	case <-p.done:
	case <-time.After(limit):
	}
}

// destroy kills a process that is not to be, and waits for its end.
func (p *process) destroy() {
	p.ctl.Close()
	p.settled()
	_ = p.send(unix.SIGKILL)
	<-p.done
	p.stdio.abandon()
}

// send sends a signal; the error is ESRCH or os.ErrClosed for a process that
// has ended.
func (p *process) send(sig unix.Signal) error {
	if sig == unix.SIGKILL {
		p.killed.Store(true)
	}
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	if raw.Control(func(fd uintptr) { sendErr = unix.PidfdSendSignal(int(fd), sig, nil, 0) }) != nil {
		return os.ErrClosed // which Control does not say
	}
	return sendErr
}

// dupPidfd is the process's pidfd for a caller that it must not be closed under.
// The error of a process that has ended is ESRCH.
func (p *process) dupPidfd() (*os.File, error) {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd, dupErr := -1, error(nil)
	if raw.Control(func(old uintptr) { fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }) != nil {
		return nil, unix.ESRCH
	}
	if dupErr != nil {
		return nil, dupErr
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// stageConn is the agent's end of the socket to a stage.
type stageConn struct{ *net.UnixConn }

func newStageConn() (ours *stageConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	theirs = os.NewFile(uintptr(fds[1]), "stage")
	f := os.NewFile(uintptr(fds[0]), "agent")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return &stageConn{c.(*net.UnixConn)}, theirs, nil
}

// read reads one frame and the descriptor that came with it, or -1.
func (c *stageConn) read() (stage.Type, []byte, int, error) {
	r := &rightsReader{conn: c.UnixConn, fd: -1}
	t, payload, err := stage.ReadFrame(r)
	return t, payload, r.fd, err
}

// rightsReader reads from a socket and keeps the last descriptor it got.
type rightsReader struct {
	conn *net.UnixConn
	fd   int
}

func (r *rightsReader) Read(b []byte) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := r.conn.ReadMsgUnix(b, oob)
	if oobn > 0 {
		r.keep(oob[:oobn])
	}
	if n == 0 && err == nil && len(b) > 0 {
		err = io.EOF
	}
	return n, err
}

func (r *rightsReader) keep(oob []byte) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if r.fd >= 0 {
				unix.Close(r.fd)
			}
			unix.CloseOnExec(fd)
			r.fd = fd
		}
	}
}
