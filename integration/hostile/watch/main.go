// SPDX-License-Identifier: Apache-2.0

// Watch samples, for some seconds, what all processes of the shim's program
// hold, and prints the largest resident set in KiB and the largest number of
// descriptors. Meanwhile it keeps a copy of a file that will go.
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
	for end := time.Now().Add(time.Duration(seconds) * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		r, f := sample()
		rss, fds = max(rss, r), max(fds, f)
		if b, err := os.ReadFile(os.Args[2]); err == nil && len(b) > 0 {
			_ = os.WriteFile(os.Args[3], b, 0o600)
		}
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
