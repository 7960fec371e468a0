// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// Name is argument 0 of a second stage.
const Name = "xcontainer-stage"

// The kinds of stage, argument 1.
const (
	KindInit = "init" // further arguments: directory of the exports, mount point for the root
	KindExec = "exec" // descriptor 4 is a pidfd of the container's init
)

// The descriptors that the agent passes beside stdio.
const (
	ctlFD = 3
	pidFD = 4
)

// Is reports whether this process was started as a second stage.
func Is() bool { return len(os.Args) > 1 && os.Args[0] == Name }

func init() {
	if Is() {
		// The main goroutine stays on the main thread, whose namespaces,
		// credentials and session the program will have.
		runtime.LockOSThread()
	}
}

// Main runs the stage. It does not return.
func Main() {
	ctl := control(ctlFD)
	unix.CloseOnExec(ctlFD)
	err := run(ctl)
	var e *Error
	if !errors.As(err, &e) {
		e = failf(codes.Internal, "%v", err)
	} else if e.Text != err.Error() {
		e = &Error{Code: e.Code, Text: err.Error()}
	}
	// When the agent has gone there is nobody left to tell.
	_ = ctl.send(Failed, encodeError(e))
	os.Exit(1)
}

func run(ctl control) error {
	switch {
	case os.Args[1] == KindInit && len(os.Args) == 4:
		return initStage(ctl, os.Args[2], os.Args[3])
	case os.Args[1] == KindExec && len(os.Args) == 2:
		return execStage(ctl)
	}
	return fmt.Errorf("stage called with %q", os.Args[1:])
}

// initStage becomes the container's first process. The clone has given it new
// mount, pid, ipc and uts namespaces and put it in the container's cgroup.
func initStage(ctl control, exports, mountPoint string) error {
	var spec agentapi.Container
	if err := ctl.receive(Config, &spec); err != nil {
		return err
	}
	p := spec.GetProcess()
	unix.Umask(0)
	if err := setOOMScore(p); err != nil {
		return err
	}
	// Only now, so that the container's cgroup is the root of what it sees: a
	// clone flag would have taken the agent's.
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("new cgroup namespace: %w", err)
	}
	if err := setNames(&spec); err != nil {
		return err
	}
	if err := writeSysctl(spec.GetSysctl()); err != nil {
		return err
	}
	root, err := mountRoot(&spec, exports, mountPoint)
	if err != nil {
		return err
	}
	err = pivot(root)
	unix.Close(root)
	if err != nil {
		return err
	}
	id, err := resolveUser(p.GetUser())
	if err != nil {
		return failf(codes.InvalidArgument, "%v", err)
	}
	if p.GetTerminal() {
		if err := openTerminal(ctl, p, id, devMount(&spec) != nil); err != nil {
			return err
		}
	}
	if err := protect(&spec); err != nil {
		return err
	}
	prog, err := prepare(p, id)
	if err != nil {
		return err
	}
	if err := ctl.send(Ready, nil); err != nil {
		return err
	}
	if err := ctl.receive(Start, nil); err != nil {
		return err
	}
	if err := runHooks(spec.GetStartHooks()); err != nil {
		return err
	}
	return prog.exec(ctl)
}

func setNames(spec *agentapi.Container) error {
	if name := spec.GetHostname(); name != "" {
		if err := unix.Sethostname([]byte(name)); err != nil {
			return fmt.Errorf("set hostname %q: %w", name, err)
		}
	}
	if name := spec.GetDomainname(); name != "" {
		if err := unix.Setdomainname([]byte(name)); err != nil {
			return fmt.Errorf("set domain name %q: %w", name, err)
		}
	}
	return nil
}

// execStage becomes one more process of a container. The clone has put it in
// the container's pid namespace and cgroup.
func execStage(ctl control) error {
	unix.CloseOnExec(pidFD)
	var p agentapi.Process
	if err := ctl.receive(Config, &p); err != nil {
		return err
	}
	if err := setOOMScore(&p); err != nil {
		return err
	}
	// A thread that shares its root and directory with others cannot change
	// its mount namespace (setns(2)).
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("own file system context: %w", err)
	}
	const spaces = unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP
	if err := unix.Setns(pidFD, spaces); err != nil {
		return failf(codes.FailedPrecondition, "enter the container's namespaces: %v", err)
	}
	unix.Close(pidFD)
	id, err := resolveUser(p.GetUser())
	if err != nil {
		return failf(codes.InvalidArgument, "%v", err)
	}
	if p.GetTerminal() {
		if err := openTerminal(ctl, &p, id, false); err != nil {
			return err
		}
	}
	prog, err := prepare(&p, id)
	if err != nil {
		return err
	}
	return prog.exec(ctl)
}

// control is the descriptor of the socket to the agent, which is blocking.
type control int

func (c control) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(int(c), b)
		if err == unix.EINTR {
			continue
		}
		if n == 0 && err == nil && len(b) > 0 {
			return 0, io.EOF
		}
		return max(n, 0), err
	}
}

func (c control) Write(b []byte) (int, error) {
	for n := 0; n < len(b); {
		m, err := unix.SendmsgN(int(c), b[n:], nil, nil, unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return n, err
		}
		n += m
	}
	return len(b), nil
}

func (c control) send(t Type, payload []byte) error {
	if err := WriteFrame(c, t, payload); err != nil {
		return fmt.Errorf("answer the agent: %w", err)
	}
	return nil
}

// sendFD sends an empty frame with a descriptor.
func (c control) sendFD(t Type, fd int) error {
	if err := unix.Sendmsg(int(c), appendFrame(nil, t, nil), unix.UnixRights(fd), nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("pass descriptor to the agent: %w", err)
	}
	return nil
}

// receive waits for a frame of one type and decodes its payload into m, which
// may be nil.
func (c control) receive(want Type, m proto.Message) error {
	t, payload, err := ReadFrame(c)
	if err != nil {
		return fmt.Errorf("hear from the agent: %w", err)
	}
	if t != want {
		return fmt.Errorf("agent sent frame %q, not %q", t, want)
	}
	if m == nil {
		return nil
	}
	if err := proto.Unmarshal(payload, m); err != nil {
		return fmt.Errorf("decode configuration: %w", err)
	}
	return nil
}
