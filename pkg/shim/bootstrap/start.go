// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/xcontainer/xcontainer/pkg/shim/hostcgroup"
)

// ListenFD is the descriptor, in the serving process, of its listening socket.
const ListenFD = 3

// Start starts the serving process in the working directory, which is the
// bundle, and tells containerd where it listens. Nothing but the answer goes to
// stdout. After an error no process and no socket is left.
func Start(f Flags, stdin io.Reader, stdout io.Writer) error {
	if err := f.need(); err != nil {
		return err
	}
	input, err := io.ReadAll(io.LimitReader(stdin, maxInput+1))
	if err != nil {
		return fmt.Errorf("start shim: read parameters: %w", err)
	}
	if len(input) > maxInput {
		return fmt.Errorf("start shim: parameters are larger than %d MB", maxInput>>20)
	}
	m := parse(input, f)
	p := paramsOf(m, f, os.Getenv)
	o, err := runtimeOptions(m, input)
	if err != nil {
		return fmt.Errorf("start shim: %w", err)
	}
	if o.Debug && p.level != levelTrace {
		p.level = levelDebug
	}
	p.cgroup = o.ShimCgroup
	path, err := socketPath(p.socketDir, p.grpcAddress, f.Namespace, f.ID)
	if err != nil {
		return fmt.Errorf("start shim: %w", err)
	}
	answer, err := p.answer(scheme + path)
	if err != nil {
		return fmt.Errorf("start shim: %w", err)
	}
	undo, err := serve(f, p, path)
	if err != nil && !errors.Is(err, errServed) {
		return fmt.Errorf("start shim: %w", err)
	}
	if _, err := stdout.Write(answer); err != nil {
		if undo != nil {
			undo()
		}
		return fmt.Errorf("start shim: %w", err)
	}
	return nil
}

// serve starts the serving process on a new socket; undo takes both back.
func serve(f Flags, p params, path string) (undo func(), err error) {
	l, err := listen(path)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	ok := false
	defer func() {
		if !ok {
			os.Remove(path)
		}
	}()
	if err := os.WriteFile(addressFile, []byte(scheme+path), 0o600); err != nil {
		return nil, err
	}
	socket, err := l.File()
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	proc, err := spawn(f, p, path, socket)
	if err != nil {
		return nil, err
	}
	ok = true
	return func() {
		_ = proc.Kill()
		_, _ = proc.Wait()
		os.Remove(path)
	}, nil
}

func spawn(f Flags, p params, path string, socket *os.File) (*os.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	args := []string{self, "-namespace", f.Namespace, "-id", f.ID, "-address", p.grpcAddress, "-socket", path}
	switch p.level {
	case levelInfo:
	case levelDebug:
		args = append(args, "-debug")
	case levelTrace:
		args = append(args, "-debug", "-log-level", p.level)
	default:
		args = append(args, "-log-level", p.level)
	}
	// New daemons announce that they will stop setting the environment.
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "TTRPC_ADDRESS=") })
	env = append(env, "TTRPC_ADDRESS="+p.ttrpcAddress)
	proc, err := os.StartProcess(self, args, &os.ProcAttr{
		Env:   env,
		Files: []*os.File{null, null, null, socket},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return nil, err
	}
	adjustOOM(proc.Pid)
	if p.cgroup != "" {
		// Before it has children, which inherit it.
		if err := hostcgroup.Join(p.cgroup, proc.Pid); err != nil {
			_ = proc.Kill()
			_, _ = proc.Wait()
			return nil, fmt.Errorf("the runtime's option ShimCgroup: %w", err)
		}
	}
	return proc, nil
}

// adjustOOM makes the kernel prefer the shim to containerd, our parent, when it
// must kill one. It may be refused (lowering needs a capability), and then the
// shim is as good as containerd itself: no reason not to start.
func adjustOOM(pid int) {
	file := func(pid int) string { return filepath.Join("/proc", strconv.Itoa(pid), "oom_score_adj") }
	b, err := os.ReadFile(file(os.Getppid()))
	if err != nil {
		return
	}
	score, err := strconv.Atoi(string(bytes.TrimSpace(b)))
	if err != nil {
		return
	}
	_ = os.WriteFile(file(pid), []byte(strconv.Itoa(min(score+1, 1000))), 0)
}
