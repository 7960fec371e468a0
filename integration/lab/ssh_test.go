// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
)

// testServer is an SSH server that runs command lines with sh on this machine.
func testServer(t *testing.T) *Lab {
	t.Helper()
	dir := t.TempDir()
	hostKey, err := makeKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "share", "hostkey"))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(ed25519.PrivateKey(raw[19:]))
	if err != nil {
		t.Fatal(err)
	}
	authorized, err := os.ReadFile(filepath.Join(dir, "share", "authorized_keys"))
	if err != nil {
		t.Fatal(err)
	}
	conf := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		if strings.TrimSpace(string(authorized)) != strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k))) {
			return nil, errors.New("wrong key")
		}
		return nil, nil
	}}
	conf.AddHostKey(signer)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go serve(nc, conf)
		}
	}()
	s := &State{Port: l.Addr().(*net.TCPAddr).Port, HostKey: hostKey}
	c, err := dial(context.Background(), dir, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &Lab{dir: dir, state: s, client: c}
}

func serve(nc net.Conn, conf *ssh.ServerConfig) {
	_, chans, reqs, err := ssh.NewServerConn(nc, conf)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(reqs)
	for nch := range chans {
		ch, creqs, err := nch.Accept()
		if err != nil {
			return
		}
		go session(ch, creqs)
	}
}

// session runs the command of one channel.
func session(ch ssh.Channel, reqs <-chan *ssh.Request) {
	for r := range reqs {
		if r.Type != "exec" {
			r.Reply(r.Type == "pty-req", nil)
			continue
		}
		var line struct{ Line string }
		ssh.Unmarshal(r.Payload, &line)
		r.Reply(true, nil)
		cmd := exec.Command("sh", "-c", line.Line)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, ch, ch.Stderr()
		in, err := cmd.StdinPipe()
		if err != nil {
			panic(err)
		}
		go func() {
			io.Copy(in, ch)
			in.Close()
		}()
		cmd.Run()
		code := cmd.ProcessState.ExitCode()
		if code < 0 {
			ch.SendRequest("exit-signal", false, ssh.Marshal(struct {
				Name string
				Core bool
				A, B string
			}{Name: "KILL"}))
		} else {
			ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{uint32(code)}))
		}
		ch.Close()
		return
	}
}

func TestRun(t *testing.T) {
	l := testServer(t)
	for _, tc := range []struct {
		line, in, out, errOut string
		code                  int
	}{
		{"true", "", "", "", 0},
		{"echo out; echo err >&2; exit 42", "", "out\n", "err\n", 42},
		{"cat", "through", "through", "", 0},
		{"kill -9 $$", "", "", "", 137},
	} {
		r, err := l.Run(context.Background(), tc.line, strings.NewReader(tc.in))
		if err != nil || string(r.Stdout) != tc.out || string(r.Stderr) != tc.errOut || r.Code != tc.code {
			t.Errorf("%s: %q, %q, %d, %v", tc.line, r.Stdout, r.Stderr, r.Code, err)
		}
	}
}

func TestRunDoesNotWaitForInput(t *testing.T) {
	l := testServer(t)
	pr, pw := io.Pipe() // a reader that blocks, as a terminal does
	defer pw.Close()
	if r, err := l.Run(context.Background(), "exit 3", pr); err != nil || r.Code != 3 {
		t.Errorf("%d, %v", r.Code, err)
	}
}

func TestRunManyAtOnce(t *testing.T) {
	l := testServer(t)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if r, err := l.Run(context.Background(), "head -c 100000 /dev/zero", nil); err != nil || len(r.Stdout) != 100000 {
				t.Errorf("%d bytes, %v", len(r.Stdout), err)
			}
		})
	}
	wg.Wait()
}

func TestRunCancelled(t *testing.T) {
	l := testServer(t)
	ctx, cancel := context.WithCancel(context.Background())
	c := l.Command("cat")
	pr, pw := io.Pipe()
	defer pw.Close()
	c.Stdin = pr
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := c.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestDialChecksHostKey(t *testing.T) {
	l := testServer(t)
	other := *l.state
	var err error
	if other.HostKey, err = makeKeys(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if _, err := dial(context.Background(), l.dir, &other); err == nil {
		t.Error("a server with another key was accepted")
	}
}

func TestCopyBothWays(t *testing.T) {
	l := testServer(t)
	ctx := context.Background()
	src := filepath.Join(t.TempDir(), "it's a file")
	if err := os.WriteFile(src, []byte("data"), 0o640); err != nil {
		t.Fatal(err)
	}
	far, near := t.TempDir(), t.TempDir()
	if err := l.CopyTo(ctx, src, far); err != nil { // into a directory
		t.Fatal(err)
	}
	if err := l.CopyTo(ctx, src, filepath.Join(far, "named")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"it's a file", "named"} {
		if err := l.CopyFrom(ctx, filepath.Join(far, name), near); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(near, name))
		if err != nil || string(b) != "data" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	ents, err := os.ReadDir(far)
	if err != nil || len(ents) != 2 {
		t.Errorf("left in the far directory: %v, %v", ents, err)
	}
	if err := l.CopyFrom(ctx, filepath.Join(far, "missing"), near); err == nil {
		t.Error("a missing file gave no error")
	}
	if err := l.CopyTo(ctx, src, filepath.Join(far, "no", "such")); err == nil {
		t.Error("a missing directory gave no error")
	}
}
