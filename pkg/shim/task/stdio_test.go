// SPDX-License-Identifier: Apache-2.0

package task_test

import (
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"
)

// logTo sends stdout and stderr of a container to be made to a URL.
func (b *box) logTo(url string) *taskapi.CreateTaskRequest {
	r := b.createRequest()
	r.Stdin, r.Stdout, r.Stderr = "", url, url
	return r
}

// logger is the URL of a logger of shell commands, which know the daemon's folder
// as $1.
func (d *daemon) logger(scheme, commands string) string {
	return scheme + ":///bin/sh?-c=" + url.QueryEscape(commands) + "&logger=" + url.QueryEscape(d.dir)
}

// wantFile checks a file in the daemon's folder.
func (d *daemon) wantFile(name, want string) {
	d.t.Helper()
	got, err := os.ReadFile(filepath.Join(d.dir, name))
	if err != nil || string(got) != want {
		d.t.Errorf("%s: %q, %v; want %q", name, got, err, want)
	}
}

// grows waits until something is in a file in the daemon's folder.
func (d *daemon) grows(name string) {
	d.t.Helper()
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if fi, err := os.Stat(filepath.Join(d.dir, name)); err == nil && fi.Size() > 0 {
			return
		}
	}
	d.t.Errorf("nothing comes to %s", name)
}

const keepBoth = `echo "$CONTAINER_NAMESPACE/$CONTAINER_ID $0" >"$1/$CONTAINER_ID.env"
cat <&4 >"$1/$CONTAINER_ID.err" 5>&- &
exec 5>&-
cat <&3 >"$1/$CONTAINER_ID.out"
wait
echo end >"$1/$CONTAINER_ID.end"
`

func TestFileStdio(t *testing.T) {
	d := newDaemon(t)
	b := d.bundled("c", false, spec("sh", "-c", "echo out; echo err >&2; exit 3"))
	if _, err := d.task.Create(d.ctx(), b.logTo("file://"+d.dir+"/logs/c")); err != nil {
		t.Fatal(err)
	}
	b.start()
	if got := b.wait(""); got != 3 {
		t.Errorf("exit status %d", got)
	}
	got, err := os.ReadFile(d.dir + "/logs/c")
	if s := string(got); err != nil || s != "out\nerr\n" && s != "err\nout\n" {
		t.Errorf("%q, %v", s, err)
	}
	if s := b.state(""); s.Stdout != "file://"+d.dir+"/logs/c" {
		t.Errorf("state: %v", s)
	}
	b.delete("")
}

func TestLogger(t *testing.T) {
	d := newDaemon(t)
	b := d.bundled("c", false, spec("sh", "-c", "echo out; echo err >&2; sleep 1000"))
	if _, err := d.task.Create(d.ctx(), b.logTo(d.logger("binary", keepBoth))); err != nil {
		t.Fatal(err)
	}
	b.start()
	for id, terminal := range map[string]bool{"e": false, "tty": true} {
		if err := execLogged(b, id, terminal, d.logger("binary-v2", "echo ready >&5; "+keepBoth)); err != nil {
			t.Fatal(err)
		}
		if got := b.wait(id); got != 0 {
			t.Errorf("exit status %d", got)
		}
		out, errs := "of exec\n", "err of exec\n"
		if terminal {
			out, errs = "of exec\r\nerr of exec\r\n", ""
			d.grows(id + ".out") // this guest does not count what a terminal held
		}
		b.delete(id)
		d.wantFile(id+".env", "ns/"+id+" logger\n")
		d.wantFile(id+".end", "end\n")
		d.wantFile(id+".out", out)
		d.wantFile(id+".err", errs)
	}
	b.end()
	d.wantFile("c.env", "ns/c logger\n")
	d.wantFile("c.out", "out\n")
	d.wantFile("c.err", "err\n")
	d.wantFile("c.end", "end\n")
}

func execLogged(b *box, id string, terminal bool, url string) error {
	if err := b.execTo(id, url, terminal, "sh", "-c", "echo of exec; echo err of exec >&2"); err != nil {
		return err
	}
	return b.startExec(id)
}

// execTo adds an exec whose output goes to a URL.
func (b *box) execTo(id, url string, terminal bool, args ...string) error {
	data, err := json.Marshal(&specs.Process{Args: args, Cwd: "/"})
	if err != nil {
		return err
	}
	_, err = b.task.Exec(b.ctx(), &taskapi.ExecProcessRequest{
		ID: b.id, ExecID: id, Stdout: url, Stderr: url, Terminal: terminal, Spec: &anypb.Any{Value: data},
	})
	return err
}

// TestLoggerFails: its words reach the client, and nothing is left.
func TestLoggerFails(t *testing.T) {
	d := newDaemon(t)
	url := d.logger("binary-v2", "echo no space for logs >&2; exit 3")
	want := "start logger /bin/sh: it ended (exit status 3) before it was ready: no space for logs"
	b := d.bundled("broken-init", false, spec("sleep", "1000"))
	if _, err := d.task.Create(d.ctx(), b.logTo(url)); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("create: %v", err)
	}
	b = d.sleeper()
	if err := execLogged(b, "e", false, url); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("exec: %v", err)
	}
	b.delete("e")
	b.end()
}

// TestLoggerDies: the container goes on.
func TestLoggerDies(t *testing.T) {
	d := newDaemon(t)
	b := d.bundled("c", false, spec("sh", "-c", "head -c 4000000 /dev/zero; echo done >"+d.dir+"/done; exit 4"))
	if _, err := d.task.Create(d.ctx(), b.logTo(d.logger("binary", "exit 0"))); err != nil {
		t.Fatal(err)
	}
	b.start()
	if got := b.wait(""); got != 4 {
		t.Errorf("exit status %d", got)
	}
	b.delete("")
	d.wantFile("done", "done\n")
}

// TestStuckLogger: one that takes nothing holds up no other exec.
func TestStuckLogger(t *testing.T) {
	d := newDaemon(t)
	b := d.sleeper()
	stuck := d.logger("binary", `exec 5>&-; until [ -e "$1/go" ]; do sleep 0.1; done`)
	if err := b.execTo("stuck", stuck, false, "cat", "/dev/zero"); err != nil {
		t.Fatal(err)
	}
	if err := b.startExec("stuck"); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"e1", "e2"} {
		if err := execLogged(b, id, false, d.logger("binary", keepBoth)); err != nil {
			t.Fatal(err)
		}
		b.wait(id)
		b.delete(id)
		d.wantFile(id+".out", "of exec\n")
	}
	if err := os.WriteFile(d.dir+"/go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.kill("stuck", unix.SIGKILL, false); err != nil {
		t.Error(err)
	}
	b.wait("stuck")
	b.delete("stuck")
	b.end()
}
