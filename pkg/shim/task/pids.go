// SPDX-License-Identifier: Apache-2.0

package task

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/log"
	"github.com/containerd/typeurl/v2"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// guestPIDs is where the numbers of the guest's processes begin for clients. No
// process of any host has a number from here on (Linux: PID_MAX_LIMIT), so nobody
// takes one for the other: clients look pids up in /proc, signal them, and Docker
// tells a container's end by its pid. See docs/decisions/0005.
const guestPIDs = 1 << 22

const (
	// pidsTimeout bounds the agent's answer; without one there is the holder.
	pidsTimeout = 2 * time.Second
	// maxPIDs bounds what is taken of it.
	maxPIDs = 1 << 15
)

// guestPID is the number of a guest's process for clients. The guest may say
// anything.
func guestPID(pid uint32) uint32 { return guestPIDs + pid%guestPIDs }

// processes lists what runs in the container: init, which is always there, has
// the holder's pid. While nothing is known of the guest that is all.
func (c *container) processes(ctx context.Context) ([]*tasktypes.ProcessInfo, error) {
	list := []*tasktypes.ProcessInfo{{Pid: c.pid()}}
	if st, _ := c.init.current(); st == stopped {
		return list, nil
	}
	for _, p := range c.guestProcesses(ctx) {
		info := &tasktypes.ProcessInfo{Pid: guestPID(p.Pid)}
		if _, err := c.find(p.ExecId); err == nil && p.ExecId != "" {
			any, err := typeurl.MarshalAnyToProto(&options.ProcessDetails{ExecID: p.ExecId})
			if err != nil {
				return nil, fmt.Errorf("details of exec %s: %w", p.ExecId, err)
			}
			info.Info = any
		}
		list = append(list, info)
	}
	return list, nil
}

// guestProcesses asks the agent for all but init, each once, by number.
func (c *container) guestProcesses(ctx context.Context) []*agentapi.ProcessInfo {
	leave, ok := c.gate.enter()
	if !ok {
		return c.lastPIDs()
	}
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, pidsTimeout)
	defer cancel()
	r, err := c.guest.Agent().Processes(ctx, &agentapi.ProcessesRequest{Id: c.id})
	if err != nil {
		log.G(ctx).WithError(fromAgent(err)).WithField("id", c.id).Warn("the agent does not list processes")
		return nil
	}
	list := r.Processes[:min(len(r.Processes), maxPIDs)]
	init := c.init.guestPID()
	list = slices.DeleteFunc(list, func(p *agentapi.ProcessInfo) bool { return p.Pid == init || p.Pid == 0 || p.Pid >= guestPIDs })
	slices.SortFunc(list, func(a, b *agentapi.ProcessInfo) int { return cmp.Compare(a.Pid, b.Pid) })
	list = slices.CompactFunc(list, func(a, b *agentapi.ProcessInfo) bool { return a.Pid == b.Pid })
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pids = list
	return list
}

// lastPIDs are those of a paused guest, if somebody has asked before.
func (c *container) lastPIDs() []*agentapi.ProcessInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pids
}
