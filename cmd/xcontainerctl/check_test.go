// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xcontainer/xcontainer/pkg/libos"
	"github.com/xcontainer/xcontainer/pkg/xen"
	"github.com/xcontainer/xcontainer/pkg/xen/xentest"
)

// host lays down the files of a machine on which nothing is wrong, and returns
// the folder of the guest's files.
func (w *world) host() (share string) {
	w.Helper()
	share = w.TempDir()
	for path, text := range map[string]string{
		"dev/xen/privcmd": "", "dev/xen/hypercall": "", "dev/xen/evtchn": "",
		"proc/filesystems":                 "nodev\tproc\nnodev\toverlay\n\text4\n",
		"proc/meminfo":                     "MemTotal: 1000 kB\nMemAvailable:     800000 kB\n",
		"sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
	} {
		w.file(filepath.Join(w.sys.files, path), text)
	}
	w.file(filepath.Join(share, libos.KernelFile), string(xentest.GuestKernel()))
	w.file(filepath.Join(share, libos.KernelFileUP), string(xentest.GuestKernel()))
	w.file(filepath.Join(share, libos.InitramfsFile), "070701")
	w.file(filepath.Join(share, manifestFile), `{"kernel": {"version": "6.12.1-x"}}`)
	return share
}

func (w *world) file(path, text string) {
	w.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.Fatal(err)
	}
}

// checked runs check and returns its items by name.
func (w *world) checked(share string) (code int, fit bool, items map[string]item) {
	w.Helper()
	code, out, errOut := w.run("check", "--json", "--share", share)
	var r checked
	if err := json.Unmarshal([]byte(out), &r); err != nil || errOut != "" {
		w.Fatalf("%v in %q, %q", err, out, errOut)
	}
	items = map[string]item{}
	for _, i := range r.Items {
		items[i.Name] = i
	}
	return code, r.Fit, items
}

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(w *world, share string)
		item  string
		level level
		says  string
	}{
		"good":           {func(*world, string) {}, "libos", levelOK, "kernels 6.12.1-x"},
		"xen is named":   {func(*world, string) {}, "xen", levelOK, "Xen 4.17.twin"},
		"scheduler":      {func(*world, string) {}, "scheduler", levelOK, "credit2"},
		"no containerd":  {func(w *world, _ string) { delete(w.programs, "containerd") }, "containerd", levelWarn, "1.6 to 2.4"},
		"old containerd": {func(w *world, _ string) { w.programs["containerd"] = "containerd x 1.5.9~ds1 abc" }, "containerd", levelWarn, "version 1.5.9~ds1;"},
		"Debian's":       {func(w *world, _ string) { w.programs["containerd"] = "containerd x 1.6.20~ds1 abc" }, "containerd", levelOK, "version 1.6.20~ds1"},
		"odd containerd": {func(w *world, _ string) { w.programs["containerd"] = "unknown" }, "containerd", levelWarn, `"unknown"`},
		"no module":      {func(w *world, _ string) { os.Remove(filepath.Join(w.sys.files, "dev/xen/evtchn")) }, "devices", levelFail, "modprobe xen-evtchn"},
		"no kernel":      {func(_ *world, share string) { os.Remove(filepath.Join(share, libos.KernelFile)) }, "libos", levelFail, "make libos"},
		"no UP kernel":   {func(_ *world, share string) { os.Remove(filepath.Join(share, libos.KernelFileUP)) }, "libos", levelFail, libos.KernelFileUP + ": install it with `make libos`"},
		"bad kernel":     {func(w *world, share string) { w.file(filepath.Join(share, libos.KernelFile), "x") }, "libos", levelFail, libos.KernelFile},
		"no manifest":    {func(_ *world, share string) { os.Remove(filepath.Join(share, manifestFile)) }, "libos", levelWarn, "unknown version"},
		"no shim":        {func(w *world, _ string) { delete(w.programs, shimProgram) }, "shim", levelFail, "PATH"},
		"other shim":     {func(w *world, _ string) { w.programs[shimProgram] = "Version: v9" }, "shim", levelWarn, "v9"},
		"no daemon":      {func(w *world, _ string) { w.sys.dial = func(string) error { return errors.New("refused") } }, "daemon", levelWarn, "refused"},
		"cgroup 1":       {cgroup1, "cgroups", levelOK, "version 1"},
		"no cgroups":     {func(w *world, _ string) { os.RemoveAll(filepath.Join(w.sys.files, "sys")) }, "cgroups", levelWarn, "mount"},
		"old kernel":     {func(w *world, _ string) { w.sys.feature = func(string) error { return errors.ErrUnsupported } }, "kernel", levelFail, "Linux 5.6"},
		"no overlay":     {func(w *world, _ string) { w.file(filepath.Join(w.sys.files, "proc/filesystems"), "ext4\n") }, "overlay", levelWarn, "modprobe overlay"},
		"little dom0": {func(w *world, _ string) {
			w.file(filepath.Join(w.sys.files, "proc/meminfo"), "MemAvailable: 1000 kB\n")
		},
			"dom0", levelWarn, "dom0_mem"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.bigMachine()
			share := w.host()
			c.spoil(w, share)
			code, fit, items := w.checked(share)
			got := items[c.item]
			if got.Level != c.level || !strings.Contains(got.Text, c.says) {
				t.Errorf("got %+v", got)
			}
			want := exitOK
			if c.level == levelFail {
				want = exitError
			}
			if code != want || fit != (want == exitOK) {
				t.Errorf("exit %d, fit %v: %+v", code, fit, items)
			}
		})
	}
}

func cgroup1(w *world, _ string) {
	os.Remove(filepath.Join(w.sys.files, "sys/fs/cgroup/cgroup.controllers"))
	w.file(filepath.Join(w.sys.files, "sys/fs/cgroup/memory/tasks"), "")
}

// bigMachine has room for domains; its memory is never touched.
func (w *world) bigMachine() {
	w.Helper()
	m, err := xentest.NewMachine(xentest.Options{Frames: fewDomains >> 12})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { m.Close() })
	w.sys.openXen = func() (*xen.Host, error) { return xen.New(kept{m}), nil }
}

func TestCheckWithoutXenSaysOneThingOfIt(t *testing.T) {
	w := newWorld(t)
	share := w.host()
	w.sys.openXen = func() (*xen.Host, error) { return nil, xen.ErrNoXen }
	code, fit, items := w.checked(share)
	if code != exitError || fit || items["xen"].Level != levelFail {
		t.Errorf("exit %d, %+v", code, items)
	}
	for _, name := range []string{"devices", "scheduler", "memory"} {
		if i, ok := items[name]; ok {
			t.Errorf("also %+v", i)
		}
	}
}

func TestCheckMemory(t *testing.T) {
	for free, want := range map[uint64]level{oneDomain - 1: levelFail, oneDomain: levelWarn, fewDomains: levelOK} {
		if i := checkMemory(xen.Capacity{Free: free, Total: 1 << 40}); i.Level != want {
			t.Errorf("%d bytes: %+v", free, i)
		}
	}
	if i := checkScheduler(xen.Capacity{Scheduler: "credit"}); i.Level != levelWarn || !strings.Contains(i.Text, "sched=credit2") {
		t.Errorf("%+v", i)
	}
}

func TestCheckText(t *testing.T) {
	w := newWorld(t)
	share := w.host()
	code, out, errOut := w.run("check", "--share", share)
	// The small machine of the other tests has no room for a domain.
	if code != exitError || errOut != "" || !strings.Contains(out, "\nfail  memory ") || !strings.HasPrefix(out, "ok    xen ") {
		t.Errorf("exit %d, %q\n%s", code, errOut, out)
	}
}

// TestRealFeatures: the machine that runs tests has what dom0 needs.
func TestRealFeatures(t *testing.T) {
	for _, f := range features {
		if err := feature(f.name); err != nil {
			t.Errorf("%s: %v", f.name, err)
		}
	}
	if feature("x") == nil {
		t.Error("an unknown feature is there")
	}
	if n, err := readKB("/proc/meminfo", "MemAvailable"); err != nil || n == 0 {
		t.Errorf("memory: %d, %v", n, err)
	}
	if out, err := output(t.Context(), "echo", "x"); err != nil || out != "x\n" {
		t.Errorf("echo: %q, %v", out, err)
	}
	if _, err := output(t.Context(), "no-such-program"); err == nil || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("no program: %v", err)
	}
}
