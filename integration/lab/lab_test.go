// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/xcontainer/xcontainer/integration/internal/inputs"
)

func TestMachineArgs(t *testing.T) {
	m := machine{xen: true, memMB: 4096, cpus: 2, port: 2222, payload: "/a,b", linuxArgs: "x=1,2"}
	args := strings.Join(m.args(), "\n") + "\n"
	for _, want := range []string{
		"-accel\ntcg,thread=multi\n-cpu\nmax,-smap\n",
		"-smp\n2\n-m\n4096\n",
		"-kernel\nxen\n",
		"spec-ctrl=eager-fpu",
		"dom0_mem=1024M,max:1024M",
		"x=1,,2,initrd\n",
		"hostfwd=tcp:127.0.0.1:2222-:22\n",
		"mount_tag=payload,path=/a,,b\n",
		"snapshot=on\n",
	} {
		if !strings.Contains(args, want) {
			t.Errorf("no %q in\n%s", want, args)
		}
	}
	m = machine{kvm: true, memMB: 2048, cpus: 1, keepDisk: true, shares: map[string]string{"images": "/i"}}
	args = strings.Join(m.args(), "\n") + "\n"
	for _, want := range []string{
		"-accel\nkvm\n-cpu\nhost\n", "-kernel\nvmlinuz\n-append\nconsole=ttyS0 ",
		"snapshot=off\n", "mount_tag=images,path=/i\n",
	} {
		if !strings.Contains(args, want) {
			t.Errorf("without Xen: no %q in\n%s", want, args)
		}
	}
}

func TestCPUHasVirt(t *testing.T) {
	for text, want := range map[string]bool{
		"flags\t\t: fpu vmx sse\n":               true,
		"flags : svm":                            true,
		"flags : fpu svm_lock vmx_flags\n":       false,
		"model name : vmx\nvmx flags : vnmi x\n": false,
		"":                                       false,
	} {
		if got := cpuHasVirt([]byte(text)); got != want {
			t.Errorf("cpuHasVirt(%q) = %v", text, got)
		}
	}
}

func TestParseStat(t *testing.T) {
	const rest = " 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20 21"
	got, err := parseStat("42 (evil) R name)) S" + rest)
	if err != nil || got != "777" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := parseStat("42 (x) Z" + rest); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("zombie: %v", err)
	}
	for _, bad := range []string{"", "42 (x", "42 (x) S 1 2"} {
		if _, err := parseStat(bad); err == nil {
			t.Errorf("parseStat(%q) gave no error", bad)
		}
	}
}

func TestProcess(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go cmd.Wait()
	start, err := procStart(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	s := State{Pid: cmd.Process.Pid, Start: start}
	if !s.alive() {
		t.Error("a running process is not alive")
	}
	if err := endProcess(s.Pid, "other"); err != nil || !s.alive() {
		t.Errorf("a process with another start time was ended, %v", err)
	}
	if err := endProcess(s.Pid, s.Start); err != nil || s.alive() {
		t.Errorf("process not ended, %v", err)
	}
}

func TestStateFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := readState(dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("no file: %v", err)
	}
	start, err := procStart(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	want := &State{Pid: os.Getpid(), Start: start, Port: 5, Xen: "4.17"}
	if err := writeState(dir, want); err != nil {
		t.Fatal(err)
	}
	if got, err := readState(dir); err != nil || *got != *want {
		t.Errorf("got %+v, %v", got, err)
	}
	// The pid was used again by another process.
	want.Start = "1"
	if err := writeState(dir, want); err != nil {
		t.Fatal(err)
	}
	if _, err := readState(dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("ended machine: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, stateFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readState(dir); err == nil || errors.Is(err, ErrNotRunning) {
		t.Errorf("damaged file: %v", err)
	}
}

func TestCrashLine(t *testing.T) {
	const good = "(XEN) Xen version 4.17\n[    1.0] lab: boot\n"
	if l, bad := crashLine([]byte(good)); bad {
		t.Errorf("crash found in %q", l)
	}
	l, bad := crashLine([]byte(good + "(XEN) Panic on CPU 0:\n(XEN) FATAL TRAP\n"))
	if !bad || l != "(XEN) Panic on CPU 0:" {
		t.Errorf("got %q, %v", l, bad)
	}
}

func TestQuote(t *testing.T) {
	args := []string{"plain", "", "two words", "it's", `"$HOME" \ *`, "line\nbreak"}
	out, err := exec.Command("sh", "-c", "printf '%s\\0' "+Quote(args...)).Output()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	if !slices.Equal(got, args) {
		t.Errorf("the shell sees %q, want %q", got, args)
	}
}

func TestDropbearKey(t *testing.T) {
	k := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	b := dropbearKey(k)
	if n := binary.BigEndian.Uint32(b); n != 11 || string(b[4:15]) != "ssh-ed25519" {
		t.Errorf("type: %d, %q", n, b[4:15])
	}
	if n := binary.BigEndian.Uint32(b[15:]); n != 64 || !bytes.Equal(b[19:], k) {
		t.Errorf("key: %d bytes", n)
	}
}

func TestDefaults(t *testing.T) {
	t.Setenv(EnvName, "")
	checkout := t.TempDir()
	if err := os.WriteFile(filepath.Join(checkout, "go.mod"), []byte(modulePath), 0o644); err != nil {
		t.Fatal(err)
	}
	sub := filepath.Join(checkout, "a", "b")
	if err := os.MkdirAll(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(sub)
	o, err := Options{}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	real, _ := filepath.EvalSymlinks(checkout)
	if got, _ := filepath.EvalSymlinks(o.Checkout); got != real {
		t.Errorf("checkout %s, want %s", got, real)
	}
	if o.Xen != inputs.DefaultXen || o.MemMB != DefaultMemMB || o.CPUs != DefaultCPUs || o.Name != "default" {
		t.Errorf("defaults: %+v", o)
	}
	one, err := o.stateDir()
	if err != nil {
		t.Fatal(err)
	}
	o.Name = "other"
	if two, _ := o.stateDir(); two == one {
		t.Error("two names share a state directory")
	}
	for _, bad := range []Options{{Name: "a/b"}, {Name: "UP"}, {MemMB: 100}, {CPUs: -1}, {CPUs: 100}} {
		if _, err := bad.withDefaults(); err == nil {
			t.Errorf("%+v: no error", bad)
		}
	}
	for says, bad := range map[string]Options{
		"Xen 4.17 and no Xen":   {NoXen: true, Xen: "4.17"},
		"arguments for Xen":     {NoXen: true, XenArgs: "x"},
		"use on or off":         {NoXen: true, PTI: "yes"},
		"--pti=on needs":        {PTI: "on"},
		"nopti in --linux-args": {NoXen: true, PTI: "on", LinuxArgs: "x=1 nopti"},
		"pti=off in":            {NoXen: true, PTI: "on", LinuxArgs: "pti=off"},
		"mitigations=off in":    {NoXen: true, PTI: "on", LinuxArgs: "mitigations=off"},
	} {
		if _, err := bad.withDefaults(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v, want %q", bad, err, says)
		}
	}
	o, err = Options{NoXen: true, PTI: "off", LinuxArgs: "x=1"}.withDefaults()
	if err != nil || o.linuxArgs() != "pti=off x=1" || !strings.Contains(o.title(), "isolation off") {
		t.Errorf("pti: %q, %q, %v", o.linuxArgs(), o.title(), err)
	}
	if ptiOf("flags : fpu pti sse") != "on" || ptiOf("flags : fpu ptigo") != "off" {
		t.Error("the flag is not read as it should")
	}
	t.Chdir("/")
	if _, err := (Options{}).withDefaults(); !errors.Is(err, ErrNoCheckout) {
		t.Errorf("outside a checkout: %v", err)
	}
}

func TestCheckHostNamesPackages(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := CheckHost(context.Background())
	if !errors.Is(err, ErrMissing) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"qemu-system-x86", "apt-get install", "go (" + minGo} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
}

func TestTarCopies(t *testing.T) {
	src := filepath.Join(t.TempDir(), "tree")
	if err := os.MkdirAll(filepath.Join(src, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(src, "sub", "f"), []byte("data"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("sub/f", filepath.Join(src, "link")); err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := writeTar(&buf, src, "tree"); err != nil {
		t.Fatal(err)
	}
	dst := t.TempDir()
	root, err := os.OpenRoot(dst)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := readTar(&buf, root, "tree", "copy"); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dst, "copy", "link"))
	if err != nil || string(got) != "data" {
		t.Errorf("copy holds %q, %v", got, err)
	}
	if st, _ := os.Stat(filepath.Join(dst, "copy", "sub", "f")); st.Mode() != 0o750 {
		t.Errorf("mode %v", st.Mode())
	}
}

func TestReadTarStaysInside(t *testing.T) {
	for name, hs := range map[string][]tar.Header{
		"parent":   {{Name: "../x", Typeflag: tar.TypeReg}},
		"absolute": {{Name: "/x", Typeflag: tar.TypeReg}},
		"other":    {{Name: "b", Typeflag: tar.TypeReg}},
		"deep":     {{Name: "a/../../x", Typeflag: tar.TypeReg}},
		"device":   {{Name: "a", Typeflag: tar.TypeChar}},
		"link": {
			{Name: "a", Typeflag: tar.TypeDir, Mode: 0o755},
			{Name: "a/l", Typeflag: tar.TypeSymlink, Linkname: "../../.."},
			{Name: "a/l/x", Typeflag: tar.TypeReg},
		},
	} {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		for i := range hs {
			if err := w.WriteHeader(&hs[i]); err != nil {
				t.Fatal(err)
			}
		}
		w.Close()
		outer := t.TempDir()
		dir := filepath.Join(outer, "in", "to")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := readTar(&buf, root, "a", "a"); err == nil {
			t.Errorf("%s: no error", name)
		}
		root.Close()
		if _, err := os.Lstat(filepath.Join(outer, "x")); err == nil {
			t.Errorf("%s: wrote outside", name)
		}
	}
}
