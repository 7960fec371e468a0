// SPDX-License-Identifier: Apache-2.0

package libos

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func runConsole(t *testing.T, in string) (*console, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "console")
	c, err := startConsole(io.NopCloser(strings.NewReader(in)), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	<-c.done
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return c, string(b)
}

func TestConsoleLast(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"empty", "", ""},
		{"last line", "one\ntwo\n\n", "two"},
		{"panic before its trace", "a\r\n[ 1.0] Kernel panic - not syncing: sysrq\nCall Trace:\n", "[ 1.0] Kernel panic - not syncing: sysrq"},
		{"escapes go", "\x1b[31mred\x00\xff\n", "[31mred"},
		{"long", strings.Repeat("x", 300), strings.Repeat("x", 200)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, file := runConsole(t, tc.in)
			if got := c.Last(); got != tc.want {
				t.Errorf("Last = %q, want %q", got, tc.want)
			}
			if tail := c.Tail(); !strings.HasSuffix(tail, "\n") && tail != "" || strings.ContainsAny(tail, "\x1b\r\x00") {
				t.Errorf("Tail = %q", tail)
			}
			if file != tc.in {
				t.Errorf("file holds %q, want %q", file, tc.in)
			}
		})
	}
}

func TestConsoleIsBounded(t *testing.T) {
	c, file := runConsole(t, strings.Repeat("0123456789abcde\n", (consoleMax+consoleTail)/16)+"the end\n")
	if len(file) != consoleMax {
		t.Errorf("file has %d bytes, want %d", len(file), consoleMax)
	}
	if len(c.tail) > consoleTail || c.Last() != "the end" {
		t.Errorf("tail has %d bytes and ends in %q", len(c.tail), c.Last())
	}
}

// TestConsoleLines: each line once, whatever the pieces in which it comes.
func TestConsoleLines(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	in := "one\r\n\n\x1b[2Jtwo\n" + long + "three\nunfinished"
	want := []string{"one", "[2Jtwo", long, "three"}
	for _, r := range []io.Reader{strings.NewReader(in), iotest.OneByteReader(strings.NewReader(in))} {
		var got []string
		c, err := startConsole(io.NopCloser(r), filepath.Join(t.TempDir(), "console"), func(l string) { got = append(got, l) })
		if err != nil {
			t.Fatal(err)
		}
		<-c.done
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
