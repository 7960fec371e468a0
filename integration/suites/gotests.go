// SPDX-License-Identifier: Apache-2.0

package suites

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"github.com/xcontainer/xcontainer/integration/internal/inputs"
	"github.com/xcontainer/xcontainer/integration/lab"
)

// goPackages are the packages of Go's standard library next to the kernel, the
// quickest first. A unit is a package.
var goPackages = []string{"sync", "os/signal", "syscall", "os/exec", "time", "os", "net", "runtime"}

// goSkip are tests that are not run. The traceback of one is compared with the place
// where its source was when it was built; it panics if there is none. Two reset timers
// as often as system calls allow, which takes a stock PV guest half an hour.
const goSkip = "^(TestTracebackSystem|TestStopResult|TestResetResult)$"

// goTests are those of the Go standard library.
func goTests() *Suite {
	return &Suite{
		Name: "go", About: "the Go standard library's tests next to the kernel",
		Build: func(ctx context.Context, b Builder) (Material, error) {
			dir, err := b.Inputs.GoTests(ctx, goPackages...)
			if err != nil {
				return Material{}, err
			}
			image, archive, err := b.Inputs.SuiteImage(ctx, "net")
			return Material{Image: image, Archive: archive, Folder: dir, Units: goPackages}, err
		},
		Command: goCommand,
		Parse:   ParseGo,
		Limit:   30 * time.Minute,
		Limits:  map[string]time.Duration{"runtime": 90 * time.Minute, "net": 60 * time.Minute},
		Short:   []string{"sync", "os/signal", "syscall"},
		// The collector's tests want room.
		MemoryMB: 1024,
	}
}

// goCommand runs a package's tests in a copy of its folder, as go test runs them in
// the package's own. There is no go command in the container: tests that need one
// are skipped.
func goCommand(unit string) string {
	return fmt.Sprintf(`set -e
mkdir -p %[1]s/src
[ -e %[1]s/lib ] || cp -a %[2]s/lib %[1]s/
[ -e %[1]s/src/testdata ] || cp -a %[2]s/src/testdata %[1]s/src/
[ -e %[1]s/src/%[3]s/%[4]s ] || { mkdir -p %[1]s/src/%[3]s; cp -a %[2]s/src/%[3]s/. %[1]s/src/%[3]s/; }
cd %[1]s/src/%[3]s
export GOROOT=%[1]s HOME=/root TMPDIR=/tmp
exec ./%[4]s -test.v=test2json -test.short -test.timeout=0 -test.skip=%[5]s`,
		Work, Mount, lab.Quote(unit), inputs.GoTestProgram, lab.Quote(goSkip))
}

// goLine is what package testing says of a test: that it begins, or what it came
// to. Something that the test has printed may stand before it on the line.
var goLine = regexp.MustCompile(`(?m)\x16?=== RUN +(\S+)$|--- (PASS|FAIL|SKIP): (\S+) \([0-9.]+s\)`)

var goStatus = map[string]Status{"PASS": Pass, "FAIL": Fail, "SKIP": Skip}

// ParseGo reads what a test program of Go prints with -test.v. A test that began and
// came to nothing has failed: the program ended in it.
func ParseGo(o Output) Results {
	r := Results{}
	for _, f := range goLine.FindAllStringSubmatch(o.Text, -1) {
		if name := f[1]; name != "" {
			r[name] = Fail
		} else {
			r[f[3]] = goStatus[f[2]]
		}
	}
	return r
}
