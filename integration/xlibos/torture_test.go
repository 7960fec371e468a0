// SPDX-License-Identifier: Apache-2.0

package xlibos

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/xcontainer/xcontainer/integration/internal/ctrbox"
	"github.com/xcontainer/xcontainer/integration/internal/inputs"
	"github.com/xcontainer/xcontainer/integration/internal/labrun"
	"github.com/xcontainer/xcontainer/integration/lab"
)

// program is a file of torture/ and what is known of its calls.
type program struct {
	name string
	// rewritten: with X-LibOS whole some of its sites are.
	rewritten bool
	// direct is the share of calls that then do without Xen, at least. The rest are
	// calls of sites that are new, or of forms that are never rewritten.
	direct float64
	// forms: it makes new sites all the time, of all forms.
	forms bool
	// whole: it is about what is rewritten, and with the entry only there is nothing.
	whole bool
}

var programs = []program{
	{name: "regs", rewritten: true, direct: 0.1},
	{name: "race", rewritten: true, direct: 0.1, forms: true},
	{name: "restart", rewritten: true},
	{name: "singlestep", rewritten: true},
	{name: "seccomp", rewritten: true},
	{name: "longjmp", rewritten: true, direct: 0.3},
	{name: "redzone", whole: true}, // its sites are to be left alone
	{name: "branch", whole: true},  // most of them too
	{name: "gs"},                   // may be without for its %gs
	{name: "forks", rewritten: true},
	{name: "stacks"},
	{name: "selfmod", rewritten: true, whole: true},
	{name: "text", rewritten: true, whole: true},
	{name: "edges", rewritten: true, whole: true},
}

// common is linked to each program.
var common = []string{"torture.c", "sites.c", "alarm.c"}

// What the tests take from their environment.
const (
	envSeconds = "XLIBOS_SECONDS" // of each program
	envModes   = "XLIBOS_MODES"   // of X-LibOS, with commas
	envKernel  = "XLIBOS_KERNEL"  // debugKernel for the kernel that checks itself, which is SMP
	envBeside  = "XLIBOS_BESIDE"  // not empty: a container for each program, at the same time
)

// debugKernel is also the end of that kernel's release.
const debugKernel = "debug"

const (
	// folder is where dom0 has the programs, and containers see it.
	folder = "/var/tmp/torture"
	// patience is what a program takes beyond its time before it is given up; it
	// ends itself some time earlier.
	patience = 8 * time.Minute
)

func TestTorture(t *testing.T) {
	seconds, err := strconv.Atoi(cmp.Or(os.Getenv(envSeconds), "4"))
	if err != nil || seconds < 1 {
		t.Fatalf("%s=%q is no number of seconds", envSeconds, os.Getenv(envSeconds))
	}
	modes := strings.Split(cmp.Or(os.Getenv(envModes), ctrbox.XLibOSFull+","+ctrbox.XLibOSEntry+","+ctrbox.XLibOSOff), ",")
	for _, m := range modes {
		if !slices.Contains([]string{ctrbox.XLibOSFull, ctrbox.XLibOSEntry, ctrbox.XLibOSOff}, m) {
			t.Fatalf("%s: %q is no mode of X-LibOS", envModes, m)
		}
	}
	sizes := []int{1, 2}
	switch kernel := os.Getenv(envKernel); kernel {
	case "":
	case debugKernel:
		useDebugKernel(t)
		sizes = []int{2}
	default:
		t.Fatalf("%s: there is no kernel %q", envKernel, kernel)
	}
	build(t)
	beside := os.Getenv(envBeside) != ""
	for _, vcpus := range sizes {
		for _, mode := range modes {
			if mode != ctrbox.XLibOSFull && vcpus != sizes[0] {
				continue // little is left to be tried, which takes one size of guest
			}
			t.Run(fmt.Sprintf("%d vCPU, %s", vcpus, mode), func(t *testing.T) {
				if vcpus == 1 {
					t.Parallel() // a guest of one CPU leaves the other to the next
				}
				name := fmt.Sprintf("torture-%d-%s", vcpus, mode)
				var shared *guest
				if !beside {
					shared = openGuest(t, name, mode, vcpus)
				}
				for _, p := range programs {
					if p.whole && mode == ctrbox.XLibOSEntry {
						continue
					}
					t.Run(p.name, func(t *testing.T) {
						g := shared
						if beside {
							t.Parallel()
							g = openGuest(t, name+"-"+p.name, mode, vcpus)
						}
						g.run(t, p, seconds)
					})
				}
			})
		}
	}
}

func onDebugKernel() bool { return os.Getenv(envKernel) == debugKernel }

// useDebugKernel puts the debug kernel in the place of the SMP kernel, for as long as
// the test runs.
func useDebugKernel(t *testing.T) {
	t.Helper()
	dom0 := func(ctx context.Context, script string) {
		t.Helper()
		script = "cd " + labrun.Payload + "/share/xcontainer && " + script
		if _, err := ctrbox.In(ctx, machine, time.Minute, script); err != nil {
			t.Fatalf("%s: %v (the kernel comes from make libos-debug)", script, err)
		}
	}
	dom0(t.Context(), "mount --bind vmlinux-debug vmlinux")
	t.Cleanup(func() { dom0(context.WithoutCancel(t.Context()), "umount vmlinux") })
}

// build compiles the programs and brings them to dom0.
func build(t *testing.T) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), filepath.Base(folder))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, p := range programs {
		args := []string{"-O2", "-static", "-Wall", "-Wextra", "-Werror", "-o", filepath.Join(dir, p.name), p.name + ".c"}
		cmd := exec.CommandContext(t.Context(), "gcc", append(args, common...)...)
		cmd.Dir = "torture"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", p.name, err, out)
		}
	}
	if err := machine.CopyTo(t.Context(), dir, filepath.Dir(folder)); err != nil {
		t.Fatal(err)
	}
}

// guest is a container that programs run in one after the other. It is made anew
// when one of them has ended it.
type guest struct {
	*ctrbox.Box
	runs bool
	told map[string]bool // lines of its log that a test has failed for
}

// openGuest makes a guest with a connection of its own to the lab, for as long as the
// test runs.
func openGuest(t *testing.T, id, mode string, vcpus int) *guest {
	t.Helper()
	l, err := machine.Again(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	g := newGuest(l, id, mode, vcpus)
	t.Cleanup(func() { g.remove(t) })
	return g
}

func newGuest(l *lab.Lab, id, mode string, vcpus int) *guest {
	return &guest{Box: &ctrbox.Box{
		Lab: l, ID: id, Image: inputs.BusyboxImage, Runtime: ctrbox.Ours, XLibOS: mode, VCPUs: vcpus,
		// The debug kernel wants more than a container has by itself.
		Args: []string{"--annotation", "io.xcontainer.memory=512M",
			"--mount", "type=bind,src=" + folder + ",dst=/torture,options=rbind:ro",
			// The kernel's settings, to be written.
			"--mount", "type=proc,src=proc,dst=/kernel,options=rw"},
	}}
}

func (g *guest) start(t *testing.T) {
	t.Helper()
	g.remove(t)
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.runs, g.told = true, map[string]bool{}
	out, err := g.Exec(t.Context(), time.Minute, "nproc; uname -r; uname -v")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out, "\n")
	if len(lines) < 3 || lines[0] != strconv.Itoa(g.VCPUs) || strings.Contains(lines[2], "SMP") != (g.VCPUs > 1) ||
		strings.HasSuffix(lines[1], "-"+debugKernel) != onDebugKernel() {
		t.Errorf("processors and kernel: %q, want %d and one to go with it, of %s=%q", out, g.VCPUs, envKernel, os.Getenv(envKernel))
	}
}

func (g *guest) remove(t *testing.T) {
	t.Helper()
	g.runs = false
	if err := g.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

// exec runs a script in the container.
func (g *guest) exec(t *testing.T, limit time.Duration, script string) lab.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit+time.Minute)
	defer cancel()
	r, err := g.Lab.Run(ctx, g.ExecLine(limit, script), nil)
	if err != nil {
		t.Fatalf("%v\n%s%s", err, r.Stdout, r.Stderr)
	}
	return r
}

// mark is a line between the parts of what a script prints.
const mark = "=-=-=\n"

// run runs a program and looks at what it, the counters and the log say.
func (g *guest) run(t *testing.T, p program, seconds int) {
	if !g.runs {
		g.start(t)
	}
	r := g.exec(t, time.Duration(seconds)*time.Second+patience, fmt.Sprintf(`
mark() { printf %s; }
cat /proc/xlibos 2>/dev/null; mark
/torture/%s %d; code=$?; mark
cat /proc/xlibos 2>/dev/null; mark
cat /proc/sys/kernel/tainted; mark
grep debug_locks /proc/lockdep_stats 2>/dev/null; mark
dmesg || code=125
exit $code`, lab.Quote(strings.ReplaceAll(mark, "\n", `\n`)), p.name, seconds))
	parts := strings.Split(string(r.Stdout), mark)
	if len(parts) != 6 {
		g.runs = false
		t.Fatalf("the program did not get to its end: exit code %d\n%s%s\n%s",
			r.Code, r.Stdout, r.Stderr, g.Logs(t.Context()))
	}
	t.Logf("%s%s", parts[1], r.Stderr)
	if r.Code != 0 || !regexp.MustCompile(`^ok \d+ runs\n$`).MatchString(parts[1]) {
		t.Errorf("exit code %d", r.Code)
	}
	before, err := ctrbox.ParseXLibOS(parts[0])
	if err != nil {
		t.Fatal(err)
	}
	after, err := ctrbox.ParseXLibOS(parts[2])
	if err != nil {
		t.Fatal(err)
	}
	g.count(t, p, before, after)
	g.log(t, parts[3], parts[4], parts[5])
}

// count wants the kernel to be in the mode that was asked for, and to have done
// there what a program is about.
func (g *guest) count(t *testing.T, p program, before, after ctrbox.XLibOS) {
	t.Helper()
	d := after.Since(before)
	direct, bounced := d.Direct(), d.Bounced()
	share := float64(direct) / max(1, float64(direct+bounced))
	t.Logf("%v: %.1f %% direct calls", d, 100*share)
	xen := g.Lab.State().Xen
	switch g.XLibOS {
	case ctrbox.XLibOSFull:
		if !after.OnAs(xen) || !after.Rewriting {
			t.Errorf("X-LibOS is in mode %q, rewriting %t, on Xen %s", after.Mode, after.Rewriting, xen)
		}
		// A site that was rewritten in a file stays so for the next program.
		if p.rewritten && (direct == 0 || after.Sites() == 0) {
			t.Errorf("%d direct calls, %d sites rewritten, want some", direct, after.Sites())
		}
		if share < p.direct {
			t.Errorf("%.1f %% of the calls were direct, want %.1f %% or more", 100*share, 100*p.direct)
		}
		for _, form := range ctrbox.Forms {
			if p.forms && d.Value[form] == 0 {
				t.Errorf("%s did not grow", form)
			}
		}
	case ctrbox.XLibOSEntry:
		if !after.OnAs(xen) || after.Rewriting || after.Sites() > 0 {
			t.Errorf("X-LibOS is in mode %q, rewriting %t, with %d sites rewritten, on Xen %s", after.Mode, after.Rewriting, after.Sites(), xen)
		}
	case ctrbox.XLibOSOff:
		if after.On() || after.Direct() > 0 || after.Sites() > 0 {
			t.Errorf("X-LibOS is in mode %q with %d direct calls, want it off", after.Mode, after.Direct())
		}
	}
}

// alarming is in no line of a log of a kernel that is well.
var alarming = regexp.MustCompile(`\b(WARNING|BUG|Oops)\b|INFO: (lockdep|task|rcu)|Call Trace|suspicious RCU usage|possible (circular|recursive) locking|inconsistent lock state|\bstalls? (on|detected)`)

// alarmed are the taint flags of a bad page, a crash, a warning, and a lockup
// (Documentation/admin-guide/tainted-kernels.rst). The log may have lost its
// beginning; they stay.
const alarmed = 1<<5 | 1<<7 | 1<<9 | 1<<14

// log wants the kernel to be well. Each complaint fails one test only, in which it
// is new.
func (g *guest) log(t *testing.T, tainted, locks, dmesg string) {
	t.Helper()
	flags, err := strconv.ParseUint(strings.TrimSpace(tainted), 10, 64)
	if err != nil {
		t.Errorf("/proc/sys/kernel/tainted: %v", err)
	}
	complain := func(key, format string, args ...any) {
		if !g.told[key] {
			g.told[key] = true
			t.Errorf(format, args...)
		}
	}
	if flags&alarmed != 0 {
		complain("tainted", "the kernel is tainted: %#x", flags)
	}
	// After its first report lockdep is off.
	if f := strings.Fields(locks); onDebugKernel() && (len(f) == 0 || f[len(f)-1] != "1") {
		complain("locks", "lockdep is off, or not there: %q", locks)
	}
	lines := strings.Split(dmesg, "\n")
	for i, line := range lines {
		if alarming.MatchString(line) && !g.told[line] {
			for _, l := range lines[i:] {
				g.told[l] = true
			}
			t.Errorf("the kernel's log:\n%s", strings.TrimSpace(strings.Join(lines[max(0, i-5):], "\n")))
			return
		}
	}
}
