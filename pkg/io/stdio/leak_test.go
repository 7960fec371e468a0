// SPDX-License-Identifier: Apache-2.0

package stdio

import (
	"context"
	"io"
	"os"
	"runtime"
	"testing"
	"time"
)

// TestNothingIsLeft opens and closes each kind many times, as the execs of a
// health check do, and counts.
func TestNothingIsLeft(t *testing.T) {
	_, c := fifos(t, "in", "out", "err")
	dir := t.TempDir()
	url := loggerURL("binary", "copy", dir)
	for _, tt := range []struct {
		name   string
		c      Config
		cycles int
	}{
		{"null", Config{}, 200},
		{"fifo", c, 200},
		{"terminal", Config{Stdin: c.Stdin, Stdout: c.Stdout, Terminal: true}, 200},
		{"file", Config{Stdin: c.Stdin, Stdout: "file://" + dir + "/file", Stderr: "file://" + dir + "/file"}, 200},
		{"binary", Config{Stdin: c.Stdin, Stdout: url, Stderr: url}, 200},
		{"binary terminal", Config{Stdin: c.Stdin, Stdout: url, Terminal: true}, 30},
		{"binary that leaves", Config{Stdout: loggerURL("binary", "leave", dir)}, 30},
		{"binary-v2 that fails", Config{Stdout: loggerURL("binary-v2", "fail", dir)}, 30},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cycle(t, tt.c) // what is made once
			files, routines := openFiles(t), runtime.NumGoroutine()
			for range tt.cycles {
				cycle(t, tt.c)
			}
			// A goroutine that has told its end may not have returned yet.
			for deadline := time.Now().Add(limit); runtime.NumGoroutine() > routines && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			if n := runtime.NumGoroutine(); n > routines {
				buf := make([]byte, 1<<20)
				t.Errorf("%d goroutines before, %d after\n%s", routines, n, buf[:runtime.Stack(buf, true)])
			}
			if n := openFiles(t); n > files {
				t.Errorf("%d descriptors before, %d after", files, n)
			}
			if n := children(t); n != 0 {
				t.Errorf("%d processes", n)
			}
		})
	}
}

// cycle is one process's life.
func cycle(t *testing.T, c Config) {
	t.Helper()
	g := &guest{t: t}
	defer func() {
		for _, f := range g.far {
			f.Close()
		}
	}()
	s, err := Open(t.Context(), c, g.dial)
	if err != nil {
		if c.Stdout == "" || c.Stdin != "" {
			t.Fatal(err)
		}
		return // a logger that is to fail
	}
	if c.Stdin != "" {
		w, err := os.OpenFile(c.Stdin, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, "in")
		w.Close()
	}
	_, out, _ := s.Streams()
	if out != 0 {
		io.WriteString(g.far[out-1], "out")
	}
	s.CloseStdin()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := s.Drain(ctx, min(3*out, 3), 0); err != nil {
		t.Error(err)
	}
	s.Close()
	s.Wait(ctx)
	if ctx.Err() != nil {
		t.Fatal("the logger does not end")
	}
}
