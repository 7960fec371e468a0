// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/xcontainer/xcontainer/integration/internal/inputs"
	"github.com/xcontainer/xcontainer/integration/internal/labrun"
	"github.com/xcontainer/xcontainer/integration/lab"
)

// folder is where dom0 has the program.
const folder = "/var/tmp/benchsyscalls"

// Limits, on a machine that may be emulated.
const (
	setupLimit = 3 * time.Minute
	// patience is what a workload may take beyond its time, which is only a part of
	// what it does: it warms up, and some things take seconds by themselves.
	patience = 5 * time.Minute
)

// container is one in which workloads are run, one after the other.
type container struct {
	lab    *lab.Lab
	config config
	id     string
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
		inputs.BusyboxImage, c.id, "sleep", "1000000")
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

// remove ends the container.
func (c *container) remove(ctx context.Context) error {
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

// mark is a line between the parts of what a script prints.
const mark = "=-=-="

// workScript runs a workload, and prints the kernel's counters before and after it.
func workScript(w workload, seconds int) string {
	return fmt.Sprintf(`cat /proc/xlibos 2>/dev/null; echo %[1]s
(%[2]s); code=$?; echo %[1]s
cat /proc/xlibos 2>/dev/null
exit $code`, mark, strings.ReplaceAll(w.script, "SECONDS", strconv.Itoa(seconds)))
}

// result is what was found of one workload.
type result struct {
	figure
	calls
}

// parseWork reads the output of a workScript.
func parseWork(w workload, out string) (result, error) {
	parts := strings.Split(out, mark+"\n")
	if len(parts) != 3 {
		return result{}, fmt.Errorf("%d parts in %q, want 3", len(parts), tail([]byte(out)))
	}
	f, err := w.parse(parts[1])
	if err != nil {
		return result{}, err
	}
	return result{f, parseCounters(parts[2]).since(parseCounters(parts[0]).calls)}, nil
}

// measure runs one workload.
func (c *container) measure(ctx context.Context, w workload, seconds int) (result, error) {
	out, err := c.exec(ctx, time.Duration(seconds)*time.Second+patience, workScript(w, seconds))
	if err != nil {
		return result{}, fmt.Errorf("%s: %w", w.name, err)
	}
	r, err := parseWork(w, out)
	if err != nil {
		return result{}, fmt.Errorf("%s: %w", w.name, err)
	}
	return r, nil
}

// column is what was found with one configuration.
type column struct {
	config  config
	accel   string // of the lab: tcg or kvm
	kernel  string // its release
	results map[string]result
	failure string // why results are missing, in one line
}

// measure boots the lab, and measures with one configuration after the other. Also
// after an error the columns are what there is.
func (e environment) measure(ctx context.Context, program string, seconds int) (columns []column, err error) {
	o := e.options
	o.Name = cmp.Or(os.Getenv(lab.EnvName), command)
	o.Progress = func(what string) { say("%s: %s", e.name, what) }
	l, err := lab.Fresh(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Down()) }()
	if _, err := in(ctx, l, setupLimit, "mkdir "+folder); err != nil {
		return nil, err
	}
	if err := l.CopyTo(ctx, program, folder); err != nil {
		return nil, err
	}
	var errs []error
	for _, c := range e.configs {
		col, err := c.measure(ctx, l, seconds)
		columns = append(columns, col)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return columns, errors.Join(errs...)
}

// measure runs all workloads in one container. The first that fails ends it: its
// guest may be gone.
func (c config) measure(ctx context.Context, l *lab.Lab, seconds int) (col column, err error) {
	col = column{config: c, accel: l.State().Accel, results: map[string]result{}}
	k := &container{lab: l, config: c, id: "bench-" + c.name}
	defer func() {
		if err != nil {
			col.failure, _, _ = strings.Cut(err.Error(), "\n")
			say("%s: %v\n%s", c.name, err, k.logs(ctx))
		}
		err = errors.Join(err, k.remove(ctx))
	}()
	if col.kernel, err = k.start(ctx); err != nil {
		return col, err
	}
	for _, w := range workloads {
		r, err := k.measure(ctx, w, seconds)
		if err != nil {
			return col, err
		}
		col.results[w.name] = r
		say("%s: %s %s %s", c.name, w.name, number(w, r.best), w.unit.name)
	}
	return col, nil
}
