// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

const (
	// syscallsFile is where a kernel with X-LibOS tells how it is called.
	syscallsFile = "/proc/xlibos"
	// maxSyscallsFile bounds what is read of it, in bytes. It has some 20 lines.
	maxSyscallsFile = 16 << 10
)

// readSyscalls reads the kernel's counters of system calls. It is empty for a
// kernel that has no such file.
func readSyscalls(file string) *agentapi.Syscalls {
	f, err := os.Open(file)
	if err != nil {
		return &agentapi.Syscalls{}
	}
	defer f.Close()
	// What was read before an error is as good as it ever was.
	b, _ := io.ReadAll(io.LimitReader(f, maxSyscallsFile))
	return parseSyscalls(string(b))
}

// parseSyscalls takes lines of a name and a value, and leaves out any other, also
// one without an end, which may have lost digits.
func parseSyscalls(text string) *agentapi.Syscalls {
	s := &agentapi.Syscalls{Counters: make(map[string]uint64)}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 2 || !strings.HasSuffix(line, "\n") {
			continue
		}
		switch f[0] {
		case "mode":
			s.Mode = f[1]
		case "rewriting":
			s.Rewriting = f[1]
		default:
			if n, err := strconv.ParseUint(f[1], 10, 64); err == nil {
				s.Counters[f[0]] = n
			}
		}
	}
	return s
}
