// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/libos/agent/stage"
	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// The test binary plays three parts: the tests, the agent as PID 1 of a pid
// namespace of its own, and the second stages that this agent starts.
const (
	guestName = "xcontainer-test-guest"
	cgroupTop = "XCONTAINER_TEST_CGROUP" // overrides where the tests make cgroups
)

func TestMain(m *testing.M) {
	switch {
	case stage.Is():
		stage.Main()
	case os.Args[0] == guestName:
		if err := guestMain(os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// guestMain is the agent's process. It ends with its stdin.
func guestMain(dir, cgroup string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	var listeners [3]net.Listener
	for i, name := range []string{"calls", "streams", "debug"} {
		var err error
		if listeners[i], err = net.Listen("unix", filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	a, err := New(Config{
		Exports:     filepath.Join(dir, "exports"),
		MountPoint:  filepath.Join(dir, "root"),
		CgroupRoot:  cgroup,
		Controllers: haveControllers(cgroup),
		Log:         func(err error) { fmt.Fprintln(os.Stderr, err) },
		Calls:       listeners[0],
		Streams:     listeners[1],
	})
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := listeners[2].Accept()
			if err != nil {
				return
			}
			fds, _ := os.ReadDir("/proc/self/fd")
			fmt.Fprintf(c, "%d %d\n", runtime.NumGoroutine(), len(fds))
			c.Close()
		}
	}()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	fmt.Println("ready")
	return a.Serve(ctx)
}

// guest is a running agent and the host's side of it.
type guest struct {
	t       *testing.T
	dir     string
	cgroup  string
	api     agentapi.AgentService
	stderr  *bytes.Buffer
	streams atomic.Uint64
	names   atomic.Uint64
}

// newGuest starts an agent that ends with the test.
func newGuest(t *testing.T) *guest {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("the agent's tests make namespaces and need root")
	}
	dir := t.TempDir()
	for _, d := range []string{"exports", "root"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	os.Chmod(filepath.Dir(dir), 0o755)
	os.Chmod(dir, 0o755)
	cgroup := newTestCgroup(t)
	g := &guest{t: t, dir: dir, cgroup: cgroup, stderr: new(bytes.Buffer)}
	cmd := &exec.Cmd{
		Path:   "/proc/self/exe",
		Args:   []string{guestName, dir, cgroup},
		Stderr: g.stderr,
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS,
		},
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("agent: %v: %s", err, g.stderr)
		}
		if err := removeTree(cgroup); err != nil {
			t.Errorf("remove test cgroup: %v", err)
		}
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatalf("agent is not ready: %q, %v: %s", line, err, g.stderr)
	}
	conn, err := net.Dial("unix", filepath.Join(dir, "calls"))
	if err != nil {
		t.Fatal(err)
	}
	client := ttrpc.NewClient(conn)
	t.Cleanup(func() { client.Close() })
	g.api = agentapi.NewAgentClient(client)
	return g
}

// newTestCgroup makes a cgroup v2 for one agent.
func newTestCgroup(t *testing.T) string {
	t.Helper()
	top := os.Getenv(cgroupTop)
	if top == "" {
		for _, dir := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
			if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
				top = dir
				break
			}
		}
	}
	dir, err := os.MkdirTemp(top, "xcontainer-test-")
	if err != nil {
		t.Fatalf("no cgroup v2 for the test: %v", err)
	}
	return dir
}

// haveControllers are the agent's controllers if the cgroup has them all, as
// below one that XCONTAINER_TEST_CGROUP names and that hands them on, and none
// else: on many machines cgroup v1 has some.
func haveControllers(cgroup string) []string {
	b, _ := os.ReadFile(filepath.Join(cgroup, "cgroup.controllers"))
	for _, name := range controllers {
		if !slices.Contains(strings.Fields(string(b)), name) {
			return nil
		}
	}
	return controllers
}

// needControllers skips a test of limits on a machine without them.
func (g *guest) needControllers() {
	g.t.Helper()
	if haveControllers(g.cgroup) == nil {
		g.t.Skipf("no cgroup v2 with the controllers %v for tests; name one by %s", controllers, cgroupTop)
	}
}

// load is the agent's number of goroutines and open descriptors.
func (g *guest) load() (goroutines, fds int) {
	g.t.Helper()
	c, err := net.Dial("unix", filepath.Join(g.dir, "debug"))
	if err != nil {
		g.t.Fatal(err)
	}
	defer c.Close()
	if _, err := fmt.Fscan(c, &goroutines, &fds); err != nil {
		g.t.Fatal(err)
	}
	return goroutines, fds
}

// applets are the commands of the test image.
const applets = "sh cat true false id sleep stty ls mount echo kill head dd tr readlink stat grep hostname env pwd touch mkdir rm wc seq dnsdomainname chmod umount sed tty cut ionice tail"

// image makes an export with a busybox and returns the export's name.
func (g *guest) image() string {
	g.t.Helper()
	name := "c" + strconv.FormatUint(g.names.Add(1), 10)
	dir := filepath.Join(g.dir, "exports", name)
	for _, d := range []string{"bin", "etc", "proc", "dev", "tmp", "home/app"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			g.t.Fatal(err)
		}
	}
	b, err := os.ReadFile("/bin/busybox")
	if err != nil {
		g.t.Fatalf("the tests need busybox-static: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), b, 0o755); err != nil {
		g.t.Fatal(err)
	}
	for _, a := range strings.Fields(applets) {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", a)); err != nil {
			g.t.Fatal(err)
		}
	}
	files := map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
		"etc/group":  "root:x:0:\napp:x:1000:\ndata:x:2000:app\nlogs:x:2001:app,nobody\n",
	}
	for f, text := range files {
		if err := os.WriteFile(filepath.Join(dir, f), []byte(text), 0o644); err != nil {
			g.t.Fatal(err)
		}
	}
	return name
}

// spec is a container as containerd's default specification makes it, with a
// new image.
func (g *guest) spec(args ...string) *agentapi.Container {
	return &agentapi.Container{
		Rootfs:   g.image(),
		Hostname: "guest",
		Mounts: []*agentapi.Mount{
			{Type: "proc", Source: "proc", Destination: "/proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Type: "tmpfs", Source: "tmpfs", Destination: "/dev", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Type: "devpts", Source: "devpts", Destination: "/dev/pts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Type: "tmpfs", Source: "shm", Destination: "/dev/shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
			{Type: "mqueue", Source: "mqueue", Destination: "/dev/mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Type: "sysfs", Source: "sysfs", Destination: "/sys", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Type: "tmpfs", Source: "tmpfs", Destination: "/run", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Type: "cgroup", Source: "cgroup", Destination: "/sys/fs/cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
		},
		MaskedPaths:   []string{"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware", "/proc/scsi"},
		ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		Process:       g.process(args...),
	}
}

func (g *guest) process(args ...string) *agentapi.Process {
	caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
		"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE"}
	return &agentapi.Process{
		Args:            args,
		Env:             []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Cwd:             "/",
		User:            &agentapi.User{},
		Capabilities:    &agentapi.Capabilities{Bounding: caps, Effective: caps, Permitted: caps},
		NoNewPrivileges: true,
		Rlimits:         []*agentapi.Rlimit{{Type: "RLIMIT_NOFILE", Soft: 1024, Hard: 1024}},
	}
}

// stream connects one more stream and returns its number.
func (g *guest) stream() (uint64, *net.UnixConn) {
	g.t.Helper()
	number := g.streams.Add(1)
	c, err := net.Dial("unix", filepath.Join(g.dir, "streams"))
	if err != nil {
		g.t.Fatal(err)
	}
	var b [agentapi.StreamSize]byte
	binary.LittleEndian.PutUint32(b[0:], agentapi.StreamMagic)
	binary.LittleEndian.PutUint32(b[4:], agentapi.Version)
	binary.LittleEndian.PutUint64(b[8:], number)
	if _, err := c.Write(b[:]); err != nil {
		g.t.Fatal(err)
	}
	return number, c.(*net.UnixConn)
}

// stdioClient is the host's end of a process's streams.
type stdioClient struct {
	in       *net.UnixConn
	out, err *output
}

// output collects what a stream carries.
type output struct {
	conn *net.UnixConn
	mu   sync.Mutex
	buf  bytes.Buffer
	done chan struct{}
}

func collect(c *net.UnixConn) *output {
	o := &output{conn: c, done: make(chan struct{})}
	go func() {
		defer close(o.done)
		io.Copy(o, c)
	}()
	return o
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

// now is what has come so far.
func (o *output) now() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// text waits for the end of the stream.
func (o *output) text() string {
	<-o.done
	return o.buf.String()
}

// connect gives a process its streams and feeds it input, which may be nil for
// none at all.
func (g *guest) connect(p *agentapi.Process, input io.Reader) *stdioClient {
	g.t.Helper()
	s := &stdioClient{}
	p.Streams = &agentapi.Streams{}
	var c *net.UnixConn
	if input != nil {
		p.Streams.Stdin, s.in = g.stream()
		go func() {
			io.Copy(s.in, input)
			s.in.CloseWrite()
		}()
	}
	p.Streams.Stdout, c = g.stream()
	s.out = collect(c)
	if !p.Terminal {
		p.Streams.Stderr, c = g.stream()
		s.err = collect(c)
	}
	return s
}

// result is what a process left.
type result struct {
	status     uint32
	out, err   string
	outN, errN uint64 // as the agent counted
}

// testTimeout ends a test that hangs; nothing is measured by it.
const testTimeout = 60 * time.Second

func (g *guest) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	g.t.Cleanup(cancel)
	return ctx
}

// start creates and starts a container.
func (g *guest) start(spec *agentapi.Container, input io.Reader) (string, *stdioClient) {
	g.t.Helper()
	id := "id-" + spec.Rootfs
	s := g.connect(spec.Process, input)
	ctx := g.context()
	if _, err := g.api.CreateContainer(ctx, &agentapi.CreateContainerRequest{Id: id, Container: spec}); err != nil {
		g.t.Fatalf("create: %v", err)
	}
	if _, err := g.api.StartContainer(ctx, &agentapi.StartContainerRequest{Id: id}); err != nil {
		g.t.Fatalf("start: %v", err)
	}
	return id, s
}

func (g *guest) wait(id, execID string) *agentapi.WaitResponse {
	g.t.Helper()
	w, err := g.api.Wait(g.context(), &agentapi.WaitRequest{Id: id, ExecId: execID})
	if err != nil {
		g.t.Fatalf("wait: %v", err)
	}
	return w
}

// run runs a container to its end and removes it.
func (g *guest) run(spec *agentapi.Container, input io.Reader) result {
	g.t.Helper()
	id, s := g.start(spec, input)
	w := g.wait(id, "")
	r := result{status: w.ExitStatus, out: s.out.text(), outN: w.StdoutBytes, errN: w.StderrBytes}
	if s.err != nil {
		r.err = s.err.text()
	}
	if _, err := g.api.Remove(g.context(), &agentapi.RemoveRequest{Id: id}); err != nil {
		g.t.Errorf("remove: %v", err)
	}
	return r
}

// sh runs a script in a container like the default one.
func (g *guest) sh(script string) result {
	g.t.Helper()
	return g.run(g.spec("sh", "-c", script), nil)
}

// tryCreate returns the error of a creation that should fail.
func (g *guest) tryCreate(spec *agentapi.Container) error {
	g.t.Helper()
	_, err := g.api.CreateContainer(g.context(), &agentapi.CreateContainerRequest{Id: "id-" + spec.Rootfs, Container: spec})
	return err
}
