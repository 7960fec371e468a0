// SPDX-License-Identifier: Apache-2.0

// Watch samples what all processes of the shim's program hold, for some seconds
// from the moment on when a file holds a text, and prints the largest resident
// set in KiB and the largest number of descriptors. Meanwhile it keeps a copy of
// the file, which will go. It waits PATIENCE seconds for the text: an emulated
// machine that is busy may take most of a minute to boot a guest.
//
//	watch PATIENCE SECONDS FILE COPY TEXT
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

func main() {
	if len(os.Args) != 6 {
		fmt.Fprintln(os.Stderr, "usage: watch PATIENCE SECONDS FILE COPY TEXT")
		os.Exit(2)
	}
	patience, err1 := strconv.Atoi(os.Args[1])
	seconds, err2 := strconv.Atoi(os.Args[2])
	if err := errors.Join(err1, err2); err != nil {
		fmt.Fprintln(os.Stderr, "watch:", err)
		os.Exit(2)
	}
	file, keep, text := os.Args[3], os.Args[4], []byte(os.Args[5])
	rss, fds := 0, 0
	end := time.Now().Add(time.Duration(patience) * time.Second)
	for began := false; time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		r, f := sample()
		rss, fds = max(rss, r), max(fds, f)
		b, err := os.ReadFile(file)
		if err != nil || len(b) == 0 {
			continue
		}
		if !began && bytes.Contains(b, text) {
			began, end = true, time.Now().Add(time.Duration(seconds)*time.Second)
		}
		_ = os.WriteFile(keep, b, 0o600)
	}
	fmt.Println(rss, fds)
}

// sample gives the largest values of now.
func sample() (rss, fds int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		exe, err := os.Readlink(d + "/exe")
		if err != nil || !strings.Contains(exe, "/containerd-shim-xcontainer-v2") {
			continue
		}
		if list, err := os.ReadDir(d + "/fd"); err == nil {
			fds = max(fds, len(list))
		}
		status, _ := os.ReadFile(d + "/status")
		for line := range strings.Lines(string(status)) {
			if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
				n, _ := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(v), "kB")))
				rss = max(rss, n)
			}
		}
	}
	return rss, fds
}
