// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/xcontainer/xcontainer/pkg/libos/agent/stage"
	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

func (s service) Update(_ context.Context, r *agentapi.UpdateRequest) (*agentapi.UpdateResponse, error) {
	if r.GetResources() == nil {
		return nil, status.Error(codes.InvalidArgument, "update: no resources are named")
	}
	c, err := s.agent.find(r.GetId())
	if err != nil {
		return nil, err
	}
	p, err := c.process("")
	if err != nil {
		return nil, err
	}
	if !p.running() {
		return nil, status.Errorf(codes.FailedPrecondition, "container %q has ended", c.id)
	}
	return &agentapi.UpdateResponse{}, c.cgroup.set(r.GetResources())
}

// limit is one file of a cgroup and what to write into it.
type limit struct {
	file, value string
	optional    bool // nothing to limit where the kernel has no such file
}

// set changes the limits that r names, all of them or none. Its errors have a
// status.
func (c *cgroup) set(r *agentapi.Resources) error {
	c.limits.Lock()
	defer c.limits.Unlock()
	list, err := c.limitsOf(r)
	if err != nil {
		return err
	}
	var undo []limit
	for _, l := range list {
		old, _ := c.read(l.file) // what cannot be read, like memory.reclaim, cannot be undone
		if err := c.write(l); err != nil {
			for _, u := range slices.Backward(undo) {
				_ = c.write(u) // the first error is the one that helps
			}
			return err
		}
		if old != "" {
			undo = append(undo, limit{file: l.file, value: old})
		}
	}
	return nil
}

// limitsOf are the files to write for r, in the order to write them.
func (c *cgroup) limitsOf(r *agentapi.Resources) ([]limit, error) {
	if r == nil {
		return nil, nil
	}
	var list []limit
	add := func(file string, n *int64, optional bool) error {
		switch {
		case n == nil:
		case *n < -1:
			return status.Errorf(codes.InvalidArgument, "limit %s cannot be %d: -1 stands for none", file, *n)
		case *n == -1:
			list = append(list, limit{file, "max", optional})
		default:
			list = append(list, limit{file, strconv.FormatInt(*n, 10), optional})
		}
		return nil
	}
	for _, l := range []struct {
		file     string
		value    *int64
		optional bool
	}{
		{"pids.max", r.PidsMax, false},
		// The guest may have no swap at all; then any limit of it is kept.
		{"memory.swap.max", r.SwapMax, true},
		{"memory.low", r.MemoryLow, false},
		{"memory.max", r.MemoryMax, false},
	} {
		if err := add(l.file, l.value, l.optional); err != nil {
			return nil, err
		}
	}
	if r.CpuWeight != nil {
		list = append(list, limit{file: "cpu.weight", value: strconv.FormatUint(r.GetCpuWeight(), 10)})
	}
	if r.CpuQuotaUs != nil || r.CpuPeriodUs != nil {
		list = append(list, limit{file: "cpu.max", value: c.cpuMax(r)})
	}
	if r.GetCpus() != "" {
		list = append(list, limit{file: "cpuset.cpus", value: r.GetCpus()})
	}
	for _, key := range slices.Sorted(maps.Keys(r.GetUnified())) {
		if err := checkUnified(key); err != nil {
			return nil, err
		}
		list = append(list, limit{file: key, value: r.GetUnified()[key]})
	}
	return list, nil
}

// cpuMax is the line for cpu.max. A quota alone keeps the period, which the
// kernel does by itself; a period alone keeps the quota.
func (c *cgroup) cpuMax(r *agentapi.Resources) string {
	quota := "max"
	if r.CpuQuotaUs != nil && r.GetCpuQuotaUs() >= 0 {
		quota = strconv.FormatInt(r.GetCpuQuotaUs(), 10)
	}
	if r.CpuQuotaUs == nil {
		if now, err := c.read("cpu.max"); err == nil {
			quota, _, _ = strings.Cut(now, " ")
		}
	}
	if r.CpuPeriodUs == nil {
		return quota
	}
	return quota + " " + strconv.FormatUint(r.GetCpuPeriodUs(), 10)
}

// checkUnified accepts the interface file of a controller. The words are runc's
// where runc has any.
func checkUnified(key string) error {
	controller, parameter, ok := strings.Cut(key, ".")
	problem := ""
	switch {
	case strings.Contains(key, "/"):
		problem = "must be a file name (no slashes)"
	case !ok || controller == "" || parameter == "" || strings.ContainsAny(key, "\x00\n"):
		problem = "must be in the form CONTROLLER.PARAMETER"
	case controller == "cgroup":
		problem = "can't be set: it is no limit"
	case !slices.Contains(controllers, controller):
		problem = fmt.Sprintf("can't be set: controller %q not available", controller)
	}
	if problem != "" {
		return status.Errorf(codes.InvalidArgument, "unified resource %q %s", key, problem)
	}
	return nil
}

// write sets one limit. A value of several lines is several writes, as the
// kernel wants it.
func (c *cgroup) write(l limit) error {
	controller, _, _ := strings.Cut(l.file, ".")
	err := errors.New("no such controller in this guest")
	if slices.Contains(c.controllers, controller) {
		for line := range strings.Lines(l.value + "\n") {
			if line == "\n" && l.value != "" {
				continue
			}
			if err = stage.WriteFile(filepath.Join(c.path, l.file), line); err != nil {
				break
			}
		}
	}
	switch {
	case err == nil, l.optional && errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, unix.EBUSY) && strings.HasPrefix(l.file, "memory."):
		return status.Errorf(codes.FailedPrecondition, "unable to set memory limit to %s (current usage: %d, peak usage: %d)",
			l.value, c.number("memory.current"), c.number("memory.peak"))
	}
	return status.Errorf(codes.InvalidArgument, "limit %s to %s: %v", l.file, l.value, stage.Reason(err))
}

// read is the content of a file of the cgroup, without the last line's end.
func (c *cgroup) read(file string) (string, error) {
	b, err := os.ReadFile(filepath.Join(c.path, file))
	return strings.TrimRight(string(b), "\n"), err
}

// forksRefused is how often pids.max, the container's or that of all, has kept a
// process or thread from being made.
func (c *cgroup) forksRefused() uint64 {
	return c.table("pids.events")["max"] + c.table("../pids.events")["max"]
}

// explain gives the error of a process that could not be started its status, and
// the reason if that is the limit of processes; before is forksRefused from
// before the attempt. A stage needs a few threads of its own.
func (c *cgroup) explain(before uint64, err error) error {
	if (err == errEarlyEnd || errors.Is(err, unix.EAGAIN)) && c.forksRefused() > before {
		own, all := c.number("pids.max"), c.number("../pids.max")
		if own > all {
			return status.Errorf(codes.ResourceExhausted, "the process could not start: the domain has no room for more than %d processes and threads", all)
		}
		return status.Errorf(codes.ResourceExhausted, "the process could not start: the container's limit of %d processes and threads (pids.max) is reached", own)
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(codes.Internal, err.Error())
}
