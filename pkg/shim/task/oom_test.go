// SPDX-License-Identifier: Apache-2.0

package task_test

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/shim/task/tasktest"
)

// awaitEvent waits for an event.
func (d *daemon) awaitEvent(want string) {
	d.t.Helper()
	for {
		d.mu.Lock()
		found, grown := slices.Contains(d.events, want), d.grown
		d.mu.Unlock()
		if found {
			return
		}
		select {
		case <-grown:
		case <-d.ctx().Done():
			d.t.Fatalf("no event %q", want)
		}
	}
}

// TestOOM: one event as it happens, and none again for the same at the end.
func TestOOM(t *testing.T) {
	d := newDaemon(t)
	b := d.sleeper()
	d.guest().OOM(2)
	d.awaitEvent("/tasks/oom c")
	if _, err := os.Stat(filepath.Join(b.bundle, "oom")); err != nil {
		t.Errorf("for CRI-O: %v", err)
	}
	b.end()
	d.expectEvents("/tasks/create c", "/tasks/start c", "/tasks/oom c", "/tasks/exit c/c 137", "/tasks/delete c 137")
}

// TestOOMBeforeExit: an end by OOM that only Wait tells of.
func TestOOMBeforeExit(t *testing.T) {
	for name, deaf := range map[string]func(uint64) uint64{
		"watched": nil, // the same from WaitOOM and Wait is one event
		"deaf":    func(known uint64) uint64 { return known },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDaemon(t)
			b := d.bundled("c", false, spec("sh", "-c", "echo ready; read x; kill -9 $$"))
			b.create()
			d.guest().Answer(tasktest.Answers{WaitOOM: deaf})
			b.start()
			if _, err := io.ReadFull(b.stdout, make([]byte, 6)); err != nil {
				t.Fatal(err)
			}
			d.guest().OOM(1, "")
			in := d.open(b.in, os.O_WRONLY)
			io.WriteString(in, "\n")
			if got := b.wait(""); got != 137 {
				t.Errorf("status %d", got)
			}
			b.delete("")
			d.expectEvents("/tasks/create c", "/tasks/start c", "/tasks/oom c", "/tasks/exit c/c 137", "/tasks/delete c 137")
		})
	}
}

// TestOOMOfExec: its event comes before the exec's exit.
func TestOOMOfExec(t *testing.T) {
	d := newDaemon(t)
	b := d.bundled("c", false, spec("sleep", "1000"))
	b.create()
	d.guest().Answer(tasktest.Answers{WaitOOM: func(known uint64) uint64 { return known }})
	b.start()
	if _, err := b.exec("e", false, "sleep", "1000"); err != nil {
		t.Fatal(err)
	}
	if err := b.startExec("e"); err != nil {
		t.Fatal(err)
	}
	d.guest().OOM(1, "e")
	b.kill("e", unix.SIGKILL, false)
	b.wait("e")
	b.end()
	d.expectEvents("/tasks/create c", "/tasks/start c", "/tasks/exec-added c/e", "/tasks/exec-started c/e",
		"/tasks/oom c", "/tasks/exit c/e 137", "/tasks/exit c/c 137", "/tasks/delete c 137")
}

// TestOOMWhilePaused: the guest tells when it runs again.
func TestOOMWhilePaused(t *testing.T) {
	d := newDaemon(t)
	b := d.sleeper()
	b.mustPause()
	d.guest().OOM(1)
	b.mustResume()
	d.awaitEvent("/tasks/oom c")
	b.end()
	d.expectEvents("/tasks/create c", "/tasks/start c", "/tasks/paused c", "/tasks/resumed c", "/tasks/oom c",
		"/tasks/exit c/c 137", "/tasks/delete c 137")
}

// TestOOMFlood: a guest that tells of kills without end is heard now and then.
func TestOOMFlood(t *testing.T) {
	d := newDaemon(t)
	b := d.bundled("c", false, spec("sleep", "1000"))
	b.create()
	calls := make(chan struct{}, 1000)
	d.guest().Answer(tasktest.Answers{WaitOOM: func(known uint64) uint64 {
		calls <- struct{}{}
		return known + 1
	}})
	d.guest().OOM(1)
	b.start()
	d.awaitEvent("/tasks/oom c")
	b.end()
	if n := len(calls); n > 500 {
		t.Errorf("asked %d times", n)
	}
}
