// SPDX-License-Identifier: Apache-2.0

package stdio

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFile(t *testing.T) {
	dir := t.TempDir()
	defer unix.Umask(unix.Umask(0o022))
	c := Config{Stdout: "file://" + dir + "/new/folders/out%20put", Stderr: "file://" + dir + "/err"}
	path := dir + "/new/folders/out put"
	if err := os.WriteFile(dir+"/err", []byte("before "), 0o640); err != nil {
		t.Fatal(err)
	}
	want := random(8 << 20)
	for range 2 { // appended the second time
		g := &guest{t: t}
		s := open(t, g, c)
		go func() {
			g.far[0].Write(want)
			g.far[0].Close()
			io.WriteString(g.far[1], "problem")
			g.far[1].Close()
		}()
		if err := s.Drain(t.Context(), uint64(len(want)), 7); err != nil {
			t.Error(err)
		}
		// Delivered is in the file, before Close.
		got := content(t, path)
		if !bytes.HasSuffix(got, want) {
			t.Errorf("%d bytes", len(got))
		}
		s.Close()
	}
	if got := content(t, path); !bytes.Equal(got, append(want, want...)) {
		t.Errorf("%d bytes after the second process", len(got))
	}
	if got := content(t, dir+"/err"); string(got) != "before problemproblem" {
		t.Errorf("stderr %q", got)
	}
	for name, mode := range map[string]os.FileMode{
		path: 0o644, dir + "/new/folders": 0o755 | os.ModeDir, dir + "/new": 0o755 | os.ModeDir, dir + "/err": 0o640,
	} {
		if fi, err := os.Stat(name); err != nil || fi.Mode() != mode {
			t.Errorf("%s: %v, %v; want %v", name, fi.Mode(), err, mode)
		}
	}
}

// TestOneFileForBoth: no byte of one stream overwrites another's.
func TestOneFileForBoth(t *testing.T) {
	path := t.TempDir() + "/log"
	g := &guest{t: t}
	s := open(t, g, Config{Stdout: "file://" + path, Stderr: "file://" + path, Terminal: false})
	const lines = 2000
	for i, word := range []string{"out\n", "err\n"} {
		go func() {
			io.WriteString(g.far[i], strings.Repeat(word, lines))
			g.far[i].Close()
		}()
	}
	if err := s.Drain(t.Context(), 4*lines, 4*lines); err != nil {
		t.Error(err)
	}
	got := string(content(t, path))
	if strings.Count(got, "out\n") != lines || strings.Count(got, "err\n") != lines {
		t.Errorf("%d and %d lines", strings.Count(got, "out\n"), strings.Count(got, "err\n"))
	}
}

func TestFileOfTerminal(t *testing.T) {
	path := t.TempDir() + "/log"
	g := &guest{t: t}
	s := open(t, g, Config{Stdout: "file://" + path, Stderr: "file://" + path, Terminal: true})
	if in, out, err := s.Streams(); in != 0 || out != 1 || err != 0 {
		t.Fatalf("streams %d %d %d", in, out, err)
	}
	io.WriteString(g.far[0], "screen")
	if err := s.Drain(t.Context(), 6, 0); err != nil {
		t.Error(err)
	}
	if got := content(t, path); string(got) != "screen" {
		t.Errorf("%q", got)
	}
}

// TestFullDisk: the process goes on, and the log tells it once.
func TestFullDisk(t *testing.T) {
	g, r := &guest{t: t}, &reports{}
	s := open(t, g, Config{Stdout: "file:///dev/full", Report: r.add})
	n := 1 << 20
	if _, err := g.far[0].Write(random(n)); err != nil {
		t.Fatal(err)
	}
	if err := s.Drain(t.Context(), uint64(n), 0); err != nil {
		t.Error(err)
	}
	if want := "output is dropped: write /dev/full: no space left on device"; r.String() != want {
		t.Errorf("reported %q, want %q", r, want)
	}
}
