// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

const (
	// hookTail is how many bytes of a hook's last words are kept.
	hookTail = 1024
	// hookGrace is how long an ended hook's stderr is read when something else
	// holds it open.
	hookGrace = time.Second
)

// runHooks runs the container's startContainer hooks one after the other, with
// the identity that its program will have, as runc does. The first that fails
// ends it.
func runHooks(list []*agentapi.Hook) error {
	for _, h := range list {
		if err := runHook(h); err != nil {
			return err
		}
	}
	if len(list) > 0 && os.Getpid() == 1 {
		reapOrphans()
	}
	return nil
}

func runHook(h *agentapi.Hook) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if h.GetTimeout() != 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(h.GetTimeout())*time.Second)
		defer cancel()
	}
	cmd := exec.CommandContext(ctx, h.GetPath())
	if len(h.GetArgs()) > 0 {
		cmd.Args = h.GetArgs()
	}
	cmd.Env = append([]string{}, h.GetEnv()...) // nil would be the stage's own
	cmd.Stdin = bytes.NewReader(h.GetState())
	cmd.Stdout = io.Discard // nil would need the container's /dev/null
	var words tail
	cmd.Stderr = &words
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = hookGrace
	err := cmd.Run()
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return nil
	case ctx.Err() != nil:
		return failf(codes.Internal, "startContainer hook %s: not done in %d s%s", h.GetPath(), h.GetTimeout(), words.last())
	}
	return failf(codes.Internal, "startContainer hook %s: %v%s", h.GetPath(), Reason(err), words.last())
}

// reapOrphans waits for the processes that hooks have left behind and that have
// ended: the program, which comes next, does not know of them.
func reapOrphans() {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if pid <= 0 && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// tail keeps the last bytes that are written to it.
type tail struct{ b []byte }

func (t *tail) Write(b []byte) (int, error) {
	t.b = append(t.b, b[max(len(b)-hookTail, 0):]...)
	t.b = t.b[max(len(t.b)-hookTail, 0):]
	return len(b), nil
}

// last is the last line that is not empty, as the end of a sentence.
func (t *tail) last() string {
	text := strings.TrimSpace(strings.ToValidUTF8(string(t.b), ""))
	line := text[strings.LastIndexByte(text, '\n')+1:]
	line = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, line)
	if line == "" {
		return ""
	}
	return ": " + line
}
