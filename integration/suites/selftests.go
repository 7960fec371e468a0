// SPDX-License-Identifier: Apache-2.0

package suites

import (
	"context"
	_ "embed"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/xcontainer/xcontainer/integration/kernelbuild"
	"github.com/xcontainer/xcontainer/integration/lab"
)

//go:embed selftests.txt
var selftestsText string

// kselftestSkip is the exit code of a test that cannot be run (kselftest.h).
const kselftestSkip = 4

// selftests are those of the guest kernel's own source. A unit is a line of
// selftests.txt: FOLDER/PROGRAM and its arguments.
func selftests() *Suite {
	return &Suite{
		Name: "selftests", About: "the guest kernel's tools/testing/selftests",
		Build:   buildSelftests,
		Command: selftestCommand,
		// Half of them write the Test Anything Protocol, the rest only have a code.
		Parse: ParseTAP, CodeOnly: true, SkipCode: kselftestSkip,
		Limit: 5 * time.Minute,
		Limits: map[string]time.Duration{
			"seccomp/seccomp_bpf": 15 * time.Minute,
			"mm/uffd-unit-tests":  15 * time.Minute,
			"mm/mremap_test":      15 * time.Minute,
			"mm/cow":              15 * time.Minute,
			"mm/gup_longterm":     10 * time.Minute,
			"timers/nanosleep":    10 * time.Minute,
		},
		Short: []string{
			"x86/sigreturn_64", "x86/single_step_syscall_64", "x86/syscall_nt_64", "x86/syscall_numbering_64",
			"x86/sysret_rip_64", "x86/fsgsbase_64", "sigaltstack/sas", "ptrace/get_syscall_info",
			"seccomp/seccomp_bpf", "futex/functional/futex_wait", "rseq/basic_test", "clone3/clone3",
			"exec/execveat", "vDSO/vdso_test_abi", "syscall_user_dispatch/sud_test",
		},
		Privileged: true, MemoryMB: 512,
	}
}

// selftestUnits are the lines of selftests.txt.
func selftestUnits() []string {
	var units []string
	for line := range strings.Lines(selftestsText) {
		line, _, _ = strings.Cut(line, "#")
		if f := strings.Fields(line); len(f) > 0 {
			units = append(units, strings.Join(f, " "))
		}
	}
	return units
}

// program is a unit's folder directly below the top one, and the command there.
func selftestProgram(unit string) (folder, program, args string) {
	program, args, _ = strings.Cut(unit, " ")
	folder, program, _ = strings.Cut(program, "/")
	return folder, program, args
}

func buildSelftests(ctx context.Context, b Builder) (Material, error) {
	units := selftestUnits()
	var programs []string
	for _, u := range units {
		folder, program, _ := selftestProgram(u)
		programs = append(programs, folder+"/"+program)
	}
	dir, err := kernelbuild.Selftests(ctx, b.Cache, programs, b.Progress)
	if err != nil {
		return Material{}, err
	}
	// mm/migration is linked with libnuma.
	image, archive, err := b.Inputs.SuiteImage(ctx, "selftests", "libnuma1")
	return Material{Image: image, Archive: archive, Folder: dir, Units: units}, err
}

// selftestCommand runs a unit in a copy of its folder: many write beside
// themselves, and want a file system that lets them.
func selftestCommand(unit string) string {
	folder, program, args := selftestProgram(unit)
	line := "./" + filepath.Base(program)
	if args != "" {
		line += " " + args
	}
	return fmt.Sprintf(`set -e
mkdir -p %[1]s
[ -d %[1]s/%[2]s ] || cp -a %[3]s/%[2]s %[1]s/
cd %[1]s/%[2]s/%[4]s
exec %[5]s`, Work, lab.Quote(folder), Mount, lab.Quote(filepath.Dir(program)), line)
}
