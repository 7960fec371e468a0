// SPDX-License-Identifier: Apache-2.0

// Suites runs other people's tests in containers with X-LibOS on and off, and
// compares what they come to: no program is to notice the difference.
//
//	suites [-only NAME,...] [-units REGEXP] [-short] [-xen VERSION] [-vcpus N] [-modes MODE,...] [-beside N] [-out DIR] [-with DIR] [-build]
//
// It boots a lab, or with LAB_ATTACH set takes a running one, runs each suite in a
// container of each mode, and runs the units once more in which they differ. The
// outputs are in build/suites, or DIR; the last line is "N passed, N failed, N skipped".
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/xcontainer/xcontainer/integration/internal/cache"
	"github.com/xcontainer/xcontainer/integration/internal/ctrbox"
	"github.com/xcontainer/xcontainer/integration/internal/inputs"
	"github.com/xcontainer/xcontainer/integration/internal/labrun"
	"github.com/xcontainer/xcontainer/integration/internal/tally"
	"github.com/xcontainer/xcontainer/integration/lab"
	"github.com/xcontainer/xcontainer/integration/suites"
)

const command = "suites"

// options are the command line.
type options struct {
	suites []*suites.Suite
	units  *regexp.Regexp
	short  bool
	build  bool
	xen    string
	vcpus  int
	modes  []string
	out    string // folder for what was printed and the results, or empty
	with   string // folder of an earlier run to compare with, or empty
	beside int    // how many modes run at the same time
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	var t tally.Tally
	if err == nil {
		t, err = run(ctx, o)
	}
	if !t.End(command, err) {
		stop()
		os.Exit(1)
	}
}

// modes are those of X-LibOS, and runc.
var modes = []string{ctrbox.XLibOSFull, ctrbox.XLibOSEntry, ctrbox.XLibOSOff, modeRunc}

// modeRunc is a container of runc in dom0.
const modeRunc = "runc"

func parse(args []string) (o options, err error) {
	flags := flag.NewFlagSet(command, flag.ContinueOnError)
	all := suites.All()
	only := flags.String("only", "", "run the suites `NAMES`, with commas, of: "+strings.Join(names(all), " "))
	units := flags.String("units", "", "run only units that match the `regexp`")
	flags.BoolVar(&o.short, "short", false, "run a choice of each suite's units")
	flags.BoolVar(&o.build, "build", false, "only build what the suites need")
	flags.StringVar(&o.xen, "xen", os.Getenv("LAB_XEN"), "`version` of Xen, or xkernel, or none for plain Linux")
	flags.IntVar(&o.vcpus, "vcpus", 1, "`number` of virtual CPUs of a container: 1 takes the kernel for one")
	list := flags.String("modes", "full,off", "`modes` to compare, with commas, of: "+strings.Join(modes, " "))
	flags.StringVar(&o.out, "out", "", "`folder` of the checkout for what was printed and the results (default build/suites)")
	flags.StringVar(&o.with, "with", "", "compare also with the results that an earlier run has left in `folder`")
	flags.IntVar(&o.beside, "beside", 1, "run `number` modes at the same time, what differs once more alone")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("%q is not understood", flags.Args())
	}
	if o.vcpus < 1 || o.vcpus > 8 {
		return o, fmt.Errorf("%d virtual CPUs: use 1 to 8", o.vcpus)
	}
	if o.beside < 1 {
		return o, fmt.Errorf("-beside %d: use 1 or more", o.beside)
	}
	if o.units, err = regexp.Compile(*units); err != nil {
		return o, fmt.Errorf("-units: %w", err)
	}
	o.modes = strings.Split(*list, ",")
	for i, m := range o.modes {
		if !slices.Contains(modes, m) || slices.Contains(o.modes[:i], m) {
			return o, fmt.Errorf("-modes %s: %q is no mode, or is there twice", *list, m)
		}
		if o.xen == noXen && m != modeRunc {
			return o, fmt.Errorf("-modes %s: there is only %s without Xen", *list, modeRunc)
		}
	}
	o.suites, err = choose(all, *only)
	return o, err
}

func names(all []*suites.Suite) []string {
	var out []string
	for _, s := range all {
		out = append(out, s.Name)
	}
	return out
}

// choose returns the suites that only names, in their own order; all if it is empty.
func choose(all []*suites.Suite, only string) ([]*suites.Suite, error) {
	if only == "" {
		return all, nil
	}
	want := strings.Split(only, ",")
	for _, n := range want {
		if !slices.Contains(names(all), n) {
			return nil, fmt.Errorf("-only: there is no suite %q", n)
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(s *suites.Suite) bool { return !slices.Contains(want, s.Name) }), nil
}

// noXen is the value of -xen for a lab of plain Linux.
const noXen = "none"

// run builds all suites before it boots the lab, which has the machine for itself
// then.
func run(ctx context.Context, o options) (sum tally.Tally, err error) {
	var say labrun.Checks
	say.Begin()
	lo, err := labrun.Options(command, &say)
	if err != nil {
		return sum, err
	}
	if lo.Xen = o.xen; o.xen == noXen {
		lo.Xen, lo.NoXen = "", true
	}
	if err := o.folders(lo.Checkout); err != nil {
		return sum, err
	}
	made, err := buildAll(ctx, o, lo)
	if err != nil || o.build {
		return sum, err
	}
	if !slices.ContainsFunc(made, func(m suites.Material) bool { return len(m.Units) > 0 }) {
		return sum, fmt.Errorf("-units %s: no suite has such a unit", o.units)
	}
	l, end, err := labrun.Open(ctx, lo)
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, end()) }()
	var errs []error
	for i, s := range o.suites {
		r := &runner{lab: l, suite: s, material: made[i], options: o, say: say.Say,
			dir: filepath.Join(o.out, s.Name)}
		v, err := r.run(ctx)
		if err != nil {
			say.Say("FAIL %s: %v", s.Name, err)
			errs = append(errs, fmt.Errorf("%s: %w", s.Name, err))
		}
		for _, line := range v.Lines {
			fmt.Println(s.Name + ": " + line)
		}
		say.Say("%s: %s; %d fail in all modes", s.Name, v.Tally, v.Alike)
		sum.Passed += v.Tally.Passed
		sum.Failed += v.Tally.Failed
		sum.Skipped += v.Tally.Skipped
		if ctx.Err() != nil {
			break
		}
	}
	return sum, errors.Join(errs...)
}

// folders makes folders of the command line absolute: they are the checkout's.
func (o *options) folders(checkout string) error {
	o.out = cmp.Or(o.out, filepath.Join("build", command))
	for _, dir := range []*string{&o.out, &o.with} {
		if *dir != "" && !filepath.IsAbs(*dir) {
			*dir = filepath.Join(checkout, *dir)
		}
	}
	if filepath.Clean(o.out) == filepath.Clean(o.with) {
		return fmt.Errorf("-with %s: that is the folder of this run's results, which is made anew; use -out", o.with)
	}
	return nil
}

// buildAll makes what the suites need.
func buildAll(ctx context.Context, o options, lo lab.Options) ([]suites.Material, error) {
	c, err := cache.Open(lo.Cache)
	if err != nil {
		return nil, err
	}
	scratch := filepath.Join(lo.Checkout, "build", command, "made")
	if err := os.RemoveAll(scratch); err != nil {
		return nil, err
	}
	b := suites.Builder{Cache: c, Inputs: inputs.NewBuilder(c, lo.Progress), Progress: lo.Progress}
	var made []suites.Material
	for _, s := range o.suites {
		b.Scratch = filepath.Join(scratch, s.Name)
		if err := os.MkdirAll(b.Scratch, 0o755); err != nil {
			return nil, err
		}
		m, err := s.Build(ctx, b)
		if err != nil {
			return nil, fmt.Errorf("build %s: %w", s.Name, err)
		}
		if m.Units, err = o.choose(s, m.Units); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
		made = append(made, m)
	}
	return made, nil
}

// choose returns the units to run.
func (o options) choose(s *suites.Suite, all []string) ([]string, error) {
	units := slices.Clone(all)
	if o.short {
		for _, u := range s.Short {
			if !slices.Contains(all, u) {
				return nil, fmt.Errorf("the short run has a unit %q that there is not", u)
			}
		}
		units = slices.DeleteFunc(units, func(u string) bool { return !slices.Contains(s.Short, u) })
	}
	units = slices.DeleteFunc(units, func(u string) bool { return !o.units.MatchString(u) })
	if len(units) == 0 && cmp.Or(o.units.String(), "") == "" {
		return nil, errors.New("it has no units")
	}
	return units, nil
}
