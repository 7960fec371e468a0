// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/xcontainer/xcontainer/integration/internal/ctrbox"
	"github.com/xcontainer/xcontainer/integration/lab"
	"github.com/xcontainer/xcontainer/integration/suites"
)

// patience is how long after a unit's time it must have ended: it is killed inside
// the container, and if that does not help, from outside.
const patience = 90 * time.Second

// container is one in which units are run, one after the other.
type container struct {
	*ctrbox.Box
	mode string
	cpus int
	runs bool
}

// newContainer is one for a suite, whose files are in a folder of dom0.
func newContainer(l *lab.Lab, s *suites.Suite, m suites.Material, folder, mode, id string, cpus int) *container {
	b := &ctrbox.Box{Lab: l, ID: id, Image: m.Image, Runtime: ctrbox.Runc, Args: []string{
		// Thousands of files of tests are not to go through the container's own file
		// system: some suites would take hours.
		"--mount", "type=tmpfs,src=tmpfs,dst=/tmp,options=rw:nosuid:nodev:mode=1777",
	}}
	if mode != modeRunc {
		b.Runtime, b.XLibOS, b.VCPUs = ctrbox.Ours, mode, cpus
		b.Args = append(b.Args, "--annotation", fmt.Sprintf("io.xcontainer.memory=%dM", s.MemoryMB))
	}
	if s.Privileged {
		b.Args = append(b.Args, "--privileged", "--privileged-without-host-devices")
	}
	if m.Folder != "" {
		b.Args = append(b.Args, "--mount", "type=bind,src="+folder+",dst="+suites.Mount+",options=rbind:ro")
	}
	return &container{Box: b, mode: mode, cpus: cpus}
}

// start starts the container and makes sure that its mode is the one asked for: a
// comparison of a mode with itself would be worth nothing. So would be one of tests
// that are for several CPUs with none.
func (c *container) start(ctx context.Context) error {
	if err := c.Start(ctx); err != nil {
		return err
	}
	c.runs = true
	if c.mode == modeRunc {
		if _, err := ctrbox.In(ctx, c.Lab, time.Minute, c.confineLine()); err != nil {
			return fmt.Errorf("confine the container to %d CPUs: %w", c.cpus, err)
		}
	}
	n, err := c.Exec(ctx, time.Minute, "nproc")
	if err == nil && strings.TrimSpace(n) != strconv.Itoa(c.cpus) {
		err = fmt.Errorf("the container has %s CPUs, and is to have %d", strings.TrimSpace(n), c.cpus)
	}
	if err != nil {
		return err
	}
	out, err := c.Exec(ctx, time.Minute, "cat /proc/xlibos 2>/dev/null; true")
	if err != nil {
		return fmt.Errorf("first command in the container: %w", err)
	}
	return checkMode(c.mode, c.Lab.State().Xen, out)
}

// confineLine gives a container of runc the first CPUs only; ctr has no option for it.
func (c *container) confineLine() string {
	return fmt.Sprintf(`pid=$(ctr task ls | awk '$1 == "%s" { print $2 }') && `+
		`echo 0-%d >/sys/fs/cgroup$(cut -d: -f3 /proc/$pid/cgroup)/cpuset.cpus`, c.ID, c.cpus-1)
}

// checkMode looks for a mode in the text of /proc/xlibos, which may not be there, of a
// guest on xen.
func checkMode(mode, xen, text string) error {
	x, err := ctrbox.ParseXLibOS(text)
	if err != nil {
		return err
	}
	switch mode {
	case ctrbox.XLibOSFull, ctrbox.XLibOSEntry:
		if !x.OnAs(xen) || x.Rewriting != (mode == ctrbox.XLibOSFull) {
			return fmt.Errorf("X-LibOS is to be on as for Xen %s, %s, but /proc/xlibos says mode %q, rewriting %t", xen, mode, x.Mode, x.Rewriting)
		}
	default:
		if x.On() {
			return fmt.Errorf("X-LibOS is to be off, but /proc/xlibos says mode %q", x.Mode)
		}
	}
	return nil
}

// unit runs a script in the container. An output is Broken if the script did not end
// by itself in its time.
func (c *container) unit(ctx context.Context, limit time.Duration, script string) (suites.Output, error) {
	const grace = 20 * time.Second
	inside := fmt.Sprintf("exec timeout -k %d %d sh -c %s </dev/null 2>&1", int(grace.Seconds()), int(limit.Seconds()), lab.Quote(script))
	outside := limit + patience
	ctx, cancel := context.WithTimeout(ctx, outside+time.Minute)
	defer cancel()
	begin := time.Now()
	r, err := c.Lab.Run(ctx, c.ExecLine(outside, inside), nil)
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
	out, err := c.Exec(ctx, time.Minute, "echo alive")
	return err == nil && strings.TrimSpace(out) == "alive"
}

// remove ends the container, if there is one.
func (c *container) remove(ctx context.Context) error {
	c.runs = false
	return c.Remove(ctx)
}
