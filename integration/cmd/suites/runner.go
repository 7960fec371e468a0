// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/xcontainer/xcontainer/integration/internal/ctrbox"
	"github.com/xcontainer/xcontainer/integration/lab"
	"github.com/xcontainer/xcontainer/integration/suites"
)

// setupLimit is what bringing something to dom0 may take.
const setupLimit = 10 * time.Minute

// folder is where dom0 has the folders and archives of suites. It is on its disk.
const folder = "/var/tmp/suites"

// Names in the folder for outputs: behind a mode in that of the file with its results,
// and in that of the folder of its second run; and the file with the verdict.
const (
	resultsSuffix = ".results"
	againSuffix   = "-again"
	verdictFile   = "verdict.txt"
)

// runner runs one suite.
type runner struct {
	lab      *lab.Lab
	suite    *suites.Suite
	material suites.Material
	options  options
	say      func(format string, args ...any)
	dir      string // for outputs
}

// run runs the suite in all modes, the differing units twice, and judges.
func (r *runner) run(ctx context.Context) (v suites.Verdict, err error) {
	units := r.material.Units
	if len(units) == 0 {
		return v, nil // -units chose none of this suite's
	}
	earlier, err := r.earlier(units)
	if err != nil {
		return v, err
	}
	modes := slices.Concat(r.options.modes, slices.Sorted(maps.Keys(earlier)))
	known, err := suites.KnownOf(r.suite.Name, modes, r.options.vcpus)
	if err != nil {
		return v, err
	}
	if err := r.clear(); err != nil {
		return v, err
	}
	if err := r.deliver(ctx); err != nil {
		return v, err
	}
	defer func() {
		_, rerr := ctrbox.In(context.WithoutCancel(ctx), r.lab, setupLimit, "rm -rf "+lab.Quote(r.folder()))
		err = errors.Join(err, rerr)
	}()
	c, err := r.modes(ctx, units, "", r.options.beside)
	if err != nil {
		return v, err
	}
	c.Modes = modes
	maps.Copy(c.Results, earlier)
	if again := suites.Units(c.Differences()); len(again) > 0 {
		r.say("%s: %d units differ and are run again, alone: %s", r.suite.Name, len(again), strings.Join(again, ", "))
		second, err := r.modes(ctx, again, againSuffix, 1)
		if err != nil {
			return v, err
		}
		c.Replace(again, second.Results)
	}
	v = c.Judge(known, units)
	return v, r.write(c, v)
}

// earlier are the results of an earlier run, by mode, that those of this run are to be
// the same as.
func (r *runner) earlier(units []string) (map[string]suites.Results, error) {
	if r.options.with == "" {
		return nil, nil
	}
	files, err := filepath.Glob(filepath.Join(r.options.with, r.suite.Name, "*"+resultsSuffix))
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("-with: %s has no results of %s", r.options.with, r.suite.Name)
	}
	if err != nil {
		return nil, err
	}
	out := map[string]suites.Results{}
	for _, f := range files {
		m := strings.TrimSuffix(filepath.Base(f), resultsSuffix)
		if slices.Contains(r.options.modes, m) {
			continue // it is run anew
		}
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		all, err := suites.ReadResults(string(text))
		if err != nil {
			return nil, fmt.Errorf("-with: %s: %w", f, err)
		}
		out[m] = all.Of(units)
	}
	return out, nil
}

// clear removes what an earlier run has left of the suite. The folder may be any of
// the user's, and have other things in it.
func (r *runner) clear() error {
	names := []string{verdictFile}
	for _, m := range modes {
		names = append(names, m, m+againSuffix, m+resultsSuffix)
	}
	for _, n := range names {
		if err := os.RemoveAll(filepath.Join(r.dir, n)); err != nil {
			return err
		}
	}
	return nil
}

// folder is that of the suite in dom0.
func (r *runner) folder() string { return folder + "/" + r.suite.Name }

// deliver brings the image and the folder to dom0.
func (r *runner) deliver(ctx context.Context) error {
	if _, err := ctrbox.In(ctx, r.lab, setupLimit, "rm -rf "+lab.Quote(r.folder())+"; mkdir -p "+folder); err != nil {
		return err
	}
	if a := r.material.Archive; a != "" {
		r.say("%s: bring the image to dom0", r.suite.Name)
		f, err := os.Open(a)
		if err != nil {
			return err
		}
		defer f.Close()
		ctx, cancel := context.WithTimeout(ctx, 2*setupLimit)
		defer cancel()
		out, err := r.lab.Run(ctx, "ctr images import -", f)
		if err == nil && out.Code != 0 {
			err = fmt.Errorf("exit code %d: %s", out.Code, ctrbox.Tail(out.Stderr))
		}
		if err != nil {
			return fmt.Errorf("import the image: %w", err)
		}
	}
	if r.material.Folder == "" {
		return nil
	}
	r.say("%s: bring the files to dom0", r.suite.Name)
	return r.lab.CopyTo(ctx, r.material.Folder, r.folder())
}

// modes runs units in a container of each mode, beside at a time. what is added to the
// names of the outputs.
func (r *runner) modes(ctx context.Context, units []string, what string, beside int) (suites.Comparison, error) {
	c := suites.Comparison{Modes: r.options.modes, Results: map[string]suites.Results{}}
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(beside)
	for _, m := range c.Modes {
		group.Go(func() error {
			results, err := r.mode(ctx, m, units, what)
			if err != nil {
				return fmt.Errorf("%s: %w", m, err)
			}
			r.say("%s: %s%s: %s", r.suite.Name, m, what, results.Summary())
			mu.Lock()
			defer mu.Unlock()
			c.Results[m] = results
			return nil
		})
	}
	return c, group.Wait()
}

// mode runs units in one mode. A unit that ends its container gets the next a new
// one.
func (r *runner) mode(ctx context.Context, mode string, units []string, what string) (all suites.Results, err error) {
	l, err := r.lab.Again(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	c := newContainer(l, r.suite, r.material, r.folder(), mode, "suites-"+r.suite.Name+"-"+mode, r.options.vcpus)
	defer func() { err = errors.Join(err, c.remove(ctx)) }()
	all = suites.Results{}
	for _, u := range units {
		// A second run is for units that may have disturbed each other in the first.
		if what != "" || !c.runs {
			if err := c.remove(ctx); err != nil {
				return nil, err
			}
			if err := c.start(ctx); err != nil {
				r.save(mode, u, what, suites.Output{Text: c.Logs(ctx)})
				return nil, err
			}
		}
		begin := time.Now()
		o, err := c.unit(ctx, r.suite.LimitOf(u), r.suite.Command(u))
		if err != nil {
			return nil, err
		}
		if (o.Broken != "" || o.Code != 0) && !c.alive(ctx) {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if o.Broken == "" {
				o.Broken = "the container ended"
			}
			o.Text += "\n" + c.Logs(ctx)
		}
		// What it has left running is not to disturb the next.
		c.runs = c.runs && o.Broken == ""
		got := r.suite.Results(u, o)
		maps.Copy(all, got)
		r.say("%s: %s%s: %s: %s (%s) %.0f s %s", r.suite.Name, mode, what, u, got[u], got.Summary(), time.Since(begin).Seconds(), o.Broken)
		if err := r.save(mode, u, what, o); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// save writes the output of a unit.
func (r *runner) save(mode, unit, what string, o suites.Output) error {
	dir := filepath.Join(r.dir, mode+what)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	end := fmt.Sprintf("\n[exit code %d]\n", o.Code)
	if o.Broken != "" {
		end += "[" + o.Broken + "]\n"
	}
	name := strings.NewReplacer("/", "_", " ", "_").Replace(unit) + ".txt"
	return os.WriteFile(filepath.Join(dir, name), []byte(o.Text+end), 0o644)
}

// write writes what all tests came to, and the verdict.
func (r *runner) write(c suites.Comparison, v suites.Verdict) error {
	for _, m := range r.options.modes {
		if err := os.WriteFile(filepath.Join(r.dir, m+resultsSuffix), []byte(c.Results[m].String()), 0o644); err != nil {
			return err
		}
	}
	text := strings.Join(append(slices.Clone(v.Lines), v.Tally.String()), "\n") + "\n"
	return os.WriteFile(filepath.Join(r.dir, verdictFile), []byte(text), 0o644)
}
