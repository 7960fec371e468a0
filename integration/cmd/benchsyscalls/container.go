// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/xcontainer/xcontainer/integration/internal/labrun"
	"github.com/xcontainer/xcontainer/integration/lab"
)

// folder is where dom0 has the programs.
const folder = "/var/tmp/benchsyscalls"

// Limits, on a machine that may be emulated.
const (
	setupLimit  = 3 * time.Minute
	importLimit = 15 * time.Minute // of images
	// patience is what a workload may take beyond its time, which is only a part of
	// what it does: it warms up, and some things take seconds by themselves.
	patience = 5 * time.Minute
)

// container is one in which workloads are run, one after the other.
type container struct {
	lab    *lab.Lab
	config config
	image  string
	id     string
	kernel string // its release, once the container has started
	execs  int
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

// startLine is the command that starts a container.
func (c *container) startLine() string {
	args := []string{"ctr", "run", "-d", "--runtime", c.config.runtime}
	if c.config.xlibos != "" {
		args = append(args, "--annotation", "io.xcontainer.xlibos="+c.config.xlibos,
			"--annotation", "io.xcontainer.vcpus="+strconv.Itoa(c.config.vcpus))
	}
	args = append(args, "--mount", "type=bind,src="+folder+",dst="+mount+",options=rbind:ro",
		c.image, c.id, "sleep", "1000000")
	return lab.Quote(args...)
}

// start starts the container and makes sure that it is what its configuration says:
// a comparison with something else would be worth nothing. It returns the kernel's
// release.
func (c *container) start(ctx context.Context) (string, error) {
	if _, err := in(ctx, c.lab, setupLimit, c.startLine()); err != nil {
		return "", fmt.Errorf("start the container: %w", err)
	}
	out, err := c.exec(ctx, setupLimit, "nproc; uname -r; uname -v; cat /proc/xlibos 2>/dev/null; true")
	if err != nil {
		return "", err
	}
	return c.config.check(out)
}

// check reads what the container says of itself: the number of its processors, the
// kernel's release and version, and /proc/xlibos.
func (c config) check(out string) (release string, err error) {
	f := strings.SplitN(out, "\n", 4)
	if len(f) != 4 {
		return "", fmt.Errorf("no processors and kernel in %q", out)
	}
	if c.vcpus > 0 && (f[0] != strconv.Itoa(c.vcpus) || strings.Contains(f[2], "SMP") != (c.vcpus > 1)) {
		return "", fmt.Errorf("%s processors and the kernel %q, want %d and one to go with it", f[0], f[2], c.vcpus)
	}
	n := parseCounters(f[3])
	switch {
	case c.mode == "" || c.mode == modeNone:
		if n.mode != "" && n.mode != modeNone {
			return "", fmt.Errorf("X-LibOS is in mode %q, want it off", n.mode)
		}
	case n.mode != c.mode || (n.rewriting == "on") != c.rewriting:
		return "", fmt.Errorf("X-LibOS is in mode %q, rewriting %q; want mode %q, rewriting %t", n.mode, n.rewriting, c.mode, c.rewriting)
	}
	return f[1], nil
}

// exec runs a script in the container that has to succeed.
func (c *container) exec(ctx context.Context, limit time.Duration, script string) (string, error) {
	c.execs++
	return in(ctx, c.lab, limit+time.Minute, fmt.Sprintf("timeout %d ctr task exec --exec-id x%d %s sh -c %s",
		int(limit.Seconds()), c.execs, c.id, lab.Quote(script)))
}

// remove ends the container, if there is one.
func (c *container) remove(ctx context.Context) error {
	if c.id == "" {
		return nil
	}
	_, err := in(context.WithoutCancel(ctx), c.lab, setupLimit, fmt.Sprintf(`id=%s
ctr task ls -q | grep -qx $id && timeout 60 ctr task rm -f $id
ctr c ls -q | grep -qx $id || exit 0
timeout 60 ctr c rm $id`, c.id))
	if err != nil {
		return fmt.Errorf("remove the container: %w", err)
	}
	return nil
}

// logs is what the guest's kernel and the runtime said last, for the message of a
// failure.
func (c *container) logs(ctx context.Context) string {
	line := "tail -n 20 /var/log/containerd.log"
	if c.config.runtime == ours {
		line = "xcontainerctl logs " + c.id + " | tail -n 40; " + line
	}
	out, err := in(context.WithoutCancel(ctx), c.lab, time.Minute, line)
	if err != nil {
		return err.Error()
	}
	return string(tail([]byte(out)))
}
