// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/ttrpc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/xcontainer/xcontainer/pkg/shim/bootstrap"
	"github.com/xcontainer/xcontainer/pkg/shim/record"
	"github.com/xcontainer/xcontainer/pkg/shim/task/tasktest"
)

// limit bounds what must happen at all; no test measures time.
const limit = 60 * time.Second

// domainsEnv is the folder of the domains of the shim under test, and says that
// this program is the shim.
const domainsEnv = "SHIM_TEST_DOMAINS"

func TestMain(m *testing.M) {
	if dir := os.Getenv(domainsEnv); dir != "" || len(os.Args) > 1 && os.Args[1] == "holder" {
		w := &tasktest.World{Dir: dir, Backend: true}
		os.Exit(Main(os.Args, Parts{Boot: w.Boot, Destroy: w.Destroy, Backend: func() error { return errors.New("no back-end") }}))
	}
	os.Exit(m.Run())
}

// shim is a shim as containerd has it.
type shim struct {
	t       *testing.T
	bundle  string
	domains string
	log     *os.File
	level   bootapi.LogLevel
	address string
	version int32
	client  *ttrpc.Client
	task    taskapi.TTRPCTaskService
}

// command is how containerd runs the binary for an action.
func (s *shim) command(action string, args ...string) *exec.Cmd {
	s.t.Helper()
	cmd := exec.Command("/proc/self/exe", append(append([]string{"-namespace", "ns", "-id", "c", "-address", "/a"}, args...), action)...)
	cmd.Dir = s.bundle
	cmd.Env = append(os.Environ(), domainsEnv+"="+s.domains, "TTRPC_ADDRESS=")
	return cmd
}

func startShim(t *testing.T, args ...string) *shim {
	t.Helper()
	return startShimAt(t, bootapi.LogLevel_LOG_LEVEL_INFO, args...)
}

// startShimAt starts a shim whose daemon logs at level.
func startShimAt(t *testing.T, level bootapi.LogLevel, args ...string) *shim {
	t.Helper()
	dir := t.TempDir()
	s := &shim{t: t, bundle: filepath.Join(dir, "c"), domains: filepath.Join(dir, "domains"), level: level}
	for _, d := range []string{s.bundle, s.domains, filepath.Join(s.bundle, "rootfs")} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	data, err := json.Marshal(&specs.Spec{
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{Args: args, Cwd: "/"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.bundle, "config.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"log", "out"} {
		if err := unix.Mkfifo(filepath.Join(s.bundle, f), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.log = s.openLog()

	// Not in dir: a socket's path must be short.
	sockets, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	input, err := proto.Marshal(&bootapi.BootstrapParams{InstanceID: "c", Namespace: "ns", SocketDir: &sockets, LogLevel: s.level})
	if err != nil {
		t.Fatal(err)
	}
	cmd := s.command("start")
	cmd.Stdin = bytes.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("start: %v: %s", err, out)
	}
	var r bootapi.BootstrapResult
	if err := proto.Unmarshal(out, &r); err != nil {
		t.Fatalf("start printed %q", out)
	}
	s.address, s.version = r.Address, r.Version
	conn, err := net.Dial("unix", s.socket())
	if err != nil {
		t.Fatal(err)
	}
	s.client = ttrpc.NewClient(conn)
	t.Cleanup(func() { s.client.Close() })
	s.task = taskapi.NewTTRPCTaskClient(s.client)
	return s
}

func (s *shim) socket() string { return strings.TrimPrefix(s.address, "unix://") }

func (s *shim) openLog() *os.File {
	s.t.Helper()
	f, err := os.OpenFile(filepath.Join(s.bundle, "log"), os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	f.SetDeadline(time.Now().Add(limit))
	s.t.Cleanup(func() { f.Close() })
	return f
}

// logs reads the log until it has the words.
func (s *shim) logs(words string) {
	s.t.Helper()
	var all []byte
	buf := make([]byte, 64<<10)
	for !bytes.Contains(all, []byte(words)) {
		n, err := s.log.Read(buf)
		if err != nil {
			s.t.Fatalf("no %q in the log (%v):\n%s", words, err, all)
		}
		all = append(all, buf[:n]...)
	}
}

// run creates and starts the container and returns the shim's pid.
func (s *shim) run() (pid int) {
	s.t.Helper()
	r := &taskapi.CreateTaskRequest{ID: "c", Bundle: s.bundle, Stdout: filepath.Join(s.bundle, "out"),
		Rootfs: []*types.Mount{{Type: "tmpfs", Source: "none"}}}
	if _, err := s.task.Create(s.t.Context(), r); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { unix.Unmount(filepath.Join(s.bundle, "rootfs"), unix.MNT_DETACH) })
	if _, err := s.task.Start(s.t.Context(), &taskapi.StartRequest{ID: "c"}); err != nil {
		s.t.Fatal(err)
	}
	conn, err := s.task.Connect(s.t.Context(), &taskapi.ConnectRequest{ID: "c"})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { unix.Kill(int(conn.ShimPid), unix.SIGKILL) })
	return int(conn.ShimPid)
}

func (s *shim) record() *record.Record {
	s.t.Helper()
	r, err := record.Read(s.bundle)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// gone waits until a process is no more.
func (s *shim) gone(p record.Process) {
	s.t.Helper()
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		now, err := record.Of(p.PID)
		if err != nil || now != p {
			return
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
	}
	s.t.Errorf("process %d is still there", p.PID)
}

// nothingLeft checks what a container had on the host.
func (s *shim) nothingLeft(r *record.Record) {
	s.t.Helper()
	for _, p := range []record.Process{r.Shim, r.Backend, r.Holder} {
		s.gone(p)
	}
	if d, err := os.ReadDir(s.domains); err != nil || len(d) != 0 {
		s.t.Errorf("domains %v, %v", d, err)
	}
	if left := s.record(); left != nil {
		s.t.Errorf("record %+v", left)
	}
	for _, name := range []string{s.socket(), bootstrap.DebugSocket(s.socket())} {
		if _, err := os.Stat(name); !errors.Is(err, os.ErrNotExist) {
			s.t.Errorf("socket %s: %v", name, err)
		}
	}
	if err := unix.Unmount(filepath.Join(s.bundle, "rootfs"), 0); !errors.Is(err, unix.EINVAL) {
		s.t.Errorf("rootfs is mounted (%v)", err)
	}
}

// TestVersion3 goes through a container's life with the newer service, whose
// messages are not the ones the shim is built with.
func TestVersion3(t *testing.T) {
	s := startShim(t, "sh", "-c", "exit 6")
	if s.version != 3 {
		t.Errorf("version %d", s.version)
	}
	c := taskv3.NewTTRPCTaskClient(s.client)
	ctx := t.Context()
	created, err := c.Create(ctx, &taskv3.CreateTaskRequest{ID: "c", Bundle: s.bundle, Stdout: filepath.Join(s.bundle, "out")})
	if err != nil {
		t.Fatal(err)
	}
	r := s.record()
	started, err := c.Start(ctx, &taskv3.StartRequest{ID: "c"})
	if err != nil || started.Pid != created.Pid {
		t.Fatalf("start: %v, %v", started, err)
	}
	w, err := c.Wait(ctx, &taskv3.WaitRequest{ID: "c"})
	if err != nil || w.ExitStatus != 6 {
		t.Errorf("wait: %v, %v", w, err)
	}
	st, err := c.State(ctx, &taskv3.StateRequest{ID: "c"})
	if err != nil || st.ExitStatus != 6 || st.Bundle != s.bundle || st.Pid != created.Pid || st.ExitedAt == nil {
		t.Errorf("state: %v, %v", st, err)
	}
	d, err := c.Delete(ctx, &taskv3.DeleteRequest{ID: "c"})
	if err != nil || d.ExitStatus != 6 {
		t.Errorf("delete: %v, %v", d, err)
	}
	if _, err := c.Shutdown(ctx, &taskv3.ShutdownRequest{ID: "c"}); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	s.nothingLeft(r)
}

// TestServicesAreAlike: one set of Go types serves both versions because their
// fields are the same.
func TestServicesAreAlike(t *testing.T) {
	v2 := taskapi.File_runtime_task_v2_shim_proto.Messages()
	v3 := taskv3.File_runtime_task_v3_shim_proto.Messages()
	if v2.Len() != v3.Len() {
		t.Fatalf("%d and %d messages", v2.Len(), v3.Len())
	}
	for i := range v2.Len() {
		a, b := v2.Get(i), v3.ByName(v2.Get(i).Name())
		if b == nil || a.Fields().Len() != b.Fields().Len() {
			t.Errorf("%s differs", a.Name())
			continue
		}
		for j := range a.Fields().Len() {
			fa, fb := a.Fields().Get(j), b.Fields().Get(j)
			if fa.Name() != fb.Name() || fa.Number() != fb.Number() || fa.Kind() != fb.Kind() || fa.Cardinality() != fb.Cardinality() {
				t.Errorf("%s and %s differ", fa.FullName(), fb.FullName())
			}
		}
	}
}

// TestCrash: SIGKILL of the shim, and then containerd's `delete`.
func TestCrash(t *testing.T) {
	s := startShim(t, "sleep", "1000")
	pid := s.run()
	r := s.record()
	if r == nil || r.DomID == nil || r.Backend.PID == 0 || r.Holder.PID == 0 || r.Shim.PID != pid {
		t.Fatalf("record %+v", r)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.gone(r.Shim)
	s.gone(r.Holder) // by itself
	for range 2 {
		var stdout, stderr bytes.Buffer
		cmd := s.command("delete", "-bundle", s.bundle)
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil || stderr.Len() != 0 {
			t.Fatalf("delete: %v: %s", err, stderr.String())
		}
		var resp taskapi.DeleteResponse
		if err := proto.Unmarshal(stdout.Bytes(), &resp); err != nil || resp.ExitStatus != 137 {
			t.Errorf("answer %v, %v", &resp, err)
		}
	}
	s.nothingLeft(r)
}

func TestTerminate(t *testing.T) {
	s := startShim(t, "sleep", "1000")
	pid := s.run()
	r := s.record()
	if err := unix.Kill(pid, unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	s.logs("all stacks, as SIGUSR1 asks")
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.nothingLeft(r)
}

// TestLogSurvivesContainerd closes the log's only reader, as a restart of
// containerd does, and opens it again.
func TestLogSurvivesContainerd(t *testing.T) {
	s := startShim(t, "sleep", "1000")
	pid := s.run()
	s.logs("container started")
	s.log.Close()
	if err := unix.Kill(pid, unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	// The shim has handled that signal when it answers the next.
	if _, err := s.task.Kill(t.Context(), &taskapi.KillRequest{ID: "c", Signal: uint32(unix.SIGKILL)}); err != nil {
		t.Fatal(err)
	}
	if w, err := s.task.Wait(t.Context(), &taskapi.WaitRequest{ID: "c"}); err != nil || w.ExitStatus != 137 {
		t.Errorf("wait: %v, %v", w, err)
	}
	s.log = s.openLog()
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.logs("told to end by terminated")
}

// profiler is a client of the profiler's socket.
func (s *shim) profiler() *http.Client {
	return &http.Client{Timeout: limit, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", bootstrap.DebugSocket(s.socket()))
		},
	}}
}

// TestProfile visits the profiler's socket, and sees that it goes with its shim,
// however that ends.
func TestProfile(t *testing.T) {
	for _, crash := range []bool{false, true} {
		s := startShimAt(t, bootapi.LogLevel_LOG_LEVEL_DEBUG, "sleep", "1000")
		pid := s.run()
		r := s.record()
		path := bootstrap.DebugSocket(s.socket())
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
			t.Fatalf("%v, %v", fi, err)
		}
		c := s.profiler()
		for url, want := range map[string]string{
			"/debug/vars":                    `"goroutines": `,
			"/debug/pprof/goroutine?debug=1": "goroutine profile: total ",
			"/debug/pprof/heap?debug=1":      "heap profile: ",
			"/":                              "404 page not found",
		} {
			resp, err := c.Get("http://shim" + url)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || !strings.Contains(string(b), want) {
				t.Errorf("%s: %.200q, %v; want %q in it", url, b, err, want)
			}
		}
		if !crash {
			unix.Kill(pid, unix.SIGTERM)
		} else {
			unix.Kill(pid, unix.SIGKILL)
			s.gone(r.Shim)
			if out, err := s.command("delete", "-bundle", s.bundle).CombinedOutput(); err != nil {
				t.Fatalf("delete: %v: %s", err, out)
			}
		}
		s.nothingLeft(r)
	}
}

// TestLogLevel: the shim's is its daemon's.
func TestLogLevel(t *testing.T) {
	s := startShimAt(t, bootapi.LogLevel_LOG_LEVEL_ERROR, "sleep", "1000")
	pid := s.run()
	if _, err := os.Stat(bootstrap.DebugSocket(s.socket())); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("profiler's socket: %v", err)
	}
	r := s.record()
	unix.Kill(pid, unix.SIGUSR1)
	s.logs("all stacks, as SIGUSR1 asks:\ngoroutine ") // whatever the level
	unix.Kill(pid, unix.SIGTERM)                       // a warning
	s.nothingLeft(r)
	buf := make([]byte, 64<<10)
	s.log.SetReadDeadline(time.Now().Add(time.Millisecond))
	if n, _ := s.log.Read(buf); bytes.Contains(buf[:n], []byte("level=")) {
		t.Errorf("the log has %q", buf[:n])
	}
}

func TestByHand(t *testing.T) {
	s := &shim{t: t, bundle: t.TempDir(), domains: t.TempDir()}
	for _, tt := range []struct {
		args   []string
		status int
		want   string
	}{
		{nil, 1, "io.containerd.xcontainer.v2: this program is started by containerd, with -namespace and -id; for a container use: ctr run --runtime io.containerd.xcontainer.v2 IMAGE NAME\n"},
		{[]string{"-x"}, 1, "io.containerd.xcontainer.v2: command line: flag provided but not defined: -x\n"},
		{[]string{"-namespace", "n", "-id", "i", "frobnicate"}, 1, "io.containerd.xcontainer.v2: unknown action \"frobnicate\"; containerd uses start and delete\n"},
		{[]string{"-namespace", "n", "-id", "i"}, 1, "io.containerd.xcontainer.v2: serve: open log: log: no such file or directory\n"},
		{[]string{"-v"}, 0, ""},
		{[]string{"-info"}, 0, ""},
	} {
		cmd := s.command("")
		cmd.Args = append([]string{"shim"}, tt.args...)
		var stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = io.Discard, &stderr
		cmd.Run()
		if got := cmd.ProcessState.ExitCode(); got != tt.status || stderr.String() != tt.want {
			t.Errorf("%q: status %d, %q", tt.args, got, stderr.String())
		}
	}
	if bootstrap.RuntimeName != "io.containerd.xcontainer.v2" {
		t.Error("the runtime's name has changed")
	}
}
