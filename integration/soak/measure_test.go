// SPDX-License-Identifier: Apache-2.0

package soak

import (
	"os"
	"strings"
	"testing"
)

func TestUse(t *testing.T) {
	before, err := use(os.Getpid())
	if err != nil || before.rss < 1<<20 || before.fds < 3 || before.maps < 3 || before.threads < 1 || before.devices != 0 {
		t.Fatalf("%+v, %v", before, err)
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if after, err := use(os.Getpid()); err != nil || after.fds != before.fds+1 {
		t.Errorf("with one more file: %+v, %v", after, err)
	}
	if _, err := use(1 << 22); err == nil {
		t.Error("a process that is none is measured")
	}
}

func TestNotOwn(t *testing.T) {
	const text = `00400000-00a5c000 r-xp 00000000 08:01 131 /usr/local/bin/xcontainer-backend
c000000000-c000400000 rw-p 00000000 00:00 0 [anon: Go: heap]
c000400000-c004000000 ---p 00000000 00:00 0 
7f0000000000-7f0000001000 rw-s 00000000 00:05 7 /dev/xen/privcmd
7f0000001000-7f0000002000 rw-s 00000000 00:01 0 /dev/zero (deleted)
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0 [stack]
`
	lines, err := notOwn(text)
	if err != nil || len(lines) != 3 || !strings.HasSuffix(lines[0], "xcontainer-backend") ||
		!strings.HasSuffix(lines[1], "privcmd") || !strings.HasSuffix(lines[2], "(deleted)") {
		t.Errorf("%q, %v", lines, err)
	}
	if lines, err := notOwn("00400000-00a5c000 r-xp\n"); err == nil {
		t.Errorf("half a line: %q", lines)
	}
}

func TestField(t *testing.T) {
	const text = "VmRSSX:  1 kB\nVmRSS:\t  4711 kB\nThreads: 3\n"
	if n, err := field(strings.NewReader(text), "VmRSS:"); n != 4711 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := field(strings.NewReader(text), "Threads:"); n != 3 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := field(strings.NewReader(text), "Other:"); err == nil {
		t.Error("a line that is not there")
	}
}

func TestCountGoroutines(t *testing.T) {
	for text, want := range map[string]int64{
		"goroutine 1 [x]\n" + stacksMark + ":\ngoroutine 7 [running]:\nx\n\ngoroutine 12 [IO wait, 2 minutes]:\n": 2,
		// logrus quotes a text of several lines.
		`msg="` + stacksMark + `:\ngoroutine 7 [running]:\nmain\n\ngoroutine 8 [select]:"`: 2,
		stacksMark + " nothing": 0,
		"goroutine 1 [x]":       0,
	} {
		n, err := countGoroutines(text)
		if n != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v", text, n, err)
		}
	}
}

func TestNumber(t *testing.T) {
	for n, want := range map[int64]string{0: "0", -3: "-3", 65535: "65535", 3 << 19: "1.50 MiB", -(3 << 20): "-3.00 MiB"} {
		if got := number(n); got != want {
			t.Errorf("%d: %q", n, got)
		}
	}
}
