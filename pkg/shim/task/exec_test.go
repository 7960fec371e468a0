// SPDX-License-Identifier: Apache-2.0

package task_test

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"
)

// sleeper is a running container to exec in.
func (d *daemon) sleeper() *box {
	d.t.Helper()
	b := d.bundled("c", false, spec("sleep", "1000"))
	b.create()
	b.start()
	return b
}

func (b *box) end() {
	b.t.Helper()
	if err := b.kill("", unix.SIGKILL, false); err != nil {
		b.t.Error(err)
	}
	b.wait("")
	b.delete("")
}

func TestExec(t *testing.T) {
	d := newDaemon(t)
	b := d.sleeper()
	p, err := b.exec("e", false, "sh", "-c", "cat; echo err >&2; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	if s := b.state("e"); s.Status != tasktypes.Status_CREATED || s.Pid != 0 || s.Stdout != p.out {
		t.Errorf("created: %v", s)
	}
	if _, err := b.exec2("e"); !is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("twice: %v", err)
	}
	if err := b.kill("e", unix.SIGKILL, false); !is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("kill before start: %v", err)
	}
	b.closeStdin("e") // before there is a stdin
	if err := b.startExec("e"); err != nil {
		t.Fatal(err)
	}
	if err := b.startExec("e"); !is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("start twice: %v", err)
	}
	if status := b.wait("e"); status != 3 {
		t.Errorf("status %d", status)
	}
	if out := read(t, p.stderr); out != "err\n" {
		t.Errorf("stderr %q", out)
	}
	if err := b.kill("e", unix.SIGKILL, false); !is(err, errdefs.ErrNotFound) {
		t.Errorf("kill after exit: %v", err)
	}
	if r := b.delete("e"); r.ExitStatus != 3 {
		t.Errorf("delete: %v", r)
	}
	if _, err := d.task.State(d.ctx(), &taskapi.StateRequest{ID: "c", ExecID: "e"}); !is(errgrpc.ToNative(err), errdefs.ErrNotFound) {
		t.Errorf("state after delete: %v", err)
	}
	b.end()
	d.expectEvents("/tasks/create c", "/tasks/start c", "/tasks/exec-added c/e", "/tasks/exec-started c/e",
		"/tasks/exit c/e 3", "/tasks/exit c/c 137", "/tasks/delete c 137")
}

// exec2 adds an exec without pipes.
func (b *box) exec2(execID string) (any, error) {
	r, err := b.task.Exec(b.ctx(), &taskapi.ExecProcessRequest{
		ID: b.id, ExecID: execID, Spec: &anypb.Any{Value: []byte(`{"args":["true"],"cwd":"/"}`)},
	})
	return r, errgrpc.ToNative(err)
}

// TestExecThatLeavesAChild: `exec sh -c 'sleep 1000 &'` returns at once, though
// the child holds its output.
func TestExecThatLeavesAChild(t *testing.T) {
	d := newDaemon(t)
	b := d.sleeper()
	p, err := b.exec("e", false, "sh", "-c", "sleep 1000 & echo $!")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.startExec("e"); err != nil {
		t.Fatal(err)
	}
	if status := b.wait("e"); status != 0 {
		t.Errorf("status %d", status)
	}
	b.delete("e")
	var pid int
	if _, err := fmt.Sscan(read(t, p.stdout), &pid); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Errorf("the child: %v", err)
	}
	b.end()
}

func TestExecOfAMissingCommand(t *testing.T) {
	d := newDaemon(t)
	b := d.sleeper()
	p, err := b.exec("e", false, "no-such-command")
	if err != nil {
		t.Fatal(err)
	}
	err = b.startExec("e")
	if !is(err, errdefs.ErrNotFound) || !strings.HasPrefix(err.Error(), `exec: "no-such-command": executable file not found in $PATH`) {
		t.Errorf("start: %v", err)
	}
	if out := read(t, p.stdout); out != "" {
		t.Errorf("output %q", out)
	}
	b.wait("e") // a client may wait already
	b.delete("e")
	b.end()
	d.expectEvents("/tasks/create c", "/tasks/start c", "/tasks/exec-added c/e", "/tasks/exit c/c 137", "/tasks/delete c 137")
}

// TestInitEndsExecs: the exits of execs come before the container's.
func TestInitEndsExecs(t *testing.T) {
	d := newDaemon(t)
	b := d.bundled("c", false, spec("sh", "-c", "read x"))
	b.create()
	b.start()
	for _, id := range []string{"e1", "e2"} {
		if _, err := b.exec(id, false, "sleep", "1000"); err != nil {
			t.Fatal(err)
		}
		if err := b.startExec(id); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.exec2("never-started"); err != nil {
		t.Fatal(err)
	}
	in := d.open(b.in, os.O_WRONLY)
	io.WriteString(in, "\n")
	if status := b.wait(""); status != 0 {
		t.Errorf("status %d", status)
	}
	for _, id := range []string{"e1", "e2"} {
		if s := b.state(id); s.Status != tasktypes.Status_STOPPED || s.ExitStatus != 137 {
			t.Errorf("%s: %v", id, s)
		}
	}
	if _, err := b.exec2("late"); !is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("exec after the end: %v", err)
	}
	if err := b.startExec("never-started"); !is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("start after the end: %v", err)
	}
	b.delete("")
	for range 1000 { // either exec may be the first
		d.mu.Lock()
		got := strings.Join(d.events, ";")
		d.mu.Unlock()
		if strings.HasSuffix(got, ";/tasks/exit c/c 0;/tasks/delete c 0") {
			if strings.Count(got, " 137") != 2 {
				t.Errorf("events %s", got)
			}
			return
		}
		waitABit()
	}
	t.Error("events missing")
}

// TestExecsLeaveNothing: probes run for months.
func TestExecsLeaveNothing(t *testing.T) {
	d := newDaemon(t)
	b := d.sleeper()
	exec := func(from, to int) {
		for i := from; i < to; i++ {
			id := fmt.Sprintf("e%d", i)
			p, err := b.exec(id, false, "true")
			if err != nil {
				t.Fatal(err)
			}
			if err := b.startExec(id); err != nil {
				t.Fatal(err)
			}
			b.wait(id)
			b.delete(id)
			p.stdout.Close()
			p.stderr.Close()
		}
	}
	exec(0, 5)
	before := inventory(t)
	exec(5, 50)
	sameInventory(t, before)
	b.end()
}

func TestExecTerminal(t *testing.T) {
	d := newDaemon(t)
	b := d.sleeper()
	p, err := b.exec("e", true, "sh", "-c", "stty size; exit 4")
	if err != nil {
		t.Fatal(err)
	}
	// Before the start, as docker does it.
	if _, err := d.task.ResizePty(d.ctx(), &taskapi.ResizePtyRequest{ID: "c", ExecID: "e", Width: 80, Height: 24}); err != nil {
		t.Fatal(err)
	}
	if err := b.startExec("e"); err != nil {
		t.Fatal(err)
	}
	if status := b.wait("e"); status != 4 {
		t.Errorf("status %d", status)
	}
	if out := read(t, p.stdout); out != "24 80\r\n" {
		t.Errorf("output %q", out)
	}
	b.delete("e")
	b.end()
}

func TestExecRefusals(t *testing.T) {
	d := newDaemon(t)
	b := d.bundled("c", false, spec("sleep", "1000"))
	b.create()
	if _, err := b.exec2("e"); err != nil {
		t.Fatal(err)
	}
	if err := b.startExec("e"); !is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("exec in a created container: %v", err)
	}
	b.delete("e")
	if _, err := b.exec2(""); !is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("without an id: %v", err)
	}
	if _, err := d.task.Exec(d.ctx(), &taskapi.ExecProcessRequest{ID: "c", ExecID: "x", Spec: &anypb.Any{Value: []byte("{")}}); !is(errgrpc.ToNative(err), errdefs.ErrInvalidArgument) {
		t.Errorf("corrupt: %v", err)
	}
	if _, err := d.task.Exec(d.ctx(), &taskapi.ExecProcessRequest{ID: "c", ExecID: "x"}); !is(errgrpc.ToNative(err), errdefs.ErrInvalidArgument) {
		t.Errorf("without a spec: %v", err)
	}
	b.delete("")
}
