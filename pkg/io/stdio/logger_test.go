// SPDX-License-Identifier: Apache-2.0

package stdio

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain is also the logger of the tests: argument "logger", then its mode and
// "dir" with the folder where it writes.
func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == "logger" {
		os.Exit(runLogger(os.Args[2], os.Args[4]))
	}
	os.Exit(m.Run())
}

func loggerURL(scheme, mode, dir string) string {
	return scheme + ":///proc/self/exe?logger=" + mode + "&dir=" + url.QueryEscape(dir)
}

// runLogger is the logger. It leaves in dir what it was told, in the files env,
// out and err; the file end appears when it ends by itself.
func runLogger(mode, dir string) int {
	out, errs, ready := os.NewFile(3, "out"), os.NewFile(4, "err"), os.NewFile(5, "ready")
	for fd := 3; fd < 6; fd++ {
		unix.CloseOnExec(fd)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 1
	}
	info := fmt.Sprintf("env %q\n%s", os.Environ(), status)
	if err := os.WriteFile(dir+"/env", []byte(info), 0o600); err != nil {
		return 1
	}
	switch mode {
	case "silent": // never ready
		fmt.Fprintln(os.Stderr, "first line\nwaiting for the moon\x1b[0m")
		time.Sleep(time.Hour)
	case "fail":
		fmt.Fprintln(os.Stderr, strings.Repeat("much ado\n", 1000)+"no disk")
		return 3
	case "leave": // ready, and gone
		ready.Write([]byte{0})
		fmt.Fprintln(os.Stderr, "out of words")
		return 4
	case "stubborn":
		signal.Ignore(unix.SIGTERM)
		ready.Close()
		time.Sleep(time.Hour)
	case "orphan": // a child of another session holds stderr
		cmd := exec.Command("/bin/sleep", "20")
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			return 1
		}
		os.WriteFile(dir+"/orphan", []byte(strconv.Itoa(cmd.Process.Pid)), 0o600)
	}
	if mode == "copy" {
		ready.Write([]byte{0})
	}
	ready.Close()
	var wg sync.WaitGroup
	for name, from := range map[string]io.Reader{"out": out, "err": errs} {
		wg.Go(func() {
			f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
			if err != nil {
				return
			}
			io.Copy(f, from)
		})
	}
	wg.Wait()
	os.WriteFile(dir+"/end", nil, 0o600)
	return 0
}

// reports collects what a Config is told.
type reports struct {
	mu   sync.Mutex
	list []string
}

func (r *reports) add(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, err.Error())
}

func (r *reports) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.list, "\n")
}

// logged is a process with a logger.
func logged(t *testing.T, scheme, mode string, terminal bool) (dir string, g *guest, s *IO, r *reports) {
	t.Helper()
	dir, r = t.TempDir(), &reports{}
	g = &guest{t: t}
	u := loggerURL(scheme, mode, dir)
	s = open(t, g, Config{Stdout: u, Stderr: u, Terminal: terminal, ID: "c", Namespace: "ns", Report: r.add})
	return dir, g, s, r
}

func content(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestLoggerIsByteExact(t *testing.T) {
	for _, scheme := range []string{"binary", "binary-v2"} {
		t.Run(scheme, func(t *testing.T) {
			dir, g, s, r := logged(t, scheme, "copy", false)
			if in, out, err := s.Streams(); in != 0 || out != 1 || err != 2 {
				t.Fatalf("streams %d %d %d", in, out, err)
			}
			want := random(8 << 20)
			go func() {
				io.WriteString(g.far[1], "problem")
				g.far[1].Close()
				g.far[0].Write(want)
				g.far[0].Close()
			}()
			if err := s.Drain(t.Context(), uint64(len(want)), 7); err != nil {
				t.Error(err)
			}
			s.Close()
			s.Wait(t.Context())
			if got := content(t, dir+"/out"); !bytes.Equal(got, want) {
				t.Errorf("stdout: %d bytes", len(got))
			}
			if got := content(t, dir+"/err"); string(got) != "problem" {
				t.Errorf("stderr: %q", got)
			}
			content(t, dir+"/end") // it was not killed
			if r.String() != "" {
				t.Errorf("reported: %s", r)
			}
			env := string(content(t, dir+"/env"))
			if !strings.HasPrefix(env, "env [\"CONTAINER_ID=c\" \"CONTAINER_NAMESPACE=ns\"]\n") {
				t.Errorf("the logger sees %s", env)
			}
		})
	}
}

// TestLoggerEndsWithStreams: without Close, since an exec may be deleted much
// later.
func TestLoggerEndsWithStreams(t *testing.T) {
	dir, g, s, _ := logged(t, "binary", "copy", false)
	io.WriteString(g.far[0], "words")
	for _, c := range g.far {
		c.Close()
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	s.Wait(ctx)
	content(t, dir+"/end")
	if got := content(t, dir+"/out"); string(got) != "words" {
		t.Errorf("%q", got)
	}
}

func TestLoggerOfTerminal(t *testing.T) {
	dir, g, s, _ := logged(t, "binary", "copy", true)
	if in, out, err := s.Streams(); in != 0 || out != 1 || err != 0 {
		t.Fatalf("streams %d %d %d", in, out, err)
	}
	io.WriteString(g.far[0], "screen")
	if err := s.Drain(t.Context(), 6, 0); err != nil {
		t.Error(err)
	}
	s.Close()
	s.Wait(t.Context())
	if out, errs := content(t, dir+"/out"), content(t, dir+"/err"); string(out) != "screen" || len(errs) != 0 {
		t.Errorf("%q, %q", out, errs)
	}
}

func TestLoggerThatCannotStart(t *testing.T) {
	for _, tt := range []struct{ scheme, mode, want string }{
		{"binary-v2", "fail", "start logger /proc/self/exe: it ended (exit status 3) before it was ready: "},
		{"binary-v2", "fail", "much ado; no disk"},
		{"binary-v2", "closed", "start logger /proc/self/exe: it closed descriptor 5 without the byte that says that it is ready"},
	} {
		dir := t.TempDir()
		before := openFiles(t)
		_, err := Open(t.Context(), Config{Stdout: loggerURL(tt.scheme, tt.mode, dir)}, (&guest{t: t}).dial)
		if err == nil || !strings.Contains(err.Error(), tt.want) || len(err.Error()) > maxWords+200 {
			t.Errorf("%s %s: got %v, want %q", tt.scheme, tt.mode, err, tt.want)
		}
		if after := openFiles(t); after != before {
			t.Errorf("%d descriptors before, %d after", before, after)
		}
	}
}

func TestLoggerThatIsNotReady(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		// Once it runs.
		for {
			if _, err := os.Stat(dir + "/env"); err == nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	_, err := Open(ctx, Config{Stdout: loggerURL("binary", "silent", dir)}, (&guest{t: t}).dial)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if children(t) != 0 {
		t.Error("the logger is still there")
	}
}

// TestLoggerThatDies: the process neither stops nor hears of it.
func TestLoggerThatDies(t *testing.T) {
	_, g, s, r := logged(t, "binary-v2", "leave", false)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	s.Wait(ctx)
	n := 4 << 20
	if _, err := g.far[0].Write(random(n)); err != nil {
		t.Fatal(err)
	}
	if err := s.Drain(t.Context(), uint64(n), 0); err != nil {
		t.Error(err)
	}
	s.Close()
	for _, want := range []string{"logger /proc/self/exe ended: exit status 4: out of words", "output is dropped: write"} {
		if strings.Count(r.String(), want) != 1 {
			t.Errorf("reported %q, want %q once", r, want)
		}
	}
}

func TestLoggerThatDoesNotEnd(t *testing.T) {
	_, _, s, r := logged(t, "binary", "stubborn", false)
	s.logger.endWait, s.logger.termWait = 10*time.Millisecond, 10*time.Millisecond
	s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	s.Wait(ctx)
	if children(t) != 0 {
		t.Error("the logger is still there")
	}
	if !strings.Contains(r.String(), "logger /proc/self/exe does not end after its input did; it is killed") {
		t.Errorf("reported %q", r)
	}
}

// TestLoggerLeavesOrphan: what a logger leaves behind is waited for a second, and
// is not the shim's.
func TestLoggerLeavesOrphan(t *testing.T) {
	before := openFiles(t)
	dir, g, s, _ := logged(t, "binary", "orphan", false)
	for _, c := range g.far {
		c.Close()
	}
	s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	s.Wait(ctx)
	if ctx.Err() != nil {
		t.Fatal("the logger's child holds the logger")
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	pid, err := strconv.Atoi(string(content(t, dir+"/orphan")))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Errorf("the child: %v", err)
	}
	if children(t) != 0 {
		t.Error("the orphan is our child")
	}
}

// TestSlowLogger: one that does not read holds up nobody else.
func TestSlowLogger(t *testing.T) {
	dir := t.TempDir()
	slow := &guest{t: t}
	s := open(t, slow, Config{Stdout: loggerURL("binary", "stubborn", dir)})
	written := make(chan struct{})
	go func() {
		defer close(written)
		slow.far[0].Write(random(8 << 20)) // until Close
	}()
	TestLoggerIsByteExact(t)
	TestOutputIsByteExact(t)
	select {
	case <-written:
		t.Error("the slow logger took 8 MB")
	default:
	}
	s.logger.signal(unix.SIGKILL)
	s.Close()
	<-written
}

// children counts this process's children, zombies too.
func children(t *testing.T) int {
	t.Helper()
	n := 0
	all, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // the thread has ended
		}
		n += len(strings.Fields(string(b)))
	}
	return n
}
