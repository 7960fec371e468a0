// SPDX-License-Identifier: Apache-2.0

package suites

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/xcontainer/xcontainer/integration/lab"
)

// pythonTests are the modules of CPython's own tests next to the kernel, the
// quickest first. A unit is a module. Not test_asyncio: its waits are for real
// machines, and take far more than ten minutes on an emulated one.
var pythonTests = []string{
	"test_thread", "test_fcntl", "test_select", "test_mmap", "test_time", "test_posix", "test_ctypes", "test_signal",
	"test_faulthandler", "test_threading", "test_os", "test_io", "test_socket", "test_subprocess",
}

// pythonIgnore are tests that are not run: what answers a vsock is not the container's.
const pythonIgnore = "*VSOCK*"

// python is CPython's own test suite.
func python() *Suite {
	return &Suite{
		Name: "python", About: "CPython's test suite, Debian's libpython3.11-testsuite",
		Build: func(ctx context.Context, b Builder) (Material, error) {
			image, archive, err := b.Inputs.SuiteImage(ctx, "python", "python3", "libpython3.11-testsuite")
			return Material{Image: image, Archive: archive, Units: pythonTests}, err
		},
		Command: func(unit string) string {
			return fmt.Sprintf("mkdir -p %[1]s && cd %[1]s || exit\nexport HOME=/root LC_ALL=C.UTF-8\nexec python3 -m test -v -i %[3]s %[2]s", Work, lab.Quote(unit), lab.Quote(pythonIgnore))
		},
		Parse: ParseUnittest,
		Limit: 30 * time.Minute,
		Limits: map[string]time.Duration{
			"test_io": time.Hour, "test_socket": time.Hour, "test_subprocess": time.Hour, "test_threading": time.Hour,
		},
		Short:    []string{"test_thread", "test_select", "test_posix"},
		MemoryMB: 1024,
	}
}

// Lines of unittest's verbose output. A test's first line may have its result; or
// the first line of its description follows, with the result; or anything that the
// test prints stands before the result.
var (
	unittestName    = regexp.MustCompile(`^(\w+) \(([\w.]+)\)(.*)$`)
	unittestResult  = regexp.MustCompile(`(?:^|\.\.\. )(ok|FAIL|ERROR|skipped\b.*|expected failure|unexpected success)$`)
	unittestFailure = regexp.MustCompile(`^(?:FAIL|ERROR|UNEXPECTED SUCCESS): (\w+) \(([\w.]+)\)`)
	unittestEnd     = regexp.MustCompile(`(?m)^Ran [0-9]+ tests? in `)
)

// ParseUnittest reads the verbose output of Python's unittest. A test that tells no
// result in a way that is understood, since it prints things itself, has passed if
// the run came to its end and does not list it among the failures.
func ParseUnittest(o Output) Results {
	r := Results{}
	silent := map[string]bool{}
	open := "" // the test whose result is to come
	for line := range strings.Lines(o.Text) {
		line = strings.TrimRight(line, "\r\n")
		if f := unittestFailure.FindStringSubmatch(line); f != nil {
			name := unittestTest(f[1], f[2])
			r[name] = Fail
			delete(silent, name)
			open = ""
			continue
		}
		if f := unittestName.FindStringSubmatch(line); f != nil && strings.Contains(f[2], ".") {
			open = unittestTest(f[1], f[2])
			r[open], silent[open] = Fail, true
			line = f[3]
		}
		if f := unittestResult.FindStringSubmatch(line); f != nil && open != "" {
			r[open] = unittestStatus(f[1])
			delete(silent, open)
			open = ""
		}
	}
	if unittestEnd.MatchString(o.Text) {
		for name := range silent {
			r[name] = Pass
		}
	}
	return r
}

// unittestTest is a test's name: its class, which ends with the method's name since
// Python 3.11, without the package "test".
func unittestTest(method, class string) string {
	class = strings.TrimPrefix(class, "test.")
	if strings.HasSuffix(class, "."+method) {
		return class
	}
	return class + "." + method
}

func unittestStatus(word string) Status {
	switch {
	case word == "ok" || word == "expected failure":
		return Pass
	case strings.HasPrefix(word, "skipped"):
		return Skip
	}
	return Fail
}
