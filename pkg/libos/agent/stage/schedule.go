// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// Of ioprio_set(2), include/uapi/linux/ioprio.h.
const (
	ioprioWhoProcess = 1
	ioprioClassShift = 13
	ioprioMaxClass   = 3
	ioprioMaxLevel   = 7
)

// setScheduling gives this thread the process's CPUs, scheduling policy, I/O
// priority and personality; exec keeps them. It needs the rights of root, so it
// runs before the identity changes.
func setScheduling(p *agentapi.Process) error {
	if p.GetCpuAffinity() != "" {
		set, err := parseCPUs(p.GetCpuAffinity())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return failf(codes.InvalidArgument, "set CPU affinity %q: %v", p.GetCpuAffinity(), err)
		}
	}
	if s := p.GetScheduler(); s != nil {
		attr := unix.SchedAttr{
			Size:     unix.SizeofSchedAttr,
			Policy:   s.GetPolicy(),
			Flags:    s.GetFlags(),
			Nice:     s.GetNice(),
			Priority: s.GetPriority(),
			Runtime:  s.GetRuntime(),
			Deadline: s.GetDeadline(),
			Period:   s.GetPeriod(),
		}
		if err := unix.SchedSetAttr(0, &attr, 0); err != nil {
			return failf(codes.InvalidArgument, "set scheduling policy %d: %v", s.GetPolicy(), err)
		}
	}
	if io := p.GetIoPriority(); io != nil {
		if io.GetClass() > ioprioMaxClass || io.GetLevel() > ioprioMaxLevel {
			return failf(codes.InvalidArgument, "I/O priority: no class %d with level %d", io.GetClass(), io.GetLevel())
		}
		prio := uintptr(io.GetClass()<<ioprioClassShift | io.GetLevel())
		if _, _, errno := unix.RawSyscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, 0, prio); errno != 0 {
			return failf(codes.InvalidArgument, "set I/O priority class %d level %d: %v", io.GetClass(), io.GetLevel(), errno)
		}
	}
	if p.Personality != nil {
		if _, _, errno := unix.RawSyscall(unix.SYS_PERSONALITY, uintptr(p.GetPersonality()), 0, 0); errno != 0 {
			return fmt.Errorf("set personality %#x: %w", p.GetPersonality(), errno)
		}
	}
	return nil
}

// maxCPUs is how many processors a unix.CPUSet has room for.
const maxCPUs = 1024

// parseCPUs reads a list like "0-2,4".
func parseCPUs(list string) (set unix.CPUSet, err error) {
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			last = first
		}
		from, err := strconv.ParseUint(first, 10, 16)
		to, err2 := strconv.ParseUint(last, 10, 16)
		if err != nil || err2 != nil || from > to || to >= maxCPUs {
			return set, failf(codes.InvalidArgument, "CPU affinity %q is not a list of CPUs", list)
		}
		for n := from; n <= to; n++ {
			set.Set(int(n))
		}
	}
	return set, nil
}
