// SPDX-License-Identifier: Apache-2.0

package task_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/shim/task"
)

func (b *box) pause() error {
	_, err := b.task.Pause(b.ctx(), &taskapi.PauseRequest{ID: b.id})
	return errgrpc.ToNative(err)
}

func (b *box) resume() error {
	_, err := b.task.Resume(b.ctx(), &taskapi.ResumeRequest{ID: b.id})
	return errgrpc.ToNative(err)
}

func (b *box) mustPause() {
	b.t.Helper()
	if err := b.pause(); err != nil {
		b.t.Fatalf("pause: %v", err)
	}
	if !b.guest().Paused() {
		b.t.Fatal("the domain is not paused")
	}
}

func (b *box) mustResume() {
	b.t.Helper()
	if err := b.resume(); err != nil {
		b.t.Fatalf("resume: %v", err)
	}
	if b.guest().Paused() {
		b.t.Fatal("the domain is still paused")
	}
}

// wantRefusal: a call in the wrong state, in words that name the container.
func wantRefusal(t *testing.T, err error, want string) {
	t.Helper()
	if !is(err, errdefs.ErrFailedPrecondition) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestPauseAndResume(t *testing.T) {
	d := newDaemon(t)
	b := d.bundled("c", false, spec("sh", "-c", "read x; echo got $x; sleep 1000"))
	b.create()
	wantRefusal(t, b.pause(), "container c is not running, so it cannot be paused")
	wantRefusal(t, b.resume(), "container c is not running, so it cannot be resumed")
	b.start()
	wantRefusal(t, b.resume(), "container c is not paused")
	if _, err := b.exec("added", false, "true"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.exec("runs", false, "sleep", "1000"); err != nil {
		t.Fatal(err)
	}
	if err := b.startExec("runs"); err != nil {
		t.Fatal(err)
	}

	b.mustPause()
	for execID, want := range map[string]tasktypes.Status{
		"": tasktypes.Status_PAUSED, "runs": tasktypes.Status_PAUSED, "added": tasktypes.Status_CREATED,
	} {
		if s := b.state(execID); s.Status != want {
			t.Errorf("%q: %v", execID, s.Status)
		}
	}
	wantRefusal(t, b.pause(), "container c is paused already")
	wantRefusal(t, b.startExec("added"), "container c is paused; resume it first")
	_, err := b.exec2("new")
	wantRefusal(t, err, "container c is paused; resume it first")
	_, err = d.task.Delete(d.ctx(), &taskapi.DeleteRequest{ID: "c"})
	wantRefusal(t, errgrpc.ToNative(err), "container c is paused; kill it with SIGKILL, or resume and stop it first")
	wantRefusal(t, b.update(`{}`), "container c is paused; resume it first")
	if pids, err := d.task.Pids(d.ctx(), &taskapi.PidsRequest{ID: "c"}); err != nil || len(pids.Processes) == 0 {
		t.Errorf("pids %v, %v", pids, err)
	}
	in := d.open(b.in, os.O_WRONLY)
	io.WriteString(in, "word\n")
	in.Close()
	b.closeStdin("")

	b.mustResume()
	if s := b.state(""); s.Status != tasktypes.Status_RUNNING {
		t.Errorf("%v", s.Status)
	}
	out := make([]byte, len("got word\n"))
	if _, err := io.ReadFull(b.stdout, out); err != nil || string(out) != "got word\n" {
		t.Errorf("%q, %v", out, err)
	}
	if err := b.startExec("added"); err != nil {
		t.Errorf("exec after resume: %v", err)
	}
	b.wait("added")
	b.end()
	d.expectEvents("/tasks/create c", "/tasks/start c", "/tasks/exec-added c/added", "/tasks/exec-added c/runs",
		"/tasks/exec-started c/runs", "/tasks/paused c", "/tasks/resumed c", "/tasks/exec-started c/added",
		"/tasks/exit c/added 0", "/tasks/exit c/runs 137", "/tasks/exit c/c 137", "/tasks/delete c 137")
}

func TestKillOfPaused(t *testing.T) {
	d := newDaemon(t)
	b := d.sleeper()
	b.mustPause()
	if err := b.kill("", unix.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	if got := b.wait(""); got != 137 {
		t.Errorf("status %d", got)
	}
	b.delete("")
	if !d.guest().Synced() {
		t.Error("what the guest held of files is lost")
	}
	d.expectEvents("/tasks/create c", "/tasks/start c", "/tasks/paused c", "/tasks/exit c/c 137", "/tasks/delete c 137")
}

// TestKillOfPausedThatCannotResume: SIGKILL ends it without the guest.
func TestKillOfPausedThatCannotResume(t *testing.T) {
	d := newDaemon(t)
	b := d.sleeper()
	b.mustPause()
	d.world.Fail = failing("resume")
	if err := b.resume(); err == nil || !strings.Contains(err.Error(), "no luck") {
		t.Errorf("resume: %v", err)
	}
	if s := b.state(""); s.Status != tasktypes.Status_PAUSED {
		t.Errorf("after a resume that failed: %v", s.Status)
	}
	if err := b.kill("", unix.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	if got := b.wait(""); got != 137 {
		t.Errorf("status %d", got)
	}
	b.delete("")
}

func failing(step string) func(string) error {
	return func(s string) error {
		if s == step {
			return errors.New("no luck")
		}
		return nil
	}
}

func TestPauseFails(t *testing.T) {
	d := newDaemon(t)
	b := d.sleeper()
	d.world.Fail = failing("pause")
	if err := b.pause(); err == nil || !strings.Contains(err.Error(), "no luck") {
		t.Errorf("pause: %v", err)
	}
	d.world.Fail = nil
	if s := b.state(""); s.Status != tasktypes.Status_RUNNING {
		t.Errorf("%v", s.Status)
	}
	b.mustPause()
	b.mustResume()
	b.end()
}

// TestSignalsOfPaused: a signal waits for Resume, each kind once.
func TestSignalsOfPaused(t *testing.T) {
	d := newDaemon(t)
	b := d.bundled("c", false, spec("sh", "-c", "trap 'echo usr1' USR1; trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done"))
	b.create()
	b.start()
	if _, err := io.ReadFull(b.stdout, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.exec("e", false, "sleep", "1000"); err != nil {
		t.Fatal(err)
	}
	if err := b.startExec("e"); err != nil {
		t.Fatal(err)
	}
	b.mustPause()
	for range 100 {
		if err := b.kill("", unix.SIGUSR1, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.kill("e", unix.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	if err := b.kill("", 65, false); !is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("signal 65: %v", err)
	}
	if st := b.state("e"); st.Status != tasktypes.Status_PAUSED {
		t.Errorf("exec: %v", st.Status)
	}
	b.mustResume()
	if got := b.wait("e"); got != 137 {
		t.Errorf("status %d of the exec", got)
	}
	if out := make([]byte, 5); second(io.ReadFull(b.stdout, out)) != nil || string(out) != "usr1\n" {
		t.Errorf("%q", out)
	}
	if err := b.kill("", unix.SIGTERM, false); err != nil {
		t.Fatal(err)
	}
	if got := b.wait(""); got != 5 {
		t.Errorf("status %d", got)
	}
	if rest := read(t, b.stdout); rest != "" {
		t.Errorf("more than one signal: %q", rest)
	}
	b.delete("")
}

// TestExecOfPaused: what an exec that has ended still wants of the agent waits.
func TestExecOfPaused(t *testing.T) {
	d := newDaemon(t)
	b := d.sleeper()
	if _, err := b.exec("e", false, "true"); err != nil {
		t.Fatal(err)
	}
	terminal, err := b.exec("tty", true, "sh", "-c", "stty -echo; read x; stty size")
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"e", "tty"} {
		if err := b.startExec(id); err != nil {
			t.Fatal(err)
		}
	}
	b.wait("e")
	b.mustPause()
	b.delete("e")
	for i := range 3 {
		_, err := d.task.ResizePty(d.ctx(), &taskapi.ResizePtyRequest{ID: "c", ExecID: "tty", Height: uint32(20 + i), Width: 50})
		if err != nil {
			t.Error(err)
		}
	}
	b.mustResume()
	tty := d.open(b.bundle+"/tty-in", os.O_WRONLY)
	io.WriteString(tty, "\n")
	b.wait("tty")
	if out := read(t, terminal.stdout); !strings.HasSuffix(out, "22 50\r\n") {
		t.Errorf("%q", out)
	}
	b.end()
}

func TestDeathWhilePaused(t *testing.T) {
	d := newDaemon(t)
	b := d.sleeper()
	b.mustPause()
	d.guest().Die(task.ErrGuestDestroyed)
	if got := b.wait(""); got != 137 {
		t.Errorf("status %d", got)
	}
	wantRefusal(t, b.resume(), "container c is not running")
	b.delete("")
}

// TestHolderOfPaused: the end of the holder is the container's end, paused or not.
func TestHolderOfPaused(t *testing.T) {
	d := newDaemon(t)
	b := d.bundled("c", false, spec("sleep", "1000"))
	pid := b.create()
	b.start()
	b.mustPause()
	if err := unix.Kill(int(pid), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got := b.wait(""); got != 137 {
		t.Errorf("status %d", got)
	}
	b.delete("")
}

// TestShimEndsWhilePaused: newDaemon's clean-up finds nothing left.
func TestShimEndsWhilePaused(t *testing.T) {
	d := newDaemon(t)
	d.sleeper().mustPause()
}

// TestWaitOfPaused: what waits for a container waits on, and output that an exec
// has left comes when the container runs again.
func TestWaitOfPaused(t *testing.T) {
	d := newDaemon(t)
	b := d.sleeper()
	waits := make(chan uint32)
	go func() { waits <- b.wait("") }()
	b.mustPause()
	select {
	case status := <-waits:
		t.Errorf("status %d of a paused container", status)
	case <-time.After(50 * time.Millisecond):
	}
	b.mustResume()
	b.kill("", unix.SIGKILL, false)
	if status := <-waits; status != 137 {
		t.Errorf("status %d", status)
	}
	b.delete("")
}

// TestPauseRaces has every call that touches the guest race with pauses: each has
// an answer, and the container is well afterwards.
func TestPauseRaces(t *testing.T) {
	d := newDaemon(t)
	b := d.sleeper()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	until := func(f func(i int)) {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					f(i)
				}
			}
		})
	}
	check := func(what string, err error) {
		if err != nil && !is(err, errdefs.ErrFailedPrecondition) {
			t.Errorf("%s: %v", what, err)
		}
	}
	until(func(int) {
		// One update after the other is reason enough to refuse a pause.
		if err := b.pause(); !is(err, errdefs.ErrUnavailable) {
			check("pause", err)
		}
	})
	until(func(int) { check("resume", b.resume()) })
	until(func(int) { check("signal", b.kill("", unix.SIGCHLD, false)) })
	until(func(int) {
		check("stats", errgrpc.ToNative(second(d.task.Stats(context.Background(), &taskapi.StatsRequest{ID: "c"}))))
	})
	until(func(int) {
		check("pids", errgrpc.ToNative(second(d.task.Pids(context.Background(), &taskapi.PidsRequest{ID: "c"}))))
	})
	until(func(i int) { check("update", b.update(fmt.Sprintf(`{"pids":{"limit":%d}}`, 10+i))) })
	for i := range 20 {
		id := fmt.Sprint("e", i)
		if _, err := b.exec2(id); err != nil {
			check("exec", err)
			continue
		}
		if err := b.startExec(id); err != nil {
			check("start", err)
		} else if got := b.wait(id); got != 0 {
			t.Errorf("%s: status %d", id, got)
		}
		b.delete(id)
	}
	close(stop)
	wg.Wait()
	b.end()
}

// TestKillRacesWithPause: a container that is killed ends, whatever pauses it.
func TestKillRacesWithPause(t *testing.T) {
	d := newDaemon(t)
	for i := range 20 {
		b := d.bundled(fmt.Sprint("c", i), false, spec("sleep", "1000"))
		b.create()
		b.start()
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { b.pause() })
			wg.Go(func() { b.resume() })
		}
		if err := b.kill("", unix.SIGKILL, false); err != nil {
			t.Error(err)
		}
		if got := b.wait(""); got != 137 {
			t.Errorf("status %d", got)
		}
		wg.Wait()
		b.delete("")
	}
}
