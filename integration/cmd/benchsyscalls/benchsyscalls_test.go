// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/xcontainer/xcontainer/integration/internal/ctrbox"
)

func TestChoose(t *testing.T) {
	all := environments("4.17")
	for _, c := range []struct{ only, want string }{
		{"", "runc-pti runc-nopti xen-off-up xen-off-smp xen-entry-up xen-full-up xen-full-smp xkernel-entry-up xkernel-full-up xkernel-full-smp"},
		{"runc-pti", "runc-pti"},
		{"xkernel,xen-full-up", "xen-full-up xkernel-entry-up xkernel-full-up xkernel-full-smp"},
		{"xen,xen-full-up", "xen-off-up xen-off-smp xen-entry-up xen-full-up xen-full-smp"},
	} {
		got, err := choose(all, c.only)
		if err != nil {
			t.Errorf("choose(%q): %v", c.only, err)
		}
		var names []string
		for _, e := range got {
			names = append(names, configNames(e.configs)...)
		}
		if strings.Join(names, " ") != c.want {
			t.Errorf("choose(%q) = %v, want %s", c.only, names, c.want)
		}
	}
	for _, only := range []string{"xen-full", "xen,", "xen xkernel"} {
		if _, err := choose(all, only); err == nil {
			t.Errorf("choose(%q) succeeded", only)
		}
	}
	// choose left all as it was.
	if len(all[2].configs) != 5 {
		t.Errorf("%d configurations on Xen are left", len(all[2].configs))
	}
}

func TestParseSysbench(t *testing.T) {
	for _, c := range []struct {
		in   string
		want figure
	}{
		{"getpid.min 490.125 ns\ngetpid.mean 512.000 ns\n", figure{490.125, 512}},
		{"command.mean 250.5 ms\ncommand.min 230.25 ms\n", figure{230_250_000, 250_500_000}},
	} {
		if got, err := parseSysbench(c.in); err != nil || got != c.want {
			t.Errorf("parseSysbench(%q) = %v, %v, want %v", c.in, got, err, c.want)
		}
	}
	for _, in := range []string{
		"",
		"getpid.min 490 ns\n",
		"getpid.min 490 ns\ngetpid.min 512 ns\n",
		"getpid.min 490 ns\ngetpid.mean 512 ns\ngetpid.max 600 ns\n",
		"getpid.min 490 ns\ngetpid.mean 512 s\n",
		"getpid.min 490 ns\ngetpid.mean -1 ns\n",
		"getpid.min 490 ns\ngetpid.mean NaN ns\n",
		"getpid.min 490 ns\ngetpid.mean Inf ns\n",
		"getpid.min 0 ns\ngetpid.mean 512 ns\n",
		"getpid.min 490 ns\ngetpid.mean\n",
		"getpid.min 490 ns\ngetpid.best 512 ns\n",
	} {
		if got, err := parseSysbench(in); err == nil {
			t.Errorf("parseSysbench(%q) = %v, want an error", in, got)
		}
	}
}

func TestCalls(t *testing.T) {
	got, err := parseCalls("mode bounce\nrewriting on\ncalls_direct 900\ncalls_bounced 100\nsites_abs 7\n")
	if want := (calls{900, 100}); err != nil || got != want {
		t.Errorf("parseCalls = %v, %v, want %v", got, err, want)
	}
	if share, ok := got.share(); !ok || share != 90 {
		t.Errorf("share = %v, %t, want 90", share, ok)
	}
	if got := (calls{1000, 101}).since(got); got != (calls{100, 1}) {
		t.Errorf("since = %v", got)
	}
	if got := (calls{1, 1}).since(calls{5, 5}); got != (calls{}) {
		t.Errorf("since what was more = %v", got)
	}
	if _, ok := (calls{}).share(); ok {
		t.Error("there is a share of no calls")
	}
}

func TestCheck(t *testing.T) {
	up := config{vcpus: 1, mode: ctrbox.ModeBounce, rewriting: true}
	smp := config{vcpus: 2, mode: ctrbox.ModeOff}
	plain := config{runtime: ctrbox.Runc}
	const bounce = "mode bounce\nrewriting on\n"
	for _, c := range []struct {
		config config
		out    string
		ok     bool
	}{
		{up, "1\n6.12.1\n#1 Thu\n" + bounce, true},
		{up, "2\n6.12.1\n#1 Thu\n" + bounce, false},
		{up, "1\n6.12.1\n#1 SMP Thu\n" + bounce, false},
		{up, "1\n6.12.1\n#1 Thu\n", false},
		{up, "1\n6.12.1\n#1 Thu\nmode bounce\nrewriting off\n", false},
		{up, "1\n6.12.1\n#1 Thu\nmode shared\nrewriting on\n", false},
		{smp, "2\n6.12.1\n#1 SMP Thu\nmode off\nrewriting off\n", true},
		{smp, "2\n6.12.1\n#1 SMP Thu\n", true},
		{smp, "2\n6.12.1\n#1 Thu\n", false},
		{smp, "2\n6.12.1\n#1 SMP Thu\n" + bounce, false},
		{plain, "2\n6.12.1\n#1 SMP Thu\n", true},
		{plain, "2\n6.12.1\n", false},
	} {
		release, err := c.config.check(c.out)
		if (err == nil) != c.ok || c.ok && release != "6.12.1" {
			t.Errorf("%+v: check(%q) = %q, %v", c.config, c.out, release, err)
		}
	}
}

func TestParseWork(t *testing.T) {
	w := workloads[0]
	const figures = "getpid.min 490 ns\ngetpid.mean 512 ns\n"
	const before, after = "calls_direct 10\ncalls_bounced 20\n", "calls_direct 1010\ncalls_bounced 25\n"
	got, err := parseWork(w, before+mark+"\n"+figures+mark+"\n"+after)
	if want := (result{figure{490, 512}, calls{1000, 5}}); err != nil || got != want {
		t.Errorf("parseWork = %v, %v, want %v", got, err, want)
	}
	got, err = parseWork(w, mark+"\n"+figures+mark+"\n")
	if want := (result{figure: figure{490, 512}}); err != nil || got != want {
		t.Errorf("parseWork without counters = %v, %v, want %v", got, err, want)
	}
	for _, out := range []string{"", before + mark + "\n" + figures, before + mark + "\n" + mark + "\n" + after} {
		if got, err := parseWork(w, out); err == nil {
			t.Errorf("parseWork(%q) = %v, want an error", out, got)
		}
	}
}

// TestWorkScript has a shell run it.
func TestWorkScript(t *testing.T) {
	const fine = "echo getpid.min SECONDS ns; echo getpid.mean 512 ns"
	for script, ok := range map[string]bool{fine: true, fine + "; exit 3": false} {
		w := workload{script: script, parse: parseSysbench}
		out, err := exec.CommandContext(t.Context(), "sh", "-c", workScript(w, 490)).Output()
		if (err == nil) != ok {
			t.Errorf("%s: %v", script, err)
		}
		if got, err := parseWork(w, string(out)); err != nil || got.figure != (figure{490, 512}) {
			t.Errorf("%s: %v, %v", script, got, err)
		}
	}
}

// TestProgram runs what is run in containers on this machine.
func TestProgram(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Fatal("no gcc: install it with make deps")
	}
	program, root := filepath.Join(t.TempDir(), programName), filepath.Join(t.TempDir(), "root")
	if err := buildProgram(t.Context(), "../../xlibos/bench", program); err != nil {
		t.Fatal(err)
	}
	var seen []string
	for _, w := range workloads {
		if slices.Contains(seen, w.name) {
			t.Errorf("two workloads %s", w.name)
		}
		seen = append(seen, w.name)
		if w.name == "script" && os.Getuid() != 0 {
			t.Log("only root can try a workload with chroot")
			continue
		}
		line := strings.NewReplacer(mount+"/"+programName, program, "SECONDS", "0.01", scriptFolder, root).
			Replace("{ " + cmp.Or(w.prepare, ":") + "\n} >&2\n" + w.script)
		out, err := exec.CommandContext(t.Context(), "sh", "-c", line).Output()
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		f, err := w.parse(string(out))
		if err != nil || f.best > f.mean {
			t.Errorf("%s: %v, %v", w.name, f, err)
		}
	}
	for _, args := range []string{"", "1", "x getpid", "0 getpid", "nan getpid", "1e9 getpid", "1 no-such", "1 getpid more", "1 run", "0.01 run false"} {
		if err := exec.CommandContext(t.Context(), program, strings.Fields(args)...).Run(); err == nil {
			t.Errorf("%s %s succeeded", programName, args)
		}
	}
}
