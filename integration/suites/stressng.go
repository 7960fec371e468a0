// SPDX-License-Identifier: Apache-2.0

package suites

import (
	"context"
	"fmt"
	"time"

	"github.com/xcontainer/xcontainer/integration/lab"
)

// stressors are what stress-ng is run with. A unit is one of them. timerfd is not among
// them: Debian 12's fails everywhere, for it wants a file in a folder that it has not made.
var stressors = []string{
	"cpu", "signal", "sigq", "sigfd", "sigsuspend", "sigpending", "sigsegv", "timer", "itimer", "vm", "mmap",
	"mremap", "fork", "vfork", "clone", "exec", "pthread", "futex", "sem", "switch", "pipe", "eventfd", "yield", "poll",
	"epoll", "syscall", "get", "nanosleep",
}

// stressSeconds is how long each of them runs. It ends late on an emulated machine.
const stressSeconds = 4

// stressNG is stress-ng with its stressors' own checks.
func stressNG() *Suite {
	return &Suite{
		Name: "stress-ng", About: "stressors of stress-ng that check what they do",
		Build: func(ctx context.Context, b Builder) (Material, error) {
			image, archive, err := b.Inputs.SuiteImage(ctx, "stress-ng", "stress-ng")
			return Material{Image: image, Archive: archive, Units: stressors}, err
		},
		// A stressor has no tests, but says by its code what it came to: 2 is a failed
		// one, 3 lacks resources, 4 cannot be run here (stress-ng.1, EXIT STATUS).
		Command: func(unit string) string {
			return fmt.Sprintf(`mkdir -p %[1]s && cd %[1]s || exit
stress-ng --%[2]s 1 --timeout %[3]ds --vm-bytes 64m --mmap-bytes 64m --mremap-bytes 16m --verify --no-rand-seed --log-brief
code=$?
[ $code = 3 ] && code=%[4]d
exit $code`, Work, lab.Quote(unit), stressSeconds, stressSkip)
		},
		Parse: func(Output) Results { return nil }, CodeOnly: true, SkipCode: stressSkip,
		Limit: 5 * time.Minute, MemoryMB: 512,
		Short: []string{"cpu", "signal", "vm", "fork", "switch", "yield"},
	}
}

// stressSkip is the exit code of a stressor that is not there.
const stressSkip = 4
