// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xcontainer/xcontainer/pkg/shim/orphans"
	"github.com/xcontainer/xcontainer/pkg/shim/record"
)

func (w *world) console(ns, id, text string) string {
	w.Helper()
	w.bundle(ns, id, w.record(id, 1, testUUID))
	path := filepath.Join(w.root, ns, id, record.ConsoleName)
	w.file(path, text)
	return path
}

func TestLogs(t *testing.T) {
	w := newWorld(t)
	w.console("default", "web", "one\r\n\x1b[2Jtwo\xff\nrest")
	w.console("k8s.io", "web", "other\n")
	for _, c := range []struct {
		args []string
		code int
		out  string
		says string
	}{
		{[]string{"logs", "web"}, exitOK, "one\n?[2Jtwo?\nrest\n", ""},
		{[]string{"logs", "web", "--namespace", "k8s.io"}, exitOK, "other\n", ""},
		{[]string{"logs", "--json", "web", "--namespace=k8s.io"}, exitOK, "{\"line\":\"other\"}\n", ""},
		{[]string{"logs", "nobody"}, exitError, "", "no X-Container nobody runs in namespace default"},
		{[]string{"logs", "../default/web"}, exitError, "", "no name of a container"},
		{[]string{"logs", "web", "--namespace", ".."}, exitError, "", "no name of a namespace"},
	} {
		code, out, errOut := w.run(c.args...)
		if code != c.code || out != c.out || !strings.Contains(errOut, c.says) {
			t.Errorf("%q: exit %d, %q, %q", c.args, code, out, errOut)
		}
	}
}

// safeBuffer is a buffer that one goroutine writes and another looks at.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestLogsFollow(t *testing.T) {
	w := newWorld(t)
	path := w.console("default", "web", "first boot, longer\n")
	var out safeBuffer
	done := make(chan int, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() { done <- run(ctx, []string{"logs", "web", "-f", "--root", w.root}, w.sys, &out, &out) }()
	sees := func(text string) {
		t.Helper()
		for !strings.Contains(out.String(), text) {
			if ctx.Err() != nil {
				t.Fatalf("no %q in %q", text, out.String())
			}
			time.Sleep(time.Millisecond)
		}
	}
	sees("longer\n")
	w.file(path, "boot 2\n") // made anew
	sees("boot 2\n")
	if err := record.Remove(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	if code := <-done; code != exitOK {
		t.Errorf("exit %d, %q", code, out.String())
	}
}

func TestSweepIsDryFirst(t *testing.T) {
	w := newWorld(t)
	w.bundle("default", "web", w.record("web", uint16(w.dom.ID()), testUUID))
	r := w.record("web", uint16(w.dom.ID()), testUUID)
	r.Shim, r.Backend = record.Process{PID: 1 << 22, Start: 1}, record.Process{} // no such process
	w.bundle("default", "web", r)
	code, out, errOut := w.run("sweep", "--sockets", t.TempDir())
	if code != exitOK || errOut != "" || !strings.Contains(out, "nothing was removed; sweep --yes removes these") ||
		!strings.Contains(out, "the shim of container web in namespace default has died") {
		t.Fatalf("exit %d, %q\n%s", code, errOut, out)
	}
	if _, err := w.dom.Info(); err != nil {
		t.Fatalf("a dry run removed the domain: %v", err)
	}
	code, out, errOut = w.run("sweep", "--force", "--json", "--sockets", t.TempDir())
	var s swept
	if err := json.Unmarshal([]byte(out), &s); err != nil || code != exitOK || errOut != "" {
		t.Fatalf("exit %d, %v, %q", code, err, errOut)
	}
	if !s.Removed || len(s.Orphans) != 2 || s.Orphans[0].Kind != string(orphans.Domain) || s.Orphans[1].Kind != string(orphans.Record) {
		t.Errorf("%+v", s)
	}
	if _, err := os.Stat(filepath.Join(w.root, "default", "web", record.Name)); !os.IsNotExist(err) {
		t.Errorf("the record: %v", err)
	}
	if code, out, _ := w.run("sweep", "--sockets", t.TempDir()); code != exitOK || out != "nothing is left of dead shims\n" {
		t.Errorf("again: exit %d, %q", code, out)
	}
	if code, out, _ := w.run("sweep", "--json", "--sockets", t.TempDir()); code != exitOK || !strings.Contains(out, `"orphans": []`) {
		t.Errorf("again: exit %d, %q", code, out)
	}
}

func TestSweepRefusesToJudgeBlindly(t *testing.T) {
	w := newWorld(t)
	w.sys.maySweep = func() error { return os.ErrPermission }
	if code, out, errOut := w.run("sweep", "--yes"); code != exitError || out != "" || errOut == "" {
		t.Errorf("exit %d, %q, %q", code, out, errOut)
	}
}
