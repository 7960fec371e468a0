// SPDX-License-Identifier: Apache-2.0

package suites

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/xcontainer/xcontainer/integration/lab"
)

//go:embed programs
var programs embed.FS

// copyPrograms copies a folder of programs to scratch.
func copyPrograms(name, scratch string) error {
	sub, err := fs.Sub(programs, path.Join("programs", name))
	if err != nil {
		return fmt.Errorf("suites: %w", err)
	}
	if err := os.CopyFS(scratch, sub); err != nil {
		return fmt.Errorf("suites: %w", err)
	}
	return nil
}

// debuggerUnits are the files of programs/debuggers that are run.
var debuggerUnits = []string{
	"gdb-attach", "gdb-step", "gdb-bytes", "gdb-run", "gdb-signal",
	"strace-count", "strace-attach", "strace-inject",
}

// debuggers are scripts that look at a process whose system calls are hot. A unit is
// one of them.
func debuggers() *Suite {
	return &Suite{
		Name: "debuggers", About: "gdb and strace on processes with hot system calls",
		Build: func(ctx context.Context, b Builder) (Material, error) {
			dir := filepath.Join(b.Scratch, "debuggers")
			if err := copyPrograms("debuggers", dir); err != nil {
				return Material{}, err
			}
			image, archive, err := b.Inputs.SuiteImage(ctx, "debuggers", "gdb", "strace")
			return Material{Image: image, Archive: archive, Folder: dir, Units: debuggerUnits}, err
		},
		Command:    func(unit string) string { return "exec sh " + lab.Quote(Mount+"/"+unit) },
		Parse:      ParseResults,
		Limit:      15 * time.Minute,
		Short:      []string{"gdb-attach", "strace-count"},
		Privileged: true, MemoryMB: 768,
	}
}

// ParseResults reads the lines "RESULT pass|fail|skip NAME" of the project's own
// programs.
func ParseResults(o Output) Results {
	r := Results{}
	for line := range strings.Lines(o.Text) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "RESULT ")
		if !ok {
			continue
		}
		status, name, _ := strings.Cut(rest, " ")
		switch s := Status(status); {
		case name == "":
		case s == Pass, s == Fail, s == Skip:
			r.put(name, s)
		}
	}
	return r
}
