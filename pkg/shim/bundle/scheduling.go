// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// policies and schedFlags by their names in config.json.
var policies = map[specs.LinuxSchedulerPolicy]uint32{
	specs.SchedOther:    unix.SCHED_NORMAL,
	specs.SchedFIFO:     unix.SCHED_FIFO,
	specs.SchedRR:       unix.SCHED_RR,
	specs.SchedBatch:    unix.SCHED_BATCH,
	specs.SchedIdle:     unix.SCHED_IDLE,
	specs.SchedDeadline: unix.SCHED_DEADLINE,
}

var schedFlags = map[specs.LinuxSchedulerFlag]uint64{
	specs.SchedFlagResetOnFork:  unix.SCHED_FLAG_RESET_ON_FORK,
	specs.SchedFlagReclaim:      unix.SCHED_FLAG_RECLAIM,
	specs.SchedFlagDLOverrun:    unix.SCHED_FLAG_DL_OVERRUN,
	specs.SchedFlagKeepPolicy:   unix.SCHED_FLAG_KEEP_POLICY,
	specs.SchedFlagKeepParams:   unix.SCHED_FLAG_KEEP_PARAMS,
	specs.SchedFlagUtilClampMin: unix.SCHED_FLAG_UTIL_CLAMP_MIN,
	specs.SchedFlagUtilClampMax: unix.SCHED_FLAG_UTIL_CLAMP_MAX,
}

// ioClasses for ioprio_set(2).
var ioClasses = map[specs.IOPriorityClass]uint32{
	specs.IOPRIO_CLASS_RT:   1,
	specs.IOPRIO_CLASS_BE:   2,
	specs.IOPRIO_CLASS_IDLE: 3,
}

const maxIOPriority = 7

// scheduling takes process.scheduler, ioPriority and execCPUAffinity.
func (s *Settings) scheduling(p *specs.Process, out *agentapi.Process) error {
	if c := p.Scheduler; c != nil {
		policy, ok := policies[c.Policy]
		if !ok {
			return invalid("process.scheduler.policy %q is unknown", c.Policy)
		}
		if c.Nice < -20 || c.Nice > 19 {
			return invalid("process.scheduler.nice %d is not between -20 and 19", c.Nice)
		}
		if c.Priority < 0 {
			return invalid("process.scheduler.priority %d is negative", c.Priority)
		}
		out.Scheduler = &agentapi.Scheduler{
			Policy: policy, Nice: c.Nice, Priority: uint32(c.Priority),
			Runtime: c.Runtime, Deadline: c.Deadline, Period: c.Period,
		}
		for _, f := range c.Flags {
			bit, ok := schedFlags[f]
			if !ok {
				return invalid("process.scheduler has the unknown flag %q", f)
			}
			out.Scheduler.Flags |= bit
		}
	}
	if c := p.IOPriority; c != nil {
		class, ok := ioClasses[c.Class]
		if !ok {
			return invalid("process.ioPriority.class %q is unknown", c.Class)
		}
		if c.Priority < 0 || c.Priority > maxIOPriority {
			return invalid("process.ioPriority.priority %d is not between 0 and %d", c.Priority, maxIOPriority)
		}
		out.IoPriority = &agentapi.IOPriority{Class: class, Level: uint32(c.Priority)}
	}
	if c := p.ExecCPUAffinity; c != nil {
		for _, set := range []string{c.Initial, c.Final} {
			if set == "" {
				continue
			}
			if _, err := countCPUs(set); err != nil {
				return invalid("process.execCPUAffinity %q is not a list of CPUs like 0-2,4", set)
			}
		}
		if c.Initial != "" {
			s.ignore("process.execCPUAffinity.initial: nothing of an exec runs outside of its container")
		}
		out.CpuAffinity = c.Final
	}
	return nil
}
