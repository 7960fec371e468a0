// SPDX-License-Identifier: Apache-2.0

package task_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/api/events"
	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	eventsapi "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/log"
	"github.com/containerd/ttrpc"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	shimevents "github.com/xcontainer/xcontainer/pkg/shim/events"
	"github.com/xcontainer/xcontainer/pkg/shim/holder"
	"github.com/xcontainer/xcontainer/pkg/shim/task"
	"github.com/xcontainer/xcontainer/pkg/shim/task/tasktest"
)

// limit bounds what must happen at all; no test measures time.
const limit = 60 * time.Second

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == holder.Role {
		if err := holder.Run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	log.L.Logger.SetOutput(io.Discard)
	os.Exit(m.Run())
}

// daemon stands for containerd: it has the client of a shim's task service, and
// serves events.
type daemon struct {
	t      *testing.T
	dir    string
	world  *tasktest.World
	groups *tasktest.Cgroups
	task   taskapi.TTRPCTaskService
	client *ttrpc.Client

	shutdown chan struct{}

	mu     sync.Mutex
	guests []*tasktest.Guest // guarded by mu
	events []string          // guarded by mu
	grown  chan struct{}     // guarded by mu; closed and renewed when events grows
}

func newDaemon(t *testing.T) *daemon {
	t.Helper()
	// Tests take their time between two containers.
	return newIdleDaemon(t, time.Hour)
}

// newIdleDaemon is one whose shim stays without a container for idle.
func newIdleDaemon(t *testing.T, idle time.Duration) *daemon {
	t.Helper()
	before := inventory(t)
	d := &daemon{t: t, dir: t.TempDir(), groups: &tasktest.Cgroups{}, shutdown: make(chan struct{}), grown: make(chan struct{})}
	domains := filepath.Join(d.dir, "domains")
	if err := os.Mkdir(domains, 0o700); err != nil {
		t.Fatal(err)
	}
	d.world = &tasktest.World{Dir: domains, Booted: func(g *tasktest.Guest) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.guests = append(d.guests, g)
	}}
	stopEvents := listen(t, filepath.Join(d.dir, "events"), func(s *ttrpc.Server) {
		eventsapi.RegisterTTRPCEventsService(s, d)
	})
	queue := shimevents.New(filepath.Join(d.dir, "events"), "ns")
	svc := task.New(task.Config{
		Namespace:   "ns",
		Share:       "/share",
		CPUs:        2,
		Boot:        d.world.Boot,
		Cgroup:      d.groups.At,
		Events:      queue,
		Shutdown:    func() { close(d.shutdown) },
		IdleTimeout: idle,
	})
	stopTask := listen(t, filepath.Join(d.dir, "task"), svc.Register)
	conn, err := net.Dial("unix", filepath.Join(d.dir, "task"))
	if err != nil {
		t.Fatal(err)
	}
	d.client = ttrpc.NewClient(conn)
	d.task = taskapi.NewTTRPCTaskClient(d.client)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		svc.Close(ctx)
		d.client.Close()
		stopTask()
		queue.Close(ctx)
		stopEvents()
		if n := d.groups.Count(); n != 0 {
			t.Errorf("%d cgroups left", n)
		}
		if n, err := d.world.Domains(); n != 0 || err != nil {
			t.Errorf("%d domains left, %v", n, err)
		}
		sameInventory(t, before)
	})
	return d
}

func listen(t *testing.T, path string, register func(*ttrpc.Server)) (stop func()) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv, err := ttrpc.NewServer(ttrpc.WithServerHandshaker(ttrpc.UnixSocketRequireSameUser()))
	if err != nil {
		t.Fatal(err)
	}
	register(srv)
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(context.Background(), l)
	}()
	return func() {
		srv.Close()
		<-done
	}
}

// Forward implements the events service: it keeps one line per event.
func (d *daemon) Forward(_ context.Context, r *eventsapi.ForwardRequest) (*emptypb.Empty, error) {
	e, err := typeurl.UnmarshalAny(r.Envelope.Event)
	if err != nil {
		return nil, err
	}
	line := r.Envelope.Topic
	switch e := e.(type) {
	case *events.TaskCreate:
		line += fmt.Sprintf(" %s", e.ContainerID)
	case *events.TaskStart:
		line += fmt.Sprintf(" %s", e.ContainerID)
	case *events.TaskExecAdded:
		line += fmt.Sprintf(" %s/%s", e.ContainerID, e.ExecID)
	case *events.TaskExecStarted:
		line += fmt.Sprintf(" %s/%s", e.ContainerID, e.ExecID)
	case *events.TaskPaused:
		line += fmt.Sprintf(" %s", e.ContainerID)
	case *events.TaskResumed:
		line += fmt.Sprintf(" %s", e.ContainerID)
	case *events.TaskOOM:
		line += fmt.Sprintf(" %s", e.ContainerID)
	case *events.TaskExit:
		line += fmt.Sprintf(" %s/%s %d", e.ContainerID, e.ID, e.ExitStatus)
	case *events.TaskDelete:
		line += fmt.Sprintf(" %s %d", e.ContainerID, e.ExitStatus)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.events = append(d.events, line)
	close(d.grown)
	d.grown = make(chan struct{})
	return &emptypb.Empty{}, nil
}

// expectEvents waits for as many events as wanted and compares.
func (d *daemon) expectEvents(want ...string) {
	d.t.Helper()
	timeout := time.After(limit)
	for {
		d.mu.Lock()
		got, grown := slices.Clone(d.events), d.grown
		d.mu.Unlock()
		if len(got) >= len(want) {
			if !slices.Equal(got, want) {
				d.t.Errorf("events\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			return
		}
		select {
		case <-grown:
		case <-timeout:
			d.t.Fatalf("events\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// guest is the domain that booted last.
func (d *daemon) guest() *tasktest.Guest {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.guests[len(d.guests)-1]
}

// box is one container as a client sees it.
type box struct {
	*daemon
	id, bundle string
	pipes
}

// pipes are the client's names of a process's stdio.
type pipes struct {
	in, out, err string
	terminal     bool
	stdout       *os.File
	stderr       *os.File
}

func (d *daemon) newPipes(dir, prefix string, terminal bool) pipes {
	d.t.Helper()
	p := pipes{terminal: terminal}
	for _, f := range []struct {
		name string
		to   *string
	}{{"in", &p.in}, {"out", &p.out}, {"err", &p.err}} {
		*f.to = filepath.Join(dir, prefix+f.name)
		if err := unix.Mkfifo(*f.to, 0o600); err != nil {
			d.t.Fatal(err)
		}
	}
	if terminal {
		p.err = ""
	}
	p.stdout = d.open(p.out, os.O_RDONLY)
	if p.err != "" {
		p.stderr = d.open(p.err, os.O_RDONLY)
	}
	return p
}

func (d *daemon) open(name string, flag int) *os.File {
	d.t.Helper()
	f, err := os.OpenFile(name, flag|unix.O_NONBLOCK, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	f.SetDeadline(time.Now().Add(limit))
	d.t.Cleanup(func() { f.Close() })
	return f
}

func spec(args ...string) *specs.Spec {
	return &specs.Spec{
		Version: "1.2.0",
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{Args: args, Cwd: "/", Env: []string{"A=b"}},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
			{Type: specs.MountNamespace}, {Type: specs.NetworkNamespace},
		}},
	}
}

// bundled makes a container's bundle and pipes, without creating it.
func (d *daemon) bundled(id string, terminal bool, s *specs.Spec) *box {
	d.t.Helper()
	b := &box{daemon: d, id: id, bundle: filepath.Join(d.dir, id)}
	if err := os.MkdirAll(filepath.Join(b.bundle, "rootfs"), 0o700); err != nil {
		d.t.Fatal(err)
	}
	data, err := json.Marshal(s)
	if err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.bundle, "config.json"), data, 0o600); err != nil {
		d.t.Fatal(err)
	}
	b.pipes = d.newPipes(b.bundle, "", terminal)
	return b
}

func (b *box) createRequest() *taskapi.CreateTaskRequest {
	return &taskapi.CreateTaskRequest{
		ID: b.id, Bundle: b.bundle, Stdin: b.in, Stdout: b.pipes.out, Stderr: b.pipes.err, Terminal: b.terminal,
	}
}

func (b *box) create() uint32 {
	b.t.Helper()
	r, err := b.task.Create(b.ctx(), b.createRequest())
	if err != nil {
		b.t.Fatalf("create: %v", err)
	}
	return r.Pid
}

func (b *box) start() {
	b.t.Helper()
	if _, err := b.task.Start(b.ctx(), &taskapi.StartRequest{ID: b.id}); err != nil {
		b.t.Fatalf("start: %v", err)
	}
}

func (b *box) wait(execID string) uint32 {
	b.t.Helper()
	r, err := b.task.Wait(b.ctx(), &taskapi.WaitRequest{ID: b.id, ExecID: execID})
	if err != nil {
		b.t.Fatalf("wait: %v", err)
	}
	return r.ExitStatus
}

func (b *box) delete(execID string) *taskapi.DeleteResponse {
	b.t.Helper()
	r, err := b.task.Delete(b.ctx(), &taskapi.DeleteRequest{ID: b.id, ExecID: execID})
	if err != nil {
		b.t.Fatalf("delete: %v", err)
	}
	return r
}

func (b *box) kill(execID string, sig unix.Signal, all bool) error {
	_, err := b.task.Kill(b.ctx(), &taskapi.KillRequest{ID: b.id, ExecID: execID, Signal: uint32(sig), All: all})
	return errgrpc.ToNative(err)
}

// exec adds an exec; its pipes are named after it.
func (b *box) exec(execID string, terminal bool, args ...string) (pipes, error) {
	b.t.Helper()
	data, err := json.Marshal(&specs.Process{Args: args, Cwd: "/"})
	if err != nil {
		b.t.Fatal(err)
	}
	p := b.newPipes(b.bundle, execID+"-", terminal)
	_, err = b.task.Exec(b.ctx(), &taskapi.ExecProcessRequest{
		ID: b.id, ExecID: execID, Stdin: p.in, Stdout: p.out, Stderr: p.err, Terminal: terminal,
		Spec: &anypb.Any{Value: data},
	})
	return p, errgrpc.ToNative(err)
}

func (b *box) startExec(execID string) error {
	_, err := b.task.Start(b.ctx(), &taskapi.StartRequest{ID: b.id, ExecID: execID})
	return errgrpc.ToNative(err)
}

func (b *box) closeStdin(execID string) {
	b.t.Helper()
	if _, err := b.task.CloseIO(b.ctx(), &taskapi.CloseIORequest{ID: b.id, ExecID: execID, Stdin: true}); err != nil {
		b.t.Fatal(err)
	}
}

func (d *daemon) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	d.t.Cleanup(cancel)
	return ctx
}

func read(t *testing.T, f *os.File) string {
	t.Helper()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Errorf("read %s: %v", f.Name(), err)
	}
	return string(b)
}

// run takes a container through its life and returns its status and output.
func (d *daemon) run(id string, args ...string) (status uint32, stdout, stderr string) {
	d.t.Helper()
	b := d.bundled(id, false, spec(args...))
	b.create()
	b.start()
	var wg sync.WaitGroup
	wg.Go(func() { stdout = read(d.t, b.stdout) })
	wg.Go(func() { stderr = read(d.t, b.stderr) })
	status = b.wait("")
	wg.Wait()
	b.delete("")
	return status, stdout, stderr
}

// Inventory of what a test must leave as it was.
type things struct {
	goroutines int
	files      int
	children   string
}

func inventory(t *testing.T) things {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return things{runtime.NumGoroutine(), len(fds), strings.Join(children(t), " ")}
}

func children(t *testing.T) []string {
	t.Helper()
	var list []string
	names, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			continue // ended meanwhile
		}
		i := strings.LastIndexByte(string(b), ')')
		f := strings.Fields(string(b[i+1:]))
		if len(f) > 1 && f[1] == fmt.Sprint(os.Getpid()) {
			list = append(list, string(b[:i+1]))
		}
	}
	return list
}

// sameInventory gives what is on its way out the time to go.
func sameInventory(t *testing.T, want things) {
	t.Helper()
	var got things
	for deadline := time.Now().Add(limit / 4); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		got = inventory(t)
		if got.goroutines <= want.goroutines && got.files <= want.files && got.children == want.children {
			return
		}
	}
	buf := make([]byte, 1<<20)
	t.Errorf("left behind: %+v, before %+v\n%s", got, want, buf[:runtime.Stack(buf, true)])
}

func is(err, want error) bool { return errors.Is(err, want) }
