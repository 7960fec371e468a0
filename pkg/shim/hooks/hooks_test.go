// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/shim/netns"
	"github.com/xcontainer/xcontainer/pkg/shim/record"
)

// script is a hook that is a shell script.
func script(t *testing.T, text string) specs.Hook {
	t.Helper()
	name := filepath.Join(t.TempDir(), "hook")
	if err := os.WriteFile(name, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return specs.Hook{Path: name, Env: []string{"PATH=/usr/bin:/bin"}}
}

func run(t *testing.T) *Run {
	t.Helper()
	return &Run{Kind: CreateRuntime, State: specs.State{
		Version: specs.Version, ID: "c", Status: specs.StateCreating, Pid: 42, Bundle: t.TempDir(),
		Annotations: map[string]string{"a": "b"},
	}}
}

func TestWhatAHookGets(t *testing.T) {
	r := run(t)
	h := script(t, `cat >state; cat /proc/$$/environ >env; tr '\0' '\n' </proc/$$/cmdline >args; pwd >dir; ls -l /proc/$$/fd >fds`)
	h.Args = []string{"zero", "one two", "", "$HOME"}
	h.Env = []string{"A=1", "PATH=/usr/bin:/bin", "B=x y"}
	if err := r.Each(t.Context(), []specs.Hook{h}); err != nil {
		t.Fatal(err)
	}
	get := func(name string) string {
		b, err := os.ReadFile(filepath.Join(r.State.Bundle, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	var state specs.State
	if err := json.Unmarshal([]byte(get("state")), &state); err != nil || !reflect.DeepEqual(state, r.State) {
		t.Errorf("state %s, %v", get("state"), err)
	}
	if got := get("env"); got != "A=1\x00PATH=/usr/bin:/bin\x00B=x y\x00" {
		t.Errorf("environment %q", got)
	}
	// An interpreter puts itself and the script in front.
	if got := get("args"); !strings.HasSuffix(got, h.Path+"\none two\n\n$HOME\n") {
		t.Errorf("arguments %q", got)
	}
	if got := strings.TrimSpace(get("dir")); got != r.State.Bundle {
		t.Errorf("folder %q", got)
	}
}

func TestNoEnvironmentIsNone(t *testing.T) {
	t.Setenv("SHIMS_OWN", "1")
	r := run(t)
	h := specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "/bin/cat /proc/$$/environ >env"}}
	if err := r.Each(t.Context(), []specs.Hook{h}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(r.State.Bundle, "env"))
	if err != nil || len(got) != 0 {
		t.Errorf("environment %q, %v", got, err)
	}
}

func TestNetwork(t *testing.T) {
	other := exec.Command("sleep", "1000")
	other.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer other.Process.Kill()
	r := run(t)
	r.NetNS = netns.Of(other.Process.Pid)
	want, err := os.Readlink(r.NetNS)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Each(t.Context(), []specs.Hook{script(t, "readlink /proc/self/ns/net >net")}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(r.State.Bundle, "net")); err != nil || strings.TrimSpace(string(got)) != want {
		t.Errorf("in %q, %v; want %s", got, err, want)
	}
}

func TestFailures(t *testing.T) {
	one := 1
	silent := script(t, "exit 3")
	loud := script(t, "echo first >&2; echo 'no such bridge ' >&2; exit 1")
	killed := script(t, "kill -9 $$")
	slow := script(t, "sleep 1000")
	slow.Timeout = &one
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		hook specs.Hook
		want string
	}{
		{silent, "failed (exit status 3)"},
		{loud, "failed (exit status 1): no such bridge"},
		{killed, "failed (signal: killed)"},
		{slow, "did not end within 1 s and was killed"},
		{specs.Hook{Path: "/no/such"}, "cannot be run: no such file or directory"},
		{specs.Hook{Path: plain}, "cannot be run: permission denied"},
		{specs.Hook{Path: "true"}, "is not named by an absolute path"},
	} {
		err := run(t).Each(t.Context(), []specs.Hook{tt.hook})
		want := fmt.Sprintf("the createRuntime hook %s %s", tt.hook.Path, tt.want)
		if err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func TestOrder(t *testing.T) {
	list := []specs.Hook{
		script(t, "echo 1 >>log"),
		script(t, "echo 2 >>log; exit 1"),
		script(t, "echo 3 >>log"),
	}
	log := func(r *Run) string {
		b, err := os.ReadFile(filepath.Join(r.State.Bundle, "log"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(strings.Fields(string(b)), "")
	}
	r := run(t)
	if err := r.Each(t.Context(), list); err == nil || log(r) != "12" {
		t.Errorf("Each: %v, ran %s", err, log(r))
	}
	r = run(t)
	if errs := r.All(t.Context(), list); len(errs) != 1 || log(r) != "123" {
		t.Errorf("All: %v, ran %s", errs, log(r))
	}
}

// alive tells whether the process whose pid is in the file runs.
func alive(t *testing.T, name string) bool {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	p, err := record.Of(pid)
	return err == nil && p.Alive()
}

// TestKillTakesItsChildren has a hook whose child holds standard error open.
func TestKillTakesItsChildren(t *testing.T) {
	r := run(t)
	ctx, cancel := context.WithCancel(t.Context())
	h := script(t, "sleep 1000 & echo $! >child; mv child pid; wait")
	pid := filepath.Join(r.State.Bundle, "pid")
	go func() {
		defer cancel()
		for range 1000 {
			if _, err := os.Stat(pid); err == nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	err := r.Each(ctx, []specs.Hook{h})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	for range 1000 {
		if !alive(t, pid) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("its child is still there")
}

// TestWhatItLeavesBehind has a hook that starts a server and ends: the server
// stays, and nobody waits for it.
func TestWhatItLeavesBehind(t *testing.T) {
	r := run(t)
	if err := r.Each(t.Context(), []specs.Hook{script(t, "sleep 1000 & echo $! >pid")}); err != nil {
		t.Fatal(err)
	}
	pid := filepath.Join(r.State.Bundle, "pid")
	if !alive(t, pid) {
		t.Error("the server has ended")
	}
	b, _ := os.ReadFile(pid)
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	syscall.Kill(n, syscall.SIGKILL)
}

func TestTail(t *testing.T) {
	var w tail
	for range 1000 {
		fmt.Fprintln(&w, "a line that is not the last")
	}
	fmt.Fprint(&w, strings.Repeat("x", 2*maxTail)+"\nlast\n\n")
	if w.lastLine() != "last" || len(w.buf) > maxTail {
		t.Errorf("%d bytes, %q", len(w.buf), w.lastLine())
	}
	if (&tail{}).lastLine() != "" {
		t.Error("a line of nothing")
	}
}
