// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/xcontainer/xcontainer/integration/internal/labrun"
	"github.com/xcontainer/xcontainer/integration/lab"
	"github.com/xcontainer/xcontainer/integration/suites"
)

// Limits, on a machine that may be emulated.
const (
	setupLimit = 10 * time.Minute
	// patience is how long after a unit's time it must have ended: it is killed
	// inside the container, and if that does not help, from outside.
	patience = 90 * time.Second
)

// container is one in which units are run, one after the other.
type container struct {
	lab      *lab.Lab
	suite    *suites.Suite
	material suites.Material
	folder   string // in dom0
	mode     string
	vcpus    int
	id       string
	runs     bool
	execs    int
}

// in runs a script in dom0 that has to succeed, for at most limit.
func in(ctx context.Context, l *lab.Lab, limit time.Duration, script string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	r, err := l.Run(ctx, "PATH="+labrun.Payload+"/bin:$PATH\n"+script, nil)
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("exit code %d: %s", r.Code, tail(append(r.Stdout, r.Stderr...)))
	}
	return string(r.Stdout), err
}

// tail keeps a message short.
func tail(text []byte) []byte {
	const most = 2000
	text = bytes.TrimSpace(text)
	return text[max(0, len(text)-most):]
}

// startLine is the command that starts the container.
func (c *container) startLine() string {
	args := []string{"ctr", "run", "-d"}
	if c.mode == modeRunc {
		args = append(args, "--runtime", "io.containerd.runc.v2")
	} else {
		args = append(args, "--runtime", "io.containerd.xcontainer.v2",
			"--annotation", "io.xcontainer.xlibos="+c.mode,
			"--annotation", "io.xcontainer.vcpus="+strconv.Itoa(c.vcpus),
			"--annotation", fmt.Sprintf("io.xcontainer.memory=%dM", c.suite.MemoryMB))
	}
	if c.suite.Privileged {
		args = append(args, "--privileged", "--privileged-without-host-devices")
	}
	if c.material.Folder != "" {
		args = append(args, "--mount", "type=bind,src="+c.folder+",dst="+suites.Mount+",options=rbind:ro")
	}
	return lab.Quote(append(args, c.material.Image, c.id, "sleep", "1000000")...)
}

// start starts the container and makes sure that its mode is the one asked for: a
// comparison of a mode with itself would be worth nothing.
func (c *container) start(ctx context.Context) error {
	if _, err := in(ctx, c.lab, setupLimit, c.startLine()); err != nil {
		return fmt.Errorf("start the container: %w", err)
	}
	c.runs = true
	o, err := c.exec(ctx, time.Minute, "cat /proc/xlibos 2>/dev/null; true")
	if err == nil && o.Code != 0 {
		err = fmt.Errorf("exit code %d: %s", o.Code, tail([]byte(o.Text)))
	}
	if err != nil {
		return fmt.Errorf("first command in the container: %w", err)
	}
	return checkMode(c.mode, o.Text)
}

// checkMode looks for a mode in the text of /proc/xlibos, which may not be there.
func checkMode(mode, text string) error {
	has := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		has[name] = value
	}
	on := has["mode"] != "" && has["mode"] != "off"
	rewrites := on && has["rewriting"] == "on"
	switch mode {
	case "full":
		if !rewrites {
			return fmt.Errorf("X-LibOS is to be on, but /proc/xlibos says mode %q, rewriting %q", has["mode"], has["rewriting"])
		}
	case "entry":
		if !on || rewrites {
			return fmt.Errorf("X-LibOS is to be on without rewriting, but /proc/xlibos says mode %q, rewriting %q", has["mode"], has["rewriting"])
		}
	default:
		if on {
			return fmt.Errorf("X-LibOS is to be off, but /proc/xlibos says mode %q", has["mode"])
		}
	}
	return nil
}

// exec runs a script in the container. An output is Broken if the script did not end
// by itself in its time.
func (c *container) exec(ctx context.Context, limit time.Duration, script string) (suites.Output, error) {
	c.execs++
	const grace = 20 * time.Second
	inside := fmt.Sprintf("exec timeout -k %d %d sh -c %s </dev/null 2>&1", int(grace.Seconds()), int(limit.Seconds()), lab.Quote(script))
	outside := limit + patience
	ctx, cancel := context.WithTimeout(ctx, outside+time.Minute)
	defer cancel()
	line := fmt.Sprintf("timeout -k 10 %d ctr task exec --exec-id x%d %s sh -c %s", int(outside.Seconds()), c.execs, c.id, lab.Quote(inside))
	begin := time.Now()
	r, err := c.lab.Run(ctx, line, nil)
	o := suites.Output{Text: strings.ToValidUTF8(string(r.Stdout)+string(r.Stderr), "?"), Code: r.Code}
	took := time.Since(begin)
	switch {
	case err != nil && (context.Cause(ctx) == nil || !errors.Is(context.Cause(ctx), context.DeadlineExceeded)):
		return o, err
	case err != nil || took >= outside:
		o.Broken = fmt.Sprintf("did not end in %v, nor when it was killed", limit)
		c.runs = false
	case took >= limit && (r.Code == codeTimeout || r.Code == codeKilled):
		o.Broken = fmt.Sprintf("did not end in %v", limit)
	}
	return o, nil
}

// Codes of timeout(1) after it has ended the program, by SIGTERM or SIGKILL.
const (
	codeTimeout = 124
	codeKilled  = 137
)

// alive tells whether a command can still be run in the container.
func (c *container) alive(ctx context.Context) bool {
	if !c.runs {
		return false
	}
	o, err := c.exec(ctx, time.Minute, "echo alive")
	return err == nil && o.Code == 0 && strings.TrimSpace(o.Text) == "alive"
}

// remove ends the container, if there is one.
func (c *container) remove(ctx context.Context) error {
	c.runs = false
	_, err := in(context.WithoutCancel(ctx), c.lab, setupLimit, fmt.Sprintf(`id=%s
ctr task ls -q | grep -qx $id && timeout 120 ctr task rm -f $id
ctr c ls -q | grep -qx $id || exit 0
timeout 120 ctr c rm $id`, c.id))
	if err != nil {
		return fmt.Errorf("remove the container: %w", err)
	}
	return nil
}

// logs is what the guest's kernel and the runtime said last.
func (c *container) logs(ctx context.Context) string {
	line := "tail -n 20 /var/log/containerd.log"
	if c.mode != modeRunc {
		line = "xcontainerctl logs " + c.id + " | tail -n 60; " + line
	}
	out, err := in(context.WithoutCancel(ctx), c.lab, time.Minute, line)
	if err != nil {
		return err.Error()
	}
	return out
}
