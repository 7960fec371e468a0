// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/integration/internal/ctrd"
	"github.com/xcontainer/xcontainer/pkg/shim/record"
	"github.com/xcontainer/xcontainer/pkg/xen"
	"github.com/xcontainer/xcontainer/pkg/xen/abi"
)

const (
	// retry is how soon a victim is looked for again that does not exist yet.
	retry = 5 * time.Millisecond
	// panicLimit bounds the exec that lets a guest panic, which may be answered
	// by the guest's end only.
	panicLimit = 30 * time.Second
)

// strike waits for its moment, hits, and says what; "" if the life was over
// before there was anything to hit.
func (l *life) strike(ctx context.Context) (string, error) {
	select {
	case <-l.begun[l.blow.step]:
	case <-l.over: // a life without this step: its create failed
		return "", nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
	time.Sleep(l.blow.delay)
	for {
		what, err := l.hit(ctx)
		if err != nil || what != "" {
			return what, err
		}
		select {
		case <-l.over:
			return "", nil
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(retry):
		}
	}
}

// hit hits the victim; "" if there is none yet.
func (l *life) hit(ctx context.Context) (string, error) {
	switch l.blow.victim {
	case shim:
		return killShim(l.id)
	case backend:
		return l.killRecorded(func(r *record.Record) record.Process { return r.Backend })
	case holder:
		return l.killRecorded(func(r *record.Record) record.Process { return r.Holder })
	case domain:
		return l.destroyDomain(ctx)
	case guest:
		return l.panic(ctx)
	case daemon:
		return killDaemon()
	default:
		_, err := ctrd.Command("lab-containerd", "restart")
		return "containerd restarted", err
	}
}

// killShim kills the shim, or the process that is starting it. The kernel's list
// is asked, since a shim writes its record only when it creates.
func killShim(id string) (string, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return "", err
	}
	for _, dir := range dirs {
		exe, err := os.Readlink(filepath.Join(dir, "exe"))
		if err != nil || filepath.Base(exe) != "containerd-shim-xcontainer-v2" {
			continue
		}
		cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			continue
		}
		args := strings.Split(string(cmdline), "\x00")
		if i := slices.Index(args, "-id"); i < 0 || i+1 >= len(args) || args[i+1] != id {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if unix.Kill(pid, unix.SIGKILL) == nil {
			return fmt.Sprintf("killed %d", pid), nil
		}
	}
	return "", nil
}

// record is the container's; nil before there is one.
func (l *life) record() *record.Record {
	r, err := record.Read(ctrd.Bundle(l.id))
	if err != nil {
		return nil // half gone
	}
	return r
}

func (l *life) killRecorded(which func(*record.Record) record.Process) (string, error) {
	r := l.record()
	if r == nil {
		return "", nil
	}
	p := which(r)
	if !p.Alive() {
		return "", nil
	}
	if err := p.Signal(unix.SIGKILL); err != nil {
		return "", err
	}
	return fmt.Sprintf("killed %d", p.PID), nil
}

func (l *life) destroyDomain(ctx context.Context) (string, error) {
	r := l.record()
	if r == nil || r.DomID == nil {
		return "", nil
	}
	h, err := xen.Open()
	if err != nil {
		return "", err
	}
	defer h.Close()
	d, err := h.Lookup(abi.DomID(*r.DomID), abi.UUID(r.UUID))
	if errors.Is(err, xen.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	// That it does not go before its back-end does is no concern of the blow's.
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_ = d.Destroy(ctx)
	return fmt.Sprintf("destroyed domain %d", *r.DomID), nil
}

// panic has a process of the container let the guest's kernel panic.
func (l *life) panic(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctrd.With(ctx), panicLimit)
	defer cancel()
	c, err := l.host.LoadContainer(ctx, l.id)
	if err != nil {
		return "", nil // no more
	}
	task, err := c.Task(ctx, nil)
	if err != nil {
		return "", nil
	}
	spec, err := c.Spec(ctx)
	if err != nil {
		return "", err
	}
	p, err := task.Exec(ctx, "panic", shell(spec.Process, "echo c >/proc/sysrq-trigger"), ctrd.Streams(fifoDir, nil, new(ctrd.Output)))
	if err != nil {
		return "", nil // not running yet, or no more
	}
	defer p.IO().Close()
	defer p.IO().Cancel()
	// Mostly an error: there is nobody left to answer.
	_ = runExec(ctx, p)
	return "the guest panicked", nil
}

// killDaemon kills containerd, and starts it again.
func killDaemon() (string, error) {
	pid, err := ctrd.DaemonPID()
	if err != nil {
		return "", err
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		return "", err
	}
	for unix.Kill(pid, 0) == nil {
		time.Sleep(retry)
	}
	_, err = ctrd.Command("lab-containerd", "start")
	return fmt.Sprintf("killed %d", pid), err
}
