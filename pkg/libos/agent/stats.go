// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"math"
	"strconv"
	"strings"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

func (s service) ContainerStats(_ context.Context, r *agentapi.ContainerStatsRequest) (*agentapi.ContainerStatsResponse, error) {
	c, err := s.agent.find(r.GetId())
	if err != nil {
		return nil, err
	}
	g := c.cgroup
	return &agentapi.ContainerStatsResponse{
		Cpu:           g.table("cpu.stat"),
		Memory:        g.table("memory.stat"),
		MemoryEvents:  g.table("memory.events"),
		MemoryCurrent: g.number("memory.current"),
		MemoryMax:     g.number("memory.max"),
		MemoryPeak:    g.number("memory.peak"),
		SwapCurrent:   g.number("memory.swap.current"),
		SwapMax:       g.number("memory.swap.max"),
		PidsCurrent:   g.number("pids.current"),
		PidsMax:       g.number("pids.max"),
		Syscalls:      readSyscalls(syscallsFile),
	}, nil
}

// number is the content of a file that holds one: 0 for a file that this kernel
// does not have, 2^64-1 for "max".
func (c *cgroup) number(file string) uint64 {
	text, err := c.read(file)
	if err != nil {
		return 0
	}
	if text == "max" {
		return math.MaxUint64
	}
	n, _ := strconv.ParseUint(text, 10, 64)
	return n
}

// table is the content of a file of keys and numbers (flat keyed, in the words
// of the kernel's cgroup-v2.rst), and nil for one that this kernel does not have.
func (c *cgroup) table(file string) map[string]uint64 {
	text, err := c.read(file)
	if err != nil {
		return nil
	}
	return parseTable(text)
}

// parseTable leaves out lines that are not a key and a number.
func parseTable(text string) map[string]uint64 {
	t := make(map[string]uint64)
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseUint(value, 10, 64)
		if ok && err == nil {
			t[key] = n
		}
	}
	return t
}
