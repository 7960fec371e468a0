// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xcontainer/xcontainer/pkg/shim/record"
	"github.com/xcontainer/xcontainer/pkg/shim/statsapi"
)

// shimOf makes a bundle whose shim answers with counters.
func (w *world) shimOf(ns, id string, s *statsapi.Syscalls) {
	w.Helper()
	w.bundle(ns, id, w.record(id, 1, testUUID))
	w.file(filepath.Join(w.root, ns, id, "address"), "unix:///run/"+ns+"-"+id)
	w.sys.metrics = func(_ context.Context, socket, container string) ([]byte, error) {
		if socket != "/run/"+ns+"-"+id || container != id {
			w.Errorf("asked at %s for %s", socket, container)
		}
		return proto.Marshal(&statsapi.Metrics{Syscalls: s})
	}
}

func TestSyscalls(t *testing.T) {
	w := newWorld(t)
	w.shimOf("k8s.io", "web", &statsapi.Syscalls{Mode: "bounce", Rewriting: "on", Counters: map[string]uint64{
		"calls_direct": 999, "calls_bounced": 1, "sites_abs": 12, "sites_new": 1, "refused_redzone": 3, "restarts": 4, "novel": 5,
	}})
	code, out, errOut := w.run("syscalls", "web", "--namespace", "k8s.io")
	if code != exitOK || errOut != "" {
		t.Fatalf("exit %d, %s", code, errOut)
	}
	const want = `mode bounce
rewriting on
direct calls 999
other calls 1
share of direct calls 99.90 %

REWRITTEN SITES NUMBER FORM
abs 12 7 bytes, number in eax
new 1

REFUSED SITES NUMBER REASON
redzone 3 the word below the stack pointer is in use

OTHER NUMBER
novel 5
restarts 4
`
	var lines []string
	for line := range strings.Lines(out) {
		lines = append(lines, strings.Join(strings.Fields(line), " ")+"\n")
	}
	if got := strings.Join(lines, ""); got != want {
		t.Errorf("got:\n%s", out)
	}
	code, out, _ = w.run("syscalls", "--json", "--namespace", "k8s.io", "web")
	var n callCounts
	if err := json.Unmarshal([]byte(out), &n); err != nil || code != exitOK {
		t.Fatalf("exit %d, %v in %q", code, err, out)
	}
	share := 99.9
	if want := (callCounts{
		Namespace: "k8s.io", Container: "web", Mode: "bounce", Rewriting: "on", Direct: 999, Bounced: 1, Share: &share,
		Sites: map[string]uint64{"abs": 12, "new": 1}, Refused: map[string]uint64{"redzone": 3}, Other: map[string]uint64{"novel": 5, "restarts": 4},
	}); !reflect.DeepEqual(n, want) {
		t.Errorf("%+v, want %+v", n, want)
	}
}

// TestSyscallsOfFew: what is missing is said, and no share of nothing is made up.
func TestSyscallsOfFew(t *testing.T) {
	w := newWorld(t)
	w.shimOf("default", "plain", &statsapi.Syscalls{})
	if code, out, _ := w.run("syscalls", "plain"); code != exitOK || out != "mode  none\n" {
		t.Errorf("a kernel without X-LibOS: exit %d, %q", code, out)
	}
	if code, out, _ := w.run("syscalls", "plain", "--json"); code != exitOK || strings.Contains(out, "direct_percent") || !strings.Contains(out, `"sites": {}`) {
		t.Errorf("the same: exit %d, %q", code, out)
	}
	w.shimOf("default", "idle", &statsapi.Syscalls{Mode: "off"})
	if code, out, _ := w.run("syscalls", "idle"); code != exitOK || strings.Contains(out, "%") {
		t.Errorf("no calls: exit %d, %q", code, out)
	}
	w.shimOf("default", "mute", nil)
	if code, out, errOut := w.run("syscalls", "mute"); code != exitError || out != "" || !strings.Contains(errOut, "the guest of container mute has not told") {
		t.Errorf("no answer: exit %d, %q, %q", code, out, errOut)
	}
	if n := countCalls(&statsapi.Syscalls{Counters: map[string]uint64{callsDirect: math.MaxUint64, callsBounced: math.MaxUint64}}); n.Share == nil || *n.Share != 50 {
		t.Errorf("the largest numbers: %+v", n)
	}
	w.shimOf("default", "odd", &statsapi.Syscalls{Mode: "off", Counters: map[string]uint64{"a\x1b[2J": 1}})
	if _, out, _ := w.run("syscalls", "odd"); strings.Contains(out, "\x1b") {
		t.Errorf("an escape sequence: %q", out)
	}
}

func TestSyscallsErrors(t *testing.T) {
	w := newWorld(t)
	w.shimOf("default", "web", nil)
	w.sys.metrics = func(context.Context, string, string) ([]byte, error) { return nil, errors.New("refused") }
	w.file(filepath.Join(w.root, "default", "runc", "address"), "unix:///run/other") // of another runtime
	w.bundle("default", "early", w.record("early", 1, testUUID))
	w.bundle("default", "bad", w.record("bad", 1, testUUID))
	w.file(filepath.Join(w.root, "default", "bad", "address"), "tcp://x")
	w.bundle("default", "corrupt", w.record("corrupt", 1, testUUID))
	w.file(filepath.Join(w.root, "default", "corrupt", record.Name), "{")
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"syscalls", "web"}, exitError, "ask the shim of container web: refused"},
		{[]string{"syscalls", "nobody"}, exitError, "no X-Container nobody runs in namespace default"},
		{[]string{"syscalls", "runc"}, exitError, "no X-Container runc runs in namespace default"},
		{[]string{"syscalls", "early"}, exitError, "no X-Container early runs in namespace default"},
		{[]string{"syscalls", "bad"}, exitError, "find the shim of container bad: "},
		{[]string{"syscalls", "corrupt"}, exitError, "read record"},
		{[]string{"syscalls", "../default/web"}, exitError, "no name of a container"},
		{[]string{"syscalls"}, exitUsage, "which container?"},
	} {
		code, out, errOut := w.run(c.args...)
		if code != c.code || out != "" || !strings.Contains(errOut, c.says) {
			t.Errorf("%q: exit %d, %q, %q", c.args, code, out, errOut)
		}
	}
	w.sys.metrics = func(context.Context, string, string) ([]byte, error) { return []byte{0xff}, nil }
	if code, _, errOut := w.run("syscalls", "web"); code != exitError || !strings.Contains(errOut, "metrics of container web") {
		t.Errorf("no message: exit %d, %q", code, errOut)
	}
}

// statsOnly is the task service of a shim with one container.
type statsOnly struct{ taskapi.TTRPCTaskService }

func (statsOnly) Stats(_ context.Context, r *taskapi.StatsRequest) (*taskapi.StatsResponse, error) {
	if r.ID != "web" {
		return nil, errgrpc.ToGRPCf(errdefs.ErrNotFound, "container %s", r.ID)
	}
	return &taskapi.StatsResponse{Stats: &anypb.Any{TypeUrl: "x", Value: []byte("numbers")}}, nil
}

// TestMetrics asks a real socket.
func TestMetrics(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv, err := ttrpc.NewServer(ttrpc.WithServerHandshaker(ttrpc.UnixSocketRequireSameUser()))
	if err != nil {
		t.Fatal(err)
	}
	taskapi.RegisterTTRPCTaskService(srv, statsOnly{})
	go srv.Serve(context.Background(), l)
	t.Cleanup(func() { srv.Close() })
	if b, err := metrics(t.Context(), path, "web"); err != nil || string(b) != "numbers" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := metrics(t.Context(), path, "other"); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "container other") {
		t.Errorf("another container: %v", err)
	}
	if _, err := metrics(t.Context(), path+"x", "web"); err == nil {
		t.Error("no socket, and no error")
	}
}
