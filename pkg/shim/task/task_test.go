// SPDX-License-Identifier: Apache-2.0

package task_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xcontainer/xcontainer/pkg/shim/record"
)

func (b *box) state(execID string) *taskapi.StateResponse {
	b.t.Helper()
	r, err := b.task.State(b.ctx(), &taskapi.StateRequest{ID: b.id, ExecID: execID})
	if err != nil {
		b.t.Fatalf("state: %v", err)
	}
	return r
}

func TestLifecycle(t *testing.T) {
	d := newDaemon(t)
	b := d.bundled("c", false, spec("sh", "-c", "echo out; echo err >&2; cat; exit 42"))
	pid := b.create()
	if cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err != nil || !strings.Contains(string(cmdline), "holder\x00c\x00") {
		t.Errorf("task pid %d: %q, %v", pid, cmdline, err)
	}
	r, err := record.Read(b.bundle)
	if err != nil || r == nil || r.DomID == nil || *r.DomID != d.guest().DomID || r.Holder.PID != int(pid) || r.Shim.PID != os.Getpid() {
		t.Errorf("record %+v, %v", r, err)
	}
	s := b.state("")
	if s.Status != tasktypes.Status_CREATED || s.Pid != pid || s.Bundle != b.bundle || s.Stdin != b.in || s.Stdout != b.pipes.out || s.ExitedAt != nil {
		t.Errorf("created: %v", s)
	}
	b.start()
	if s := b.state(""); s.Status != tasktypes.Status_RUNNING {
		t.Errorf("running: %v", s)
	}
	pids, err := d.task.Pids(d.ctx(), &taskapi.PidsRequest{ID: "c"})
	if err != nil || len(pids.Processes) != 1 || pids.Processes[0].Pid != pid {
		t.Errorf("pids %v, %v", pids, err)
	}
	conn, err := d.task.Connect(d.ctx(), &taskapi.ConnectRequest{ID: "c"})
	if err != nil || conn.TaskPid != pid || conn.ShimPid != uint32(os.Getpid()) {
		t.Errorf("connect %v, %v", conn, err)
	}
	if _, err := d.task.Shutdown(d.ctx(), &taskapi.ShutdownRequest{ID: "c"}); err != nil {
		t.Error(err)
	}
	select {
	case <-d.shutdown:
		t.Error("the shim ends though it has a container")
	default:
	}
	if _, err := d.task.Delete(d.ctx(), &taskapi.DeleteRequest{ID: "c"}); !is(errgrpc.ToNative(err), errdefs.ErrFailedPrecondition) {
		t.Errorf("delete of a running container: %v", err)
	}
	in := d.open(b.in, os.O_WRONLY)
	io.WriteString(in, "in")
	in.Close()
	b.closeStdin("")
	if status := b.wait(""); status != 42 {
		t.Errorf("status %d", status)
	}
	if out, err := read(t, b.stdout), read(t, b.stderr); out != "out\nin" || err != "err\n" {
		t.Errorf("stdout %q, stderr %q", out, err)
	}
	if s := b.state(""); s.Status != tasktypes.Status_STOPPED || s.ExitStatus != 42 || s.ExitedAt == nil {
		t.Errorf("stopped: %v", s)
	}
	if err := b.kill("", unix.SIGTERM, false); !is(err, errdefs.ErrNotFound) {
		t.Errorf("kill of a stopped container: %v", err)
	}
	if r := b.delete(""); r.ExitStatus != 42 || r.Pid != pid || r.ExitedAt == nil {
		t.Errorf("delete: %v", r)
	}
	if !d.guest().Synced() {
		t.Error("the guest was not synced")
	}
	if _, err := d.task.State(d.ctx(), &taskapi.StateRequest{ID: "c"}); !is(errgrpc.ToNative(err), errdefs.ErrNotFound) {
		t.Errorf("state of a deleted container: %v", err)
	}
	if r, err := record.Read(b.bundle); r != nil || err != nil {
		t.Errorf("record left: %+v, %v", r, err)
	}
	if err := unix.Kill(int(pid), 0); err != unix.ESRCH {
		t.Errorf("holder: %v", err)
	}
	if _, err := d.task.Shutdown(d.ctx(), &taskapi.ShutdownRequest{ID: "c"}); err != nil {
		t.Error(err)
	}
	<-d.shutdown
	d.expectEvents("/tasks/create c", "/tasks/start c", "/tasks/exit c/c 42", "/tasks/delete c 42")
}

// TestIdle: the daemon was killed after its Delete and before its Shutdown.
func TestIdle(t *testing.T) {
	d := newIdleDaemon(t, 50*time.Millisecond)
	b := d.sleeper()
	if err := b.kill("", unix.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	b.wait("")
	time.Sleep(100 * time.Millisecond)
	select {
	case <-d.shutdown:
		t.Error("the shim ends though its container is not deleted")
	default:
	}
	b.delete("")
	conn, err := d.task.Connect(d.ctx(), &taskapi.ConnectRequest{ID: "c"})
	if err != nil || conn.TaskPid != 0 || conn.ShimPid != uint32(os.Getpid()) {
		t.Errorf("connect without a container: %v, %v", conn, err)
	}
	<-d.shutdown
}

func TestExitStatus(t *testing.T) {
	tests := []struct {
		script string
		want   uint32
	}{
		{"true", 0},
		{"false", 1},
		{"exit 42", 42},
		{`sh -c 'kill -9 $$'; exit $?`, 137},
		{`trap 'exit 7' TERM; kill -TERM $$; sleep 100`, 7},
	}
	d := newDaemon(t)
	for i, tt := range tests {
		if got, _, _ := d.run(fmt.Sprintf("c%d", i), "sh", "-c", tt.script); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.script, got, tt.want)
		}
	}
}

func TestQuickExits(t *testing.T) {
	d := newDaemon(t)
	var want []string
	for i := range 20 {
		id := fmt.Sprintf("q%d", i)
		status, out, _ := d.run(id, "echo", id)
		if status != 0 || out != id+"\n" {
			t.Errorf("%s: status %d, output %q", id, status, out)
		}
		want = append(want, "/tasks/create "+id, "/tasks/start "+id, "/tasks/exit "+id+"/"+id+" 0", "/tasks/delete "+id+" 0")
	}
	d.expectEvents(want...)
}

func TestAllOutputOfAProcessThatExits(t *testing.T) {
	d := newDaemon(t)
	const size = 8 << 20
	status, out, _ := d.run("c", "sh", "-c", fmt.Sprintf("yes | head -c %d", size))
	if status != 0 || out != strings.Repeat("y\n", size/2) {
		t.Errorf("status %d, %d bytes", status, len(out))
	}
}

func TestInputOf20MB(t *testing.T) {
	d := newDaemon(t)
	b := d.bundled("c", false, spec("cat"))
	b.create()
	b.start()
	want := bytes.Repeat([]byte("0123456789abcde\n"), 20<<20/16)
	go func() {
		in, err := os.OpenFile(b.in, os.O_WRONLY, 0)
		if err != nil {
			t.Error(err)
			return
		}
		in.Write(want)
		// As ctr does it: CloseIO first.
		b.closeStdin("")
		in.Close()
	}()
	if got := read(t, b.stdout); got != string(want) {
		t.Errorf("%d bytes", len(got))
	}
	if status := b.wait(""); status != 0 {
		t.Errorf("status %d", status)
	}
	b.delete("")
}

func TestChildThatHoldsOutput(t *testing.T) {
	d := newDaemon(t)
	status, out, _ := d.run("c", "sh", "-c", "sleep 1000 & echo now")
	if status != 0 || out != "now\n" {
		t.Errorf("status %d, output %q", status, out)
	}
}

func TestTerminal(t *testing.T) {
	d := newDaemon(t)
	b := d.bundled("c", true, spec("sh", "-c", "stty -echo; read x; stty size; echo got $x"))
	b.create()
	b.start()
	if _, err := d.task.ResizePty(d.ctx(), &taskapi.ResizePtyRequest{ID: "c", Width: 111, Height: 22}); err != nil {
		t.Fatal(err)
	}
	in := d.open(b.in, os.O_WRONLY)
	io.WriteString(in, "word\n")
	if status := b.wait(""); status != 0 {
		t.Errorf("status %d", status)
	}
	if out := read(t, b.stdout); !strings.HasSuffix(out, "22 111\r\ngot word\r\n") {
		t.Errorf("output %q", out)
	}
	b.delete("")
}

// TestOptions: clients send runc's options, or a pointer to a configuration; a
// container is created with any.
func TestOptions(t *testing.T) {
	d := newDaemon(t)
	for i, o := range []*anypb.Any{
		{TypeUrl: "containerd.runc.v1.Options", Value: []byte("\x48\x01")},
		{TypeUrl: "runtimeoptions.v1.Options", Value: []byte("\x12\x02/x")},
		{TypeUrl: "some.day/Options", Value: []byte("\xff")},
	} {
		b := d.bundled(fmt.Sprintf("c%d", i), false, spec("true"))
		r := b.createRequest()
		r.Options = o
		if _, err := d.task.Create(d.ctx(), r); err != nil {
			t.Errorf("%s: %v", o.TypeUrl, err)
			continue
		}
		b.delete("")
	}
}

func TestResizeWithoutTerminal(t *testing.T) {
	d := newDaemon(t)
	b := d.bundled("c", false, spec("true"))
	b.create()
	if _, err := d.task.ResizePty(d.ctx(), &taskapi.ResizePtyRequest{ID: "c"}); !is(errgrpc.ToNative(err), errdefs.ErrFailedPrecondition) {
		t.Errorf("got %v", err)
	}
	b.delete("")
}

func TestKill(t *testing.T) {
	d := newDaemon(t)
	for _, tt := range []struct {
		id, script string
		sig        unix.Signal
		all        bool
		want       uint32
	}{
		{"kill", "echo ready; exec sleep 1000", unix.SIGKILL, false, 137},
		{"term", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done", unix.SIGTERM, false, 5},
		{"all", "sleep 1000 & echo ready; wait", unix.SIGKILL, true, 137},
	} {
		b := d.bundled(tt.id, false, spec("sh", "-c", tt.script))
		b.create()
		b.start()
		if _, err := io.ReadFull(b.stdout, make([]byte, 6)); err != nil {
			t.Fatal(err)
		}
		if err := b.kill("", tt.sig, tt.all); err != nil {
			t.Errorf("%s: %v", tt.id, err)
		}
		if got := b.wait(""); got != tt.want {
			t.Errorf("%s: status %d", tt.id, got)
		}
		b.delete("")
	}
}

func TestDeleteOfCreated(t *testing.T) {
	d := newDaemon(t)
	b := d.bundled("c", false, spec("true"))
	b.create()
	if r := b.delete(""); r.ExitStatus != 137 {
		t.Errorf("status %d", r.ExitStatus)
	}
	d.expectEvents("/tasks/create c", "/tasks/exit c/c 137", "/tasks/delete c 137")
}

func TestUnknown(t *testing.T) {
	d := newDaemon(t)
	for name, err := range map[string]error{
		"state":      second(d.task.State(d.ctx(), &taskapi.StateRequest{ID: "x"})),
		"start":      second(d.task.Start(d.ctx(), &taskapi.StartRequest{ID: "x"})),
		"delete":     second(d.task.Delete(d.ctx(), &taskapi.DeleteRequest{ID: "x"})),
		"wait":       second(d.task.Wait(d.ctx(), &taskapi.WaitRequest{ID: "x"})),
		"kill":       second(d.task.Kill(d.ctx(), &taskapi.KillRequest{ID: "x"})),
		"exec":       second(d.task.Exec(d.ctx(), &taskapi.ExecProcessRequest{ID: "x", ExecID: "e"})),
		"pids":       second(d.task.Pids(d.ctx(), &taskapi.PidsRequest{ID: "x"})),
		"stdin":      second(d.task.CloseIO(d.ctx(), &taskapi.CloseIORequest{ID: "x"})),
		"resize":     second(d.task.ResizePty(d.ctx(), &taskapi.ResizePtyRequest{ID: "x"})),
		"pause":      second(d.task.Pause(d.ctx(), &taskapi.PauseRequest{ID: "x"})),
		"resume":     second(d.task.Resume(d.ctx(), &taskapi.ResumeRequest{ID: "x"})),
		"checkpoint": second(d.task.Checkpoint(d.ctx(), &taskapi.CheckpointTaskRequest{ID: "x"})),
		"update":     second(d.task.Update(d.ctx(), &taskapi.UpdateTaskRequest{ID: "x"})),
		"stats":      second(d.task.Stats(d.ctx(), &taskapi.StatsRequest{ID: "x"})),
	} {
		if !is(errgrpc.ToNative(err), errdefs.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := d.task.Create(d.ctx(), &taskapi.CreateTaskRequest{ID: "x", Checkpoint: "/c"})
	if !is(errgrpc.ToNative(err), errdefs.ErrNotImplemented) {
		t.Errorf("restore: %v", err)
	}
	b := d.sleeper()
	_, err = d.task.Checkpoint(d.ctx(), &taskapi.CheckpointTaskRequest{ID: "c", Path: "/c"})
	if err = errgrpc.ToNative(err); !is(err, errdefs.ErrNotImplemented) || err.Error() != "checkpoint is not supported yet: not implemented" {
		t.Errorf("checkpoint: %v", err)
	}
	b.end()
}

func second[T any](_ T, err error) error { return err }

func TestTwice(t *testing.T) {
	d := newDaemon(t)
	b := d.bundled("c", false, spec("sleep", "1000"))
	b.create()
	if _, err := d.task.Create(d.ctx(), b.createRequest()); !is(errgrpc.ToNative(err), errdefs.ErrAlreadyExists) {
		t.Errorf("create: %v", err)
	}
	b.start()
	if err := b.startExec(""); !is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("start: %v", err)
	}
	if err := b.kill("", unix.SIGKILL, false); err != nil {
		t.Error(err)
	}
	b.wait("")
	b.delete("")
	if _, err := d.task.Delete(d.ctx(), &taskapi.DeleteRequest{ID: "c"}); !is(errgrpc.ToNative(err), errdefs.ErrNotFound) {
		t.Errorf("delete: %v", err)
	}
}

func TestReaderThatComesBack(t *testing.T) {
	d := newDaemon(t)
	b := d.bundled("c", false, spec("sh", "-c", "echo one; read x; echo two; read x"))
	b.create()
	b.start()
	if _, err := io.ReadFull(b.stdout, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	b.stdout.Close()
	in := d.open(b.in, os.O_WRONLY)
	io.WriteString(in, "\n")
	in.Close() // the client is detached: neither reader nor writer
	again := d.open(filepath.Join(b.bundle, "out"), os.O_RDONLY)
	// Until it is there, reading finds nothing, or, with no writer, an end.
	line := make([]byte, 4)
	if _, err := io.ReadFull(again, line); err != nil || string(line) != "two\n" {
		t.Errorf("%q, %v", line, err)
	}
	in = d.open(b.in, os.O_WRONLY)
	io.WriteString(in, "\n")
	if status := b.wait(""); status != 0 {
		t.Errorf("status %d", status)
	}
	b.delete("")
}
