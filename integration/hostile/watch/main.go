// SPDX-License-Identifier: Apache-2.0

// Watch samples what all processes of the shim's program hold, for some seconds
// from the moment on when a file has something in it, and prints the largest
// resident set in KiB and the largest number of descriptors. Meanwhile it keeps
// a copy of the file, which will go.
//
//	watch SECONDS FILE COPY
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// patience bounds the wait for the file.
const patience = 20 * time.Second

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: watch SECONDS FILE COPY")
		os.Exit(2)
	}
	seconds, err := strconv.Atoi(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "watch:", err)
		os.Exit(2)
	}
	rss, fds := 0, 0
	end := time.Now().Add(patience)
	for began := false; time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		r, f := sample()
		rss, fds = max(rss, r), max(fds, f)
		b, err := os.ReadFile(os.Args[2])
		if err != nil || len(b) == 0 {
			continue
		}
		if !began {
			began, end = true, time.Now().Add(time.Duration(seconds)*time.Second)
		}
		_ = os.WriteFile(os.Args[3], b, 0o600)
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
