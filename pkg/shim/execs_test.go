// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"
)

// vars are the counts that the profiler's socket shows.
type vars struct{ Goroutines, Descriptors int }

func (s *shim) vars(pid int) (v vars, children int, rss string) {
	s.t.Helper()
	c := s.profiler()
	resp, err := c.Get("http://shim/debug/vars")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
		s.t.Fatal(err)
	}
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range tasks {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, e.Name()))
		if err == nil { // else the thread has ended
			children += len(strings.Fields(string(b)))
		}
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		s.t.Fatal(err)
	}
	_, rss, _ = strings.Cut(string(b), "VmRSS:")
	rss, _, _ = strings.Cut(rss, "\n")
	return v, children, strings.TrimSpace(rss)
}

// exec runs a process in the container to its end.
func (s *shim) exec(id, stdout string, terminal bool, args ...string) {
	s.t.Helper()
	spec, err := json.Marshal(&specs.Process{Args: args, Cwd: "/"})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx := s.t.Context()
	_, err = s.task.Exec(ctx, &taskapi.ExecProcessRequest{
		ID: "c", ExecID: id, Stdout: stdout, Stderr: stdout, Terminal: terminal, Spec: &anypb.Any{Value: spec},
	})
	if err == nil {
		_, err = s.task.Start(ctx, &taskapi.StartRequest{ID: "c", ExecID: id})
	}
	if err == nil {
		_, err = s.task.Wait(ctx, &taskapi.WaitRequest{ID: "c", ExecID: id})
	}
	if err == nil {
		_, err = s.task.Delete(ctx, &taskapi.DeleteRequest{ID: "c", ExecID: id})
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// TestExecsLeaveNothing: the shim after many execs has what it had before them.
// Its memory is in the test's output, for the eye.
func TestExecsLeaveNothing(t *testing.T) {
	s := startShimAt(t, bootapi.LogLevel_LOG_LEVEL_DEBUG, "sleep", "1000")
	pid := s.run()
	fifo := s.bundle + "/exec"
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	logger := "binary:///bin/sh?-c=" + url.QueryEscape("exec 5>&-; cat <&3 >/dev/null")
	round := func(n int) {
		s.exec(fmt.Sprint("n", n), "", false, "true")
		s.exec(fmt.Sprint("p", n), fifo, n%2 == 0, "echo", "x")
		s.exec(fmt.Sprint("f", n), "file://"+s.bundle+"/file", n%2 == 0, "echo", "x")
		s.exec(fmt.Sprint("b", n), logger, n%2 == 0, "echo", "x")
	}
	for n := range 3 {
		round(n)
	}
	before, children, rss := s.vars(pid)
	t.Logf("before: %+v, %d children, %s", before, children, rss)
	const rounds = 50
	for n := range rounds {
		round(10 + n)
	}
	var after vars
	var left int
	// What has told its end may not have ended yet.
	for deadline := time.Now().Add(limit / 4); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if after, left, rss = s.vars(pid); after.Goroutines <= before.Goroutines && after.Descriptors <= before.Descriptors && left <= children {
			break
		}
	}
	t.Logf("after %d execs: %+v, %d children, %s", 4*rounds, after, left, rss)
	if after.Goroutines > before.Goroutines || after.Descriptors > before.Descriptors || left > children {
		t.Errorf("%+v and %d children before, %+v and %d after %d execs", before, children, after, left, 4*rounds)
	}
	r := s.record()
	unix.Kill(pid, unix.SIGTERM)
	s.nothingLeft(r)
}

// TestLoggerInherits what is meant for it: no descriptor of the shim's, and no
// ignored signal.
func TestLoggerInherits(t *testing.T) {
	s := startShim(t, "sleep", "1000")
	pid := s.run()
	s.exec("e", "binary:///bin/sh?-c="+url.QueryEscape(
		"exec 5>&-; ls /proc/self/fd >"+s.bundle+"/fds; cat /proc/self/status >"+s.bundle+"/status; cat <&3 >/dev/null"), false, "true")
	// 5 is the folder that ls reads.
	if b, err := os.ReadFile(s.bundle + "/fds"); err != nil || string(b) != "0\n1\n2\n3\n4\n5\n" {
		t.Errorf("descriptors %q, %v", b, err)
	}
	b, err := os.ReadFile(s.bundle + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, ignored, _ := strings.Cut(string(b), "SigIgn:\t")
	var mask uint64
	if _, err := fmt.Sscanf(ignored, "%x", &mask); err != nil || mask&(1<<(unix.SIGPIPE-1)) != 0 {
		t.Errorf("ignored signals %.16q, %v", ignored, err)
	}
	r := s.record()
	unix.Kill(pid, unix.SIGTERM)
	s.nothingLeft(r)
}
