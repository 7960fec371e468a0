// SPDX-License-Identifier: Apache-2.0

package holder

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/cgroups/v3"

	"github.com/xcontainer/xcontainer/pkg/shim/netns"
)

func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == Role:
		if err := Run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	case os.Getenv("HOLDER_TEST_SHIM") != "":
		h, err := Start(Config{ID: "x"})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(h.Pid())
		select {} // until killed
	}
	os.Exit(m.Run())
}

func start(t *testing.T) *Holder {
	t.Helper()
	return startWith(t, Config{ID: "some-id"})
}

func startWith(t *testing.T, c Config) *Holder {
	t.Helper()
	h, err := Start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

func done(t *testing.T, h *Holder) {
	t.Helper()
	select {
	case <-h.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the holder did not end")
	}
}

func TestHolderHasItsOwnNetwork(t *testing.T) {
	h := start(t)
	ours, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", h.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	if ours == its {
		t.Errorf("the holder shares the network namespace %s", ours)
	}
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", h.Pid())); err != nil || cwd != "/" {
		t.Errorf("directory %q, %v", cwd, err)
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", h.Pid()))
	if err != nil || string(cmdline) != "xcontainer-holder\x00holder\x00some-id\x00" {
		t.Errorf("command line %q, %v", cmdline, err)
	}
}

func TestNetworkOfSomebodyElse(t *testing.T) {
	first := start(t)
	second := startWith(t, Config{ID: "x", NetNS: netns.Of(first.Pid())})
	want, err := os.Readlink(netns.Of(first.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.Readlink(netns.Of(second.Pid())); err != nil || got != want {
		t.Errorf("in %q, %v; want %s", got, err, want)
	}
	for path, kind := range map[string]error{"/no/such": netns.ErrNotFound, "/dev/null": netns.ErrInvalid} {
		if h, err := Start(Config{ID: "x", NetNS: path}); !errors.Is(err, kind) {
			t.Errorf("%s: %v, %v", path, h, err)
		}
	}
}

// TestInCgroup needs a hierarchy of version 2, limits or not.
func TestInCgroup(t *testing.T) {
	root := "/sys/fs/cgroup"
	if cgroups.Mode() == cgroups.Hybrid {
		root += "/unified"
	}
	path := fmt.Sprintf("/xcontainer-holder-test-%d", os.Getpid())
	err := os.Mkdir(root+path, 0o755)
	if mode := cgroups.Mode(); mode != cgroups.Unified && mode != cgroups.Hybrid || errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.EROFS) {
		t.Skipf("no cgroup of version 2 to be made here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(root + path)
	dir, err := os.Open(root + path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	h := startWith(t, Config{ID: "x", Cgroup: dir})
	defer h.Close()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", h.Pid()))
	if err != nil || !strings.Contains(string(data), "0::"+path+"\n") {
		t.Errorf("in %q, %v", data, err)
	}
}

func TestOOMScore(t *testing.T) {
	h := start(t)
	if err := h.SetOOMScoreAdj(777); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", h.Pid())); err != nil || string(got) != "777\n" {
		t.Errorf("%q, %v", got, err)
	}
	if err := h.SetOOMScoreAdj(2000); err == nil {
		t.Error("2000 is taken")
	}
}

func TestSignalsEndIt(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		t.Run(sig.String(), func(t *testing.T) {
			h := start(t)
			ready(t, h)
			if err := syscall.Kill(h.Pid(), sig); err != nil {
				t.Fatal(err)
			}
			done(t, h)
			if h.Signal() != sig {
				t.Errorf("ended by %v", h.Signal())
			}
			h.Close()
		})
	}
}

// TestIgnoredSignalsEndIt starts a holder as a shim under nohup would.
func TestIgnoredSignalsEndIt(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGHUP} {
		signal.Ignore(sig)
		defer signal.Reset(sig)
		h := start(t)
		ready(t, h)
		if err := syscall.Kill(h.Pid(), sig); err != nil {
			t.Fatal(err)
		}
		done(t, h)
		if h.Signal() != sig {
			t.Errorf("%v: ended by %v", sig, h.Signal())
		}
		h.Close()
	}
}

// ready waits until the holder catches the signals that it inherited as ignored.
func ready(t *testing.T, h *Holder) {
	t.Helper()
	for range 1000 {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.Pid()))
		if err != nil {
			t.Fatal(err)
		}
		_, ignored, _ := strings.Cut(string(b), "SigIgn:\t")
		mask, err := strconv.ParseUint(strings.TrimSpace(ignored[:16]), 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		const hupAndInt = 1<<(syscall.SIGHUP-1) | 1<<(syscall.SIGINT-1)
		if mask&hupAndInt == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the holder goes on ignoring signals")
}

func TestCloseEndsIt(t *testing.T) {
	h := start(t)
	h.Close()
	h.Close()
	if err := syscall.Kill(h.Pid(), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("after Close: %v", err)
	}
}

// TestItEndsWithItsShim kills a process that has started a holder.
func TestItEndsWithItsShim(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "HOLDER_TEST_SHIM=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	_, err = fmt.Fscan(out, &pid)
	cmd.Process.Kill()
	cmd.Wait()
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		// Whoever reaps it now, a zombie is no process that waits.
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the holder %d is still there: %s", pid, stat)
		}
	}
}
