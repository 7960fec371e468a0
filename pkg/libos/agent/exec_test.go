// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// exec starts one more process in a container.
func (g *guest) exec(id, execID string, p *agentapi.Process, input io.Reader) (*stdioClient, error) {
	g.t.Helper()
	s := g.connect(p, input)
	_, err := g.api.Exec(g.context(), &agentapi.ExecRequest{Id: id, ExecId: execID, Process: p})
	return s, err
}

func (g *guest) mustExec(id, execID string, p *agentapi.Process, input io.Reader) *stdioClient {
	g.t.Helper()
	s, err := g.exec(id, execID, p, input)
	if err != nil {
		g.t.Fatalf("exec: %v", err)
	}
	return s
}

func (g *guest) remove(id, execID string) {
	g.t.Helper()
	if _, err := g.api.Remove(g.context(), &agentapi.RemoveRequest{Id: id, ExecId: execID}); err != nil {
		g.t.Errorf("remove %s %s: %v", id, execID, err)
	}
}

func (g *guest) kill(id, execID string, sig unix.Signal, all bool) error {
	g.t.Helper()
	_, err := g.api.Signal(g.context(), &agentapi.SignalRequest{Id: id, ExecId: execID, Signal: uint32(sig), All: all})
	return err
}

// end kills a container and removes it.
func (g *guest) end(id string) {
	g.t.Helper()
	if err := g.kill(id, "", unix.SIGKILL, false); err != nil && status.Code(err) != codes.NotFound {
		g.t.Errorf("kill: %v", err)
	}
	g.wait(id, "")
	g.remove(id, "")
}

func TestExec(t *testing.T) {
	g := newGuest(t)
	spec := g.spec("sleep", "1000")
	id, _ := g.start(spec, nil)
	defer g.end(id)

	p := g.process("sh", "-c", "echo $$ >/dev/null; hostname; pwd; id -u; cat; grep 0:: /proc/self/cgroup; cat /proc/1/cmdline | tr '\\0' ' '; exit 3")
	p.Cwd = "/home/app"
	p.User.Name = "app"
	s := g.mustExec(id, "e1", p, strings.NewReader("input\n"))
	w := g.wait(id, "e1")
	want := "guest\n/home/app\n1000\ninput\n0::/\nsleep 1000 "
	if out := s.out.text(); w.ExitStatus != 3 || out != want || w.StdoutBytes != uint64(len(want)) {
		t.Errorf("status %d, counted %d, got %q, want %q (%s)", w.ExitStatus, w.StdoutBytes, out, want, s.err.text())
	}
	if _, err := g.exec(id, "e1", g.process("true"), nil); status.Code(err) != codes.AlreadyExists {
		t.Errorf("the same id again: %v", err)
	}
	g.remove(id, "e1")
	if _, err := g.api.Wait(g.context(), &agentapi.WaitRequest{Id: id, ExecId: "e1"}); status.Code(err) != codes.NotFound {
		t.Errorf("wait after remove: %v", err)
	}
	for _, c := range []struct {
		p    *agentapi.Process
		code codes.Code
		text string
	}{
		{g.process("nope"), codes.NotFound, `exec: "nope": executable file not found in $PATH`},
		{&agentapi.Process{Args: []string{"true"}, Cwd: "/none"}, codes.InvalidArgument, `chdir to cwd ("/none") set in config.json failed: no such file or directory`},
		{&agentapi.Process{Args: []string{"true"}, Cwd: "none"}, codes.InvalidArgument, "not absolute"},
	} {
		_, err := g.exec(id, "e2", c.p, nil)
		if status.Code(err) != c.code || !strings.Contains(err.Error(), c.text) {
			t.Errorf("got %v, want %v: %s", err, c.code, c.text)
		}
	}
}

// TestExecLeavesChild: the end of a process is its own, whoever holds its pipes.
func TestExecLeavesChild(t *testing.T) {
	g := newGuest(t)
	id, _ := g.start(g.spec("sleep", "1000"), nil)
	defer g.end(id)
	s := g.mustExec(id, "e", g.process("sh", "-c", "sleep 1000 & echo started"), strings.NewReader(""))
	w := g.wait(id, "e")
	if w.ExitStatus != 0 || w.StdoutBytes != uint64(len("started\n")) {
		t.Errorf("status %d, counted %d", w.ExitStatus, w.StdoutBytes)
	}
	select {
	case <-s.out.done:
		t.Error("stdout has ended while a child holds it")
	default:
	}
	procs, err := g.api.Processes(g.context(), &agentapi.ProcessesRequest{Id: id})
	if err != nil || len(procs.Processes) != 2 {
		t.Errorf("processes: %v, %v, want init and the child", procs, err)
	}
	g.remove(id, "e")
	if out := s.out.text(); out != "started\n" {
		t.Errorf("got %q", out)
	}
}

// TestInitLeavesChild: init's end is the end of the container.
func TestInitLeavesChild(t *testing.T) {
	g := newGuest(t)
	r := g.sh("sleep 1000 & echo started")
	if r.status != 0 || r.out != "started\n" || r.outN != 8 {
		t.Errorf("got %+v", r)
	}
}

// TestGuestPids: a container in the guest's pid namespace sees the agent there,
// and nothing of it outlives its init.
func TestGuestPids(t *testing.T) {
	g := newGuest(t)
	spec := g.spec("sh", "-c", "sleep 1001 & echo $$ $(cat /proc/1/cmdline | tr '\\0' ' '); exec sleep 1000")
	spec.GuestPids = true
	id, s := g.start(spec, nil)
	waitFor(t, func() bool { return bufferHas(s.out, "\n") })
	var pid int
	if _, err := fmt.Sscanf(s.out.now(), "%d "+guestName, &pid); err != nil || pid == 1 {
		t.Errorf("got %q, want a pid other than 1, and the agent's name: %v", s.out.now(), err)
	}
	g.mustExec(id, "e", g.process("sh", "-c", "sleep 1003 & setsid sleep 1004 & exec sleep 1002"), nil)
	waitFor(t, func() bool {
		r, err := g.api.Processes(g.context(), &agentapi.ProcessesRequest{Id: id})
		return err == nil && len(r.Processes) == 5
	})
	if err := g.kill(id, "", unix.SIGTERM, false); err != nil {
		t.Fatal(err)
	}
	// Of a pid namespace's init the kernel would have kept this signal away.
	if w := g.wait(id, ""); w.ExitStatus != 143 {
		t.Errorf("init's status %d, want 143", w.ExitStatus)
	}
	if w := g.wait(id, "e"); w.ExitStatus != 137 {
		t.Errorf("status of the exec %d, want 137", w.ExitStatus)
	}
	waitFor(t, func() bool {
		r, err := g.api.Processes(g.context(), &agentapi.ProcessesRequest{Id: id})
		return err == nil && len(r.Processes) == 0
	})
	if _, err := g.exec(id, "late", g.process("true"), nil); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("exec after the end: %v", err)
	}
	g.remove(id, "")
}

// TestGuestPidsExecRace: an exec that starts while init ends does not stay.
func TestGuestPidsExecRace(t *testing.T) {
	g := newGuest(t)
	for range 20 {
		spec := g.spec("sleep", "0.02")
		spec.GuestPids = true
		id, _ := g.start(spec, nil)
		for i := 0; ; i++ {
			name := fmt.Sprint("e", i)
			if _, err := g.exec(id, name, g.process("sleep", "1000"), nil); err != nil {
				if code := status.Code(err); code != codes.FailedPrecondition {
					t.Fatalf("exec: %v", err)
				}
				break
			}
		}
		g.wait(id, "")
		g.remove(id, "") // hangs if an exec lives on
	}
}

func TestExecIsReapedBeforeInit(t *testing.T) {
	g := newGuest(t)
	id, _ := g.start(g.spec("sleep", "1000"), nil)
	g.mustExec(id, "e", g.process("sleep", "1000"), nil)
	if err := g.kill(id, "", unix.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	init, e := g.wait(id, ""), g.wait(id, "e")
	if init.ExitStatus != 137 || e.ExitStatus != 137 {
		t.Errorf("status %d and %d, want 137", init.ExitStatus, e.ExitStatus)
	}
	if e.ExitedAt.AsTime().After(init.ExitedAt.AsTime()) {
		t.Errorf("exec ended %v, init %v", e.ExitedAt.AsTime(), init.ExitedAt.AsTime())
	}
	if _, err := g.exec(id, "late", g.process("true"), nil); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("exec after the end: %v", err)
	}
	if err := g.kill(id, "", unix.SIGTERM, false); status.Code(err) != codes.NotFound {
		t.Errorf("signal after the end: %v", err)
	}
	g.remove(id, "")
}

func TestSignals(t *testing.T) {
	g := newGuest(t)
	id, s := g.start(g.spec("sh", "-c", "trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.01; done"), nil)
	waitFor(t, func() bool { return bufferHas(s.out, "ready") })
	if err := g.kill(id, "", 99, false); status.Code(err) != codes.InvalidArgument {
		t.Errorf("signal 99: %v", err)
	}
	if err := g.kill(id, "", unix.SIGTERM, false); err != nil {
		t.Fatal(err)
	}
	if w := g.wait(id, ""); w.ExitStatus != 5 {
		t.Errorf("status %d, want 5", w.ExitStatus)
	}
	g.remove(id, "")

	id, s = g.start(g.spec("sh", "-c", "sleep 1000 & sleep 1000 & echo ready; wait; echo $?"), nil)
	waitFor(t, func() bool { return bufferHas(s.out, "ready") }) // a child that comes later is not meant
	g.mustExec(id, "e", g.process("sleep", "1000"), nil)
	if err := g.kill(id, "", unix.SIGTERM, true); err != nil {
		t.Fatal(err)
	}
	if w := g.wait(id, "e"); w.ExitStatus != 128+15 {
		t.Errorf("exec after kill all: status %d", w.ExitStatus)
	}
	if w := g.wait(id, ""); w.ExitStatus != 0 { // init has no handler, and its children are gone
		t.Errorf("init after kill all: status %d", w.ExitStatus)
	}
	g.remove(id, "")
}

// TestCreatedOnly covers a container that is never started.
func TestCreatedOnly(t *testing.T) {
	g := newGuest(t)
	for _, sig := range []unix.Signal{unix.SIGKILL, unix.SIGTERM, 0} {
		spec := g.spec("echo", "ran")
		s := g.connect(spec.Process, nil)
		if err := g.tryCreate(spec); err != nil {
			t.Fatal(err)
		}
		id := "id-" + spec.Rootfs
		if err := g.tryCreate(spec); status.Code(err) != codes.AlreadyExists {
			t.Errorf("the same id again: %v", err)
		}
		if _, err := g.exec(id, "e", g.process("true"), nil); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("exec before start: %v", err)
		}
		if sig != 0 {
			if err := g.kill(id, "", sig, true); err != nil {
				t.Error(err)
			}
			if w := g.wait(id, ""); w.ExitStatus != 128+uint32(sig) {
				t.Errorf("status %d after signal %d", w.ExitStatus, sig)
			}
			_, err := g.api.StartContainer(g.context(), &agentapi.StartContainerRequest{Id: id})
			if status.Code(err) != codes.FailedPrecondition {
				t.Errorf("start after the end: %v", err)
			}
		}
		g.remove(id, "")
		if out := s.out.text() + s.err.text(); out != "" {
			t.Errorf("output %q", out)
		}
	}
}

func TestStates(t *testing.T) {
	g := newGuest(t)
	ctx := g.context()
	if _, err := g.api.StartContainer(ctx, &agentapi.StartContainerRequest{Id: "none"}); status.Code(err) != codes.NotFound {
		t.Errorf("start of none: %v", err)
	}
	for _, id := range []string{"", "..", "a/b", strings.Repeat("x", 200)} {
		_, err := g.api.CreateContainer(ctx, &agentapi.CreateContainerRequest{Id: id, Container: g.spec("true")})
		if id != ".." && status.Code(err) != codes.InvalidArgument {
			t.Errorf("create %q: %v", id, err)
		}
	}
	id, _ := g.start(g.spec("sleep", "1000"), nil)
	if _, err := g.api.StartContainer(ctx, &agentapi.StartContainerRequest{Id: id}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("second start: %v", err)
	}
	if _, err := g.api.Remove(ctx, &agentapi.RemoveRequest{Id: id}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("remove of a running container: %v", err)
	}
	if _, err := g.api.Resize(ctx, &agentapi.ResizeRequest{Id: id, Rows: 1, Columns: 1}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("resize without a terminal: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if _, err := g.api.Wait(short, &agentapi.WaitRequest{Id: id}); err == nil {
		t.Error("wait for a running process has answered")
	}
	if _, err := g.api.Sync(ctx, &agentapi.SyncRequest{}); err != nil {
		t.Errorf("sync: %v", err)
	}
	if st, err := g.api.Stats(ctx, &agentapi.StatsRequest{}); err != nil || st.MemoryTotal < st.MemoryAvailable || st.MemoryAvailable == 0 || st.UptimeNs == 0 {
		t.Errorf("stats: %v, %v", st, err)
	}
	g.end(id)
	if _, err := g.api.Wait(ctx, &agentapi.WaitRequest{Id: id}); status.Code(err) != codes.NotFound {
		t.Errorf("wait after remove: %v", err)
	}
}

func TestTerminal(t *testing.T) {
	g := newGuest(t)
	spec := g.spec("sh", "-c", "stty size; stat -c %U:%a /dev/console; tty; read x; echo got $x; stty size; [ -t 2 ] && exit 4")
	spec.Process.Terminal = true
	spec.Process.Rows, spec.Process.Columns = 33, 77
	spec.Process.User.Name = "app"
	r, w := io.Pipe()
	id, s := g.start(spec, r)
	waitFor(t, func() bool { return bufferHas(s.out, "/dev/pts/0") })
	if _, err := g.api.Resize(g.context(), &agentapi.ResizeRequest{Id: id, Rows: 50, Columns: 132}); err != nil {
		t.Fatal(err)
	}
	w.Write([]byte("word\n"))
	exit := g.wait(id, "")
	want := "33 77\r\napp:620\r\n/dev/pts/0\r\nword\r\ngot word\r\n50 132\r\n"
	if out := s.out.text(); out != want || exit.ExitStatus != 4 || exit.StdoutBytes != uint64(len(want)) {
		t.Errorf("status %d, counted %d, got %q, want %q", exit.ExitStatus, exit.StdoutBytes, out, want)
	}
	w.Close()
	g.remove(id, "")
}

func TestTerminalExec(t *testing.T) {
	g := newGuest(t)
	id, _ := g.start(g.spec("sleep", "1000"), nil)
	defer g.end(id)
	p := g.process("sh", "-c", "stty size; sleep 1000 & seq 1 500")
	p.Terminal = true
	p.Rows, p.Columns = 12, 34
	s := g.mustExec(id, "e", p, strings.NewReader(""))
	w := g.wait(id, "e")
	waitFor(t, func() bool { return bufferHas(s.out, "\r\n500\r\n") })
	g.remove(id, "e")
	out := s.out.text()
	if !strings.HasPrefix(out, "12 34\r\n1\r\n") || w.StdoutBytes != uint64(len(out)) {
		t.Errorf("counted %d of %d, got %.40q", w.StdoutBytes, len(out), out)
	}
}

// TestHostStopsReading: a process never waits for a host that has left.
func TestHostStopsReading(t *testing.T) {
	g := newGuest(t)
	spec := g.spec("sh", "-c", "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; exit 6")
	spec.Process.Streams = &agentapi.Streams{}
	var c [2]io.Closer
	spec.Process.Streams.Stdout, c[0] = g.stream()
	spec.Process.Streams.Stderr, c[1] = g.stream()
	id := "id-" + spec.Rootfs
	if err := g.tryCreate(spec); err != nil {
		t.Fatal(err)
	}
	c[0].Close()
	c[1].Close()
	if _, err := g.api.StartContainer(g.context(), &agentapi.StartContainerRequest{Id: id}); err != nil {
		t.Fatal(err)
	}
	if w := g.wait(id, ""); w.ExitStatus != 6 || w.StdoutBytes != 3000000 || w.StderrBytes != 3000000 {
		t.Errorf("got %v", w)
	}
	g.remove(id, "")
}

// TestProcessStopsReading: the agent closes an input that nobody reads.
func TestProcessStopsReading(t *testing.T) {
	g := newGuest(t)
	id, _ := g.start(g.spec("sleep", "1000"), nil)
	defer g.end(id)
	r, w := io.Pipe()
	defer w.Close()
	s := g.mustExec(id, "e", g.process("sh", "-c", "exec <&-; exec sleep 1000"), r)
	if _, err := s.in.Read(make([]byte, 1)); err == nil {
		t.Error("the agent has written to an input")
	} // and not before the process closed it: nothing else ends this read
	if err := g.kill(id, "e", 0, false); err != nil {
		t.Errorf("the process has ended: %v", err)
	}
}

// TestManyExecs: what a hundred execs take is given back.
func TestManyExecs(t *testing.T) {
	g := newGuest(t)
	id, _ := g.start(g.spec("sleep", "1000"), nil)
	defer g.end(id)
	var goroutines, fds int
	for i := range 110 {
		if i == 10 {
			goroutines, fds = g.load()
		}
		name := fmt.Sprintf("e%d", i)
		p := g.process("sh", "-c", "echo out; echo err >&2; exit 9")
		p.Terminal = i%10 == 9
		s := g.mustExec(id, name, p, strings.NewReader(""))
		if w := g.wait(id, name); w.ExitStatus != 9 {
			t.Fatalf("status %d", w.ExitStatus)
		}
		if out := s.out.text(); !strings.HasPrefix(out, "out") {
			t.Fatalf("got %q", out)
		}
		g.remove(id, name)
	}
	const slack = 4
	waitFor(t, func() bool {
		n, f := g.load()
		return n <= goroutines+slack && f <= fds+slack
	})
}

// TestManyContainers at once, ended by their own and by force.
func TestManyContainers(t *testing.T) {
	g := newGuest(t)
	const n = 16
	ids := make([]string, n)
	for i := range n {
		ids[i], _ = g.start(g.spec("sh", "-c", fmt.Sprintf("echo %d; [ $((%d %% 2)) = 1 ] && exec sleep 1000; exit %d", i, i, i)), nil)
	}
	for i, id := range ids {
		want := uint32(i)
		if i%2 == 1 {
			if err := g.kill(id, "", unix.SIGKILL, false); err != nil {
				t.Errorf("kill %s: %v", id, err)
			}
			want = 137
		}
		if w := g.wait(id, ""); w.ExitStatus != want {
			t.Errorf("%s: status %d, want %d", id, w.ExitStatus, want)
		}
		g.remove(id, "")
	}
	if dirs, _ := filepath.Glob(filepath.Join(g.cgroup, "container-*")); len(dirs) != 0 {
		t.Errorf("cgroups are left: %v", dirs)
	}
}

// waitFor waits until a condition holds, for as long as a hung test may take.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(testTimeout); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain")
		}
	}
}

func bufferHas(o *output, text string) bool {
	return strings.Contains(o.now(), text)
}
