// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/xcontainer/xcontainer/integration/internal/ctrbox"
	"github.com/xcontainer/xcontainer/integration/internal/inputs"
	"github.com/xcontainer/xcontainer/integration/lab"
)

// mark is a line between the parts of what a script prints.
const mark = "=-=-="

// workScript runs a workload, and prints the kernel's counters before and after what
// counts of it.
func workScript(w workload, seconds int) string {
	prepare := ""
	if w.prepare != "" {
		prepare = "{ " + w.prepare + "\n} >&2\n"
	}
	script := fmt.Sprintf(`%[2]scat /proc/xlibos 2>/dev/null; echo %[1]s
(%[3]s); code=$?; echo %[1]s
cat /proc/xlibos 2>/dev/null
exit $code`, mark, prepare, w.script)
	return strings.ReplaceAll(script, "SECONDS", strconv.Itoa(seconds))
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
		return result{}, fmt.Errorf("%d parts in %q, want 3", len(parts), ctrbox.Tail([]byte(out)))
	}
	f, err := w.parse(parts[1])
	if err != nil {
		return result{}, err
	}
	before, err := parseCalls(parts[0])
	if err != nil {
		return result{}, err
	}
	after, err := parseCalls(parts[2])
	if err != nil {
		return result{}, err
	}
	return result{f, after.since(before)}, nil
}

// run runs one workload, in the container that it starts before the first.
func (c *container) run(ctx context.Context, s *suite, w workload) (result, error) {
	if c.kernel == "" {
		kernel, err := c.start(ctx)
		if err != nil {
			return result{}, fmt.Errorf("%s: %w", w.name, err)
		}
		c.kernel = kernel
	}
	script := workScript(w, s.seconds)
	if s.onCPU {
		script = "exec taskset -c 0 sh -c " + lab.Quote(script)
	}
	out, err := c.Exec(ctx, 2*time.Duration(s.seconds)*time.Second+patience, script)
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

// imagesTag is the lab's name of the folder with further images.
const imagesTag = "servers"

// measure boots the lab, and measures with one configuration after the other, with
// the programs in a folder. Also after an error the columns are what there is.
func (e environment) measure(ctx context.Context, s *suite, programs string) (columns []column, err error) {
	o := e.options
	o.Name = cmp.Or(os.Getenv(lab.EnvName), command)
	o.Progress = func(what string) { say("%s: %s", e.name, what) }
	if s.images != "" {
		o.Shares = map[string]string{imagesTag: s.images}
	}
	l, err := lab.Fresh(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Down()) }()
	if err := l.CopyTo(ctx, programs, folder); err != nil {
		return nil, err
	}
	if s.images != "" {
		say("%s: import the images", e.name)
		line := lab.Quote("ctr", "images", "import", "/run/lab/"+imagesTag+"/"+inputs.ServerImagesFile)
		if _, err := ctrbox.In(ctx, l, importLimit, line); err != nil {
			return nil, fmt.Errorf("import the images: %w", err)
		}
	}
	var errs []error
	for _, c := range e.configs {
		col, err := c.measure(ctx, l, s)
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

// mostFailures is how many workloads may fail before the rest is not tried: each may
// take all of its time.
const mostFailures = 3

// measure runs all workloads, as many in one container as are for its image. After
// one that fails there is a new container: its guest may be gone.
func (c config) measure(ctx context.Context, l *lab.Lab, s *suite) (column, error) {
	col := column{config: c, accel: l.State().Accel, results: map[string]result{}}
	k := newContainer(l, c, "", "")
	var errs []error
	var failures []string
	for i, w := range s.workloads {
		if image := cmp.Or(w.image, inputs.BusyboxImage); k.Image != image {
			errs = append(errs, k.remove(ctx))
			k = newContainer(l, c, image, fmt.Sprintf("bench-%s-%d", c.name, i))
		}
		r, err := k.run(ctx, s, w)
		col.kernel = cmp.Or(k.kernel, col.kernel)
		if err == nil {
			col.results[w.name] = r
			say("%s: %s %s %s", c.name, w.name, number(w, r.best), w.unit.name)
			continue
		}
		say("%s: %v\n%s", c.name, err, k.Logs(ctx))
		line, _, _ := strings.Cut(err.Error(), "\n")
		failures, errs = append(failures, line), append(errs, err)
		if len(failures) == mostFailures || ctx.Err() != nil {
			break
		}
		k.Image = "" // of no use any more
	}
	col.failure = strings.Join(failures, "; ")
	return col, errors.Join(append(errs, k.remove(ctx))...)
}
