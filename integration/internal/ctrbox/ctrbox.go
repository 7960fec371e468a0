// SPDX-License-Identifier: Apache-2.0

// Package ctrbox runs commands in containers of a lab, with ctr in its dom0. It is
// for programs outside of the lab that want to know what a container is like from
// within; those that run in dom0 itself have package ctrd, which is faster.
package ctrbox

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/xcontainer/xcontainer/integration/internal/labrun"
	"github.com/xcontainer/xcontainer/integration/lab"
)

// Runtimes.
const (
	Ours = "io.containerd.xcontainer.v2"
	Runc = "io.containerd.runc.v2"
)

// setupLimit is what a start or an end may take, on a machine that may be emulated.
const setupLimit = 10 * time.Minute

// Box is a container that does nothing but wait for commands. The fields are set
// before Start; one goroutine at a time may use it.
type Box struct {
	Lab     *lab.Lab
	ID      string
	Image   string
	Runtime string
	// XLibOS and VCPUs are annotations, for our runtime; without a value they are
	// left out.
	XLibOS string
	VCPUs  int
	// Args are further arguments of ctr run.
	Args []string

	execs int
}

// In runs a script in dom0 that has to succeed, for at most limit, and returns its
// stdout.
func In(ctx context.Context, l *lab.Lab, limit time.Duration, script string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	r, err := l.Run(ctx, "PATH="+labrun.Payload+"/bin:$PATH\n"+script, nil)
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("exit code %d: %s", r.Code, Tail(append(r.Stdout, r.Stderr...)))
	}
	return string(r.Stdout), err
}

// Tail keeps a message short.
func Tail(text []byte) []byte {
	const most = 2000
	text = bytes.TrimSpace(text)
	return text[max(0, len(text)-most):]
}

// startLine is the command that starts the container.
func (b *Box) startLine() string {
	args := []string{"ctr", "run", "-d", "--runtime", b.Runtime}
	if b.XLibOS != "" {
		args = append(args, "--annotation", "io.xcontainer.xlibos="+b.XLibOS)
	}
	if b.VCPUs > 0 {
		args = append(args, "--annotation", "io.xcontainer.vcpus="+strconv.Itoa(b.VCPUs))
	}
	args = append(args, b.Args...)
	return lab.Quote(append(args, b.Image, b.ID, "sleep", "1000000")...)
}

// Start starts the container.
func (b *Box) Start(ctx context.Context) error {
	if _, err := In(ctx, b.Lab, setupLimit, b.startLine()); err != nil {
		return fmt.Errorf("start the container: %w", err)
	}
	return nil
}

// ExecLine is a command of dom0 that runs a script in the container, for at most
// limit; each has an ID of its own.
func (b *Box) ExecLine(limit time.Duration, script string) string {
	b.execs++
	return fmt.Sprintf("timeout -k 10 %d ctr task exec --exec-id x%d %s sh -c %s",
		int(limit.Seconds()), b.execs, b.ID, lab.Quote(script))
}

// Exec runs a script in the container, for at most limit, and returns its stdout. It
// has to succeed.
func (b *Box) Exec(ctx context.Context, limit time.Duration, script string) (string, error) {
	return In(ctx, b.Lab, limit+time.Minute, b.ExecLine(limit, script))
}

// Remove ends the container, if there is one, also after ctx has ended.
func (b *Box) Remove(ctx context.Context) error {
	if _, err := In(context.WithoutCancel(ctx), b.Lab, setupLimit, RemoveScript(b.ID)); err != nil {
		return fmt.Errorf("remove the container: %w", err)
	}
	return nil
}

// RemoveScript is a script for dom0 that ends and deletes a container, whatever state
// it is in. It fails if the container is still there, and says why.
func RemoveScript(id string) string {
	// A task that cannot be removed keeps its container.
	return fmt.Sprintf(`id=%s
task=$(timeout 120 ctr task rm -f "$id" 2>&1)
container=$(timeout 120 ctr c rm "$id" 2>&1) && exit 0
case $container in *": not found"*) exit 0;; esac
echo "$task; $container" >&2
exit 1`, lab.Quote(id))
}

// Logs is what the guest's kernel, if it has one, and the runtime said last.
func (b *Box) Logs(ctx context.Context) string {
	line := "tail -c 20000 /var/log/containerd.log | tail -n 40"
	if b.Runtime == Ours {
		line = "xcontainerctl logs " + lab.Quote(b.ID) + " | tail -n 100; " + line
	}
	out, err := In(context.WithoutCancel(ctx), b.Lab, time.Minute, line)
	if err != nil {
		return err.Error()
	}
	return out
}
