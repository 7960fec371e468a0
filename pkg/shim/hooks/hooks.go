// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/xcontainer/xcontainer/pkg/shim/netns"
)

// Kinds of hooks, by their names in config.json.
const (
	Prestart        = "prestart"
	CreateRuntime   = "createRuntime"
	CreateContainer = "createContainer"
	StartContainer  = "startContainer"
	Poststart       = "poststart"
	Poststop        = "poststop"
)

// pipeDelay is how long the end of a hook waits for processes that it has left
// behind to close its standard error.
const pipeDelay = 100 * time.Millisecond

// Run says where and for whom hooks are run.
type Run struct {
	Kind  string
	State specs.State // goes to each hook's standard input
	// NetNS is the path of the network namespace to run in; empty: this process's.
	NetNS string
}

// Each runs the hooks in order. The first that fails ends it; the error names the
// hook and has the last line of its standard error. The end of ctx kills a hook.
func (r *Run) Each(ctx context.Context, list []specs.Hook) error {
	for i := range list {
		if err := r.one(ctx, &list[i]); err != nil {
			return err
		}
	}
	return nil
}

// All runs all hooks in order, whatever becomes of them, and returns what failed.
func (r *Run) All(ctx context.Context, list []specs.Hook) []error {
	var errs []error
	for i := range list {
		if err := r.one(ctx, &list[i]); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

func (r *Run) one(ctx context.Context, h *specs.Hook) error {
	name := fmt.Sprintf("the %s hook %s", r.Kind, h.Path)
	if !filepath.IsAbs(h.Path) {
		return fmt.Errorf("%s is not named by an absolute path", name)
	}
	state, err := json.Marshal(r.State)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	limited := ctx
	if h.Timeout != nil {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, time.Duration(*h.Timeout)*time.Second)
		defer cancel()
	}
	cmd := exec.CommandContext(limited, h.Path)
	if len(h.Args) > 0 {
		cmd.Args = h.Args
	}
	// Not nil, which would be this process's.
	cmd.Env = append([]string{}, h.Env...)
	cmd.Dir = r.State.Bundle
	cmd.Stdin = bytes.NewReader(state)
	var stderr tail
	cmd.Stderr = &stderr
	// What it starts is killed with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = pipeDelay
	if r.NetNS == "" {
		err = cmd.Start()
	} else {
		err = netns.Do(r.NetNS, cmd.Start)
	}
	if err != nil {
		// The name of the path is there already.
		var sys syscall.Errno
		if errors.As(err, &sys) {
			err = sys
		}
		return fmt.Errorf("%s cannot be run: %w", name, err)
	}
	err = cmd.Wait()
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay) && cmd.ProcessState.Success():
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s was killed: %w", name, ctx.Err())
	case limited.Err() != nil:
		return fmt.Errorf("%s did not end within %d s and was killed", name, *h.Timeout)
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		err = errors.New(cmd.ProcessState.String())
	}
	if last := stderr.lastLine(); last != "" {
		return fmt.Errorf("%s failed (%w): %s", name, err, last)
	}
	return fmt.Errorf("%s failed (%w)", name, err)
}

// maxTail bounds what is kept of a hook's standard error, in bytes.
const maxTail = 4096

// tail keeps the end of what is written to it.
type tail struct{ buf []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p[max(0, len(p)-maxTail):]...)
	if extra := len(t.buf) - maxTail; extra > 0 {
		t.buf = append(t.buf[:0], t.buf[extra:]...)
	}
	return len(p), nil
}

func (t *tail) lastLine() string {
	text := strings.TrimSpace(string(t.buf))
	return strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:])
}
