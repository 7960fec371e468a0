// SPDX-License-Identifier: Apache-2.0

package task_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/api/types"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/shim/bundle"
	"github.com/xcontainer/xcontainer/pkg/shim/record"
	"github.com/xcontainer/xcontainer/pkg/shim/task"
)

func waitABit() { time.Sleep(5 * time.Millisecond) }

func TestGuestDeath(t *testing.T) {
	d := newDaemon(t)
	for _, tt := range []struct {
		id   string
		err  error
		want uint32
	}{
		{"crash", fmt.Errorf("%w: Kernel panic - not syncing: sysrq", task.ErrGuestCrashed), 255},
		{"destroyed", task.ErrGuestDestroyed, 137},
		{"other", errors.New("the back-end ended"), 255},
	} {
		b := d.bundled(tt.id, false, spec("sh", "-c", "echo before; sleep 1000"))
		b.create()
		b.start()
		if _, err := b.exec("e", false, "sleep", "1000"); err != nil {
			t.Fatal(err)
		}
		if err := b.startExec("e"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(b.stdout, make([]byte, 7)); err != nil {
			t.Fatal(err)
		}
		d.guest().Die(tt.err)
		if got := b.wait(""); got != tt.want {
			t.Errorf("%s: status %d", tt.id, got)
		}
		if got := b.wait("e"); got != tt.want {
			t.Errorf("%s: status %d of the exec", tt.id, got)
		}
		read(t, b.stdout) // ends
		b.delete("")
	}
}

func TestDeathBeforeStart(t *testing.T) {
	d := newDaemon(t)
	b := d.bundled("c", false, spec("true"))
	b.create()
	d.guest().Die(fmt.Errorf("%w: panic line", task.ErrGuestCrashed))
	if got := b.wait(""); got != 255 {
		t.Errorf("status %d", got)
	}
	if err := b.startExec(""); !is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("start: %v", err)
	}
	b.delete("")
}

// TestHungAgent: SIGKILL ends a container whose agent answers nothing.
func TestHungAgent(t *testing.T) {
	d := newDaemon(t)
	b := d.sleeper()
	d.guest().Hang()
	if err := b.kill("", unix.SIGKILL, false); err != nil {
		t.Errorf("kill: %v", err)
	}
	if got := b.wait(""); got != 137 {
		t.Errorf("status %d", got)
	}
	b.delete("")
}

func TestHolderKilled(t *testing.T) {
	d := newDaemon(t)
	for _, tt := range []struct {
		id   string
		sig  unix.Signal
		want uint32
	}{{"kill", unix.SIGKILL, 137}, {"term", unix.SIGTERM, 9}} {
		b := d.bundled(tt.id, false, spec("sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done"))
		pid := b.create()
		b.start()
		if _, err := io.ReadFull(b.stdout, make([]byte, 6)); err != nil {
			t.Fatal(err)
		}
		if err := unix.Kill(int(pid), tt.sig); err != nil {
			t.Fatal(err)
		}
		if got := b.wait(""); got != tt.want {
			t.Errorf("%v: status %d", tt.sig, got)
		}
		b.delete("")
	}
}

// TestCreateUndoes fails Create at each of its steps: nothing is left, and the
// error is the step's.
func TestCreateUndoes(t *testing.T) {
	for _, step := range []string{"createdomain", "record", "backend", "hello", "export", "stream", "CreateContainer"} {
		t.Run(step, func(t *testing.T) {
			d := newDaemon(t)
			d.world.Backend = true
			d.world.Fail = func(s string) error {
				if s == step {
					return fmt.Errorf("no luck: %w", errdefs.ErrResourceExhausted)
				}
				return nil
			}
			b := d.bundled("c", false, spec("true"))
			_, err := d.task.Create(d.ctx(), b.createRequest())
			if err = errgrpc.ToNative(err); !is(err, errdefs.ErrResourceExhausted) || !strings.Contains(err.Error(), "no luck") {
				t.Errorf("got %v", err)
			}
			if n, err := d.world.Domains(); n != 0 || err != nil {
				t.Errorf("%d domains, %v", n, err)
			}
			if r, err := record.Read(b.bundle); r != nil || err != nil {
				t.Errorf("record %+v, %v", r, err)
			}
			d.expectEvents()
			d.world.Fail = nil
			b.create() // the id is free again
			b.delete("")
		})
	}
}

// TestStartFails: an init that cannot be started, as of another architecture, is
// a stopped task, which clients can delete.
func TestStartFails(t *testing.T) {
	d := newDaemon(t)
	d.world.Fail = func(s string) error {
		if s == "StartContainer" {
			return fmt.Errorf("exec /bin/x: exec format error: %w", errdefs.ErrInvalidArgument)
		}
		return nil
	}
	b := d.bundled("c", false, spec("true"))
	b.create()
	if err := b.startExec(""); !is(err, errdefs.ErrInvalidArgument) || !strings.HasPrefix(err.Error(), "exec /bin/x: exec format error") {
		t.Errorf("start: %v", err)
	}
	if s := b.state(""); s.Status != tasktypes.Status_STOPPED || s.ExitStatus != 137 {
		t.Errorf("state %v", s)
	}
	read(t, b.stdout) // has ended
	b.delete("")
	d.expectEvents("/tasks/create c", "/tasks/exit c/c 137", "/tasks/delete c 137")
}

func TestGuestDiesDuringCreate(t *testing.T) {
	d := newDaemon(t)
	d.world.Fail = func(s string) error {
		if s == "CreateContainer" {
			d.guest().Die(fmt.Errorf("%w: panic line", task.ErrGuestCrashed))
			return errors.New("never heard")
		}
		return nil
	}
	b := d.bundled("c", false, spec("true"))
	_, err := d.task.Create(d.ctx(), b.createRequest())
	if err == nil || !strings.Contains(err.Error(), "domain of container c: guest crashed: panic line") {
		t.Errorf("got %v", err)
	}
}

// TestCreateErrors pins what a user reads.
func TestCreateErrors(t *testing.T) {
	d := newDaemon(t)
	sock := filepath.Join(d.dir, "sock")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	fifo := filepath.Join(d.dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	bind := func(source string) func(*box, *specs.Spec) {
		return func(_ *box, s *specs.Spec) {
			s.Mounts = []specs.Mount{{Type: "bind", Source: source, Destination: "/x", Options: []string{"bind"}}}
		}
	}
	tests := []struct {
		id     string
		change func(*box, *specs.Spec)
		after  func(*box)
		code   error
		want   string
	}{
		{"bundle", nil, func(b *box) { os.Remove(filepath.Join(b.bundle, "config.json")) }, errdefs.ErrNotFound,
			"bundle DIR/bundle has no config.json; create the container again"},
		{"corrupt", nil, func(b *box) { os.WriteFile(filepath.Join(b.bundle, "config.json"), []byte("{"), 0o600) }, errdefs.ErrInvalidArgument,
			"DIR/corrupt/config.json is corrupt (not an OCI runtime configuration: unexpected end of JSON input); create the container again"},
		{"rootfs", nil, func(b *box) { os.Remove(filepath.Join(b.bundle, "rootfs")) }, errdefs.ErrInvalidArgument,
			"rootfs DIR/rootfs/rootfs does not exist; make it, or create the container again"},
		{"rootfile", func(_ *box, s *specs.Spec) { s.Root.Path = fifo }, nil, errdefs.ErrInvalidArgument,
			"rootfs DIR/fifo is a named pipe, which X-Containers cannot share; give a directory"},
		{"bind-missing", bind("/no/such"), nil, errdefs.ErrInvalidArgument,
			"bind mount source /no/such does not exist; make it, or create the container again"},
		{"bind-socket", bind(sock), nil, errdefs.ErrInvalidArgument,
			"bind mount source DIR/sock is a socket, which X-Containers cannot share; give a directory or a regular file"},
		{"bind-fifo", bind(fifo), nil, errdefs.ErrInvalidArgument,
			"bind mount source DIR/fifo is a named pipe, which X-Containers cannot share; give a directory or a regular file"},
		{"bind-device", bind("/dev/null"), nil, errdefs.ErrInvalidArgument,
			"bind mount source /dev/null is a device, which X-Containers cannot share; give a directory or a regular file"},
		{"mount-type", func(_ *box, s *specs.Spec) { s.Mounts = []specs.Mount{{Type: "nfs", Destination: "/x"}} }, nil, errdefs.ErrInvalidArgument,
			`mount type "nfs" (at /x) is not supported by X-Containers: use a bind mount or one of proc, sysfs, tmpfs, devpts, mqueue, cgroup, cgroup2`},
		{"command", func(_ *box, s *specs.Spec) { s.Process.Args = []string{"no-such-command"} }, nil, errdefs.ErrNotFound,
			`exec: "no-such-command": executable file not found in $PATH`},
		{"stdout", nil, func(b *box) { b.pipes.out = "binary:///log" }, errdefs.ErrInvalidArgument,
			"the logger /log takes stdout and stderr; stderr cannot go to DIR/stdout/err"},
	}
	for _, tt := range tests {
		t.Run(tt.id, func(t *testing.T) {
			s := spec("true")
			b := &box{}
			if tt.change != nil {
				tt.change(b, s)
			}
			b = d.bundled(tt.id, false, s)
			if tt.after != nil {
				tt.after(b)
			}
			_, err := d.task.Create(d.ctx(), b.createRequest())
			err = errgrpc.ToNative(err)
			if !is(err, tt.code) {
				t.Fatalf("got %v, want %v", err, tt.code)
			}
			if got, want := strings.ReplaceAll(err.Error(), d.dir, "DIR"), tt.want; got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

func TestMounts(t *testing.T) {
	d := newDaemon(t)
	source := filepath.Join(d.dir, "source")
	file := filepath.Join(d.dir, "file")
	for _, dir := range []string{source, filepath.Join(source, "sub")} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := spec("true")
	s.Mounts = []specs.Mount{
		{Type: "tmpfs", Destination: "/t"},
		{Type: "bind", Source: source, Destination: "/d", Options: []string{"rbind"}},
		{Type: "bind", Source: file, Destination: "/f", Options: []string{"rbind", "ro"}},
	}
	b := d.bundled("c", false, s)
	r := b.createRequest()
	r.Rootfs = []*types.Mount{{Type: "bind", Source: source, Options: []string{"rbind", "rw"}}}
	if _, err := d.task.Create(d.ctx(), r); err != nil {
		t.Fatal(err)
	}
	g := d.guest()
	for name, want := range map[string]string{
		"c/rootfs":   filepath.Join(b.bundle, "rootfs"),
		"c/mounts/1": source,
		"c/mounts/2": file,
	} {
		if got := g.Export(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	sub := filepath.Join(b.bundle, "rootfs", "sub")
	if _, err := os.Stat(sub); err != nil {
		t.Errorf("the root file system is not mounted: %v", err)
	}
	b.start()
	b.wait("")
	b.delete("")
	if _, err := os.Stat(sub); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the root file system is still mounted: %v", err)
	}

	r.Rootfs[0].Source = "/no/such"
	_, err := d.task.Create(d.ctx(), r)
	if err == nil || !strings.Contains(err.Error(), "mount rootfs: mount source: \"/no/such\"") || !strings.HasSuffix(err.Error(), "no such file or directory; is the container's snapshot still there?") {
		t.Errorf("got %v", err)
	}
}

// TestCrashWhileBooting: one crash before the hello is survived, two are not.
func TestCrashWhileBooting(t *testing.T) {
	for _, crashes := range []int{1, 2} {
		t.Run(fmt.Sprint(crashes), func(t *testing.T) {
			d := newDaemon(t)
			left := crashes
			d.world.Fail = func(s string) error {
				if s != "hello" || left == 0 {
					return nil
				}
				left--
				return fmt.Errorf("%w: panic line", task.ErrGuestCrashed)
			}
			b := d.bundled("c", false, spec("true"))
			_, err := d.task.Create(d.ctx(), b.createRequest())
			if crashes == 2 {
				if err == nil || !strings.Contains(err.Error(), "guest crashed: panic line") {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if n, err := d.world.Domains(); n != 1 || err != nil {
				t.Errorf("%d domains, %v", n, err)
			}
			if x := d.guest().Config.XLibOS; x != bundle.XLibOSOff {
				t.Errorf("the second boot is with X-LibOS %q", x)
			}
			b.delete("")
		})
	}
}

// TestEndsAfterFailedCreate: the client that asked may have gone before the
// answer, and then nobody tells the shim to end.
func TestEndsAfterFailedCreate(t *testing.T) {
	d := newIdleDaemon(t, 50*time.Millisecond)
	d.world.Fail = func(string) error { return errors.New("no luck") }
	b := d.bundled("c", false, spec("true"))
	if _, err := d.task.Create(d.ctx(), b.createRequest()); err == nil {
		t.Fatal("no error")
	}
	select {
	case <-d.shutdown:
	case <-time.After(limit):
		t.Error("the shim stays without a container")
	}
}
