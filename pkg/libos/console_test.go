// SPDX-License-Identifier: Apache-2.0

package libos

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func runConsole(t *testing.T, in string) (*console, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "console")
	c, err := startConsole(io.NopCloser(strings.NewReader(in)), path)
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
