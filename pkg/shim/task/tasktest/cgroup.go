// SPDX-License-Identifier: Apache-2.0

package tasktest

import (
	"errors"
	"os"
	"slices"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/xcontainer/xcontainer/pkg/shim/hostcgroup"
	"github.com/xcontainer/xcontainer/pkg/shim/task"
)

// Cgroups is a host's cgroups in memory, where processes come by Add.
type Cgroups struct {
	// Unavailable makes it a host that lets none be made.
	Unavailable bool

	mu     sync.Mutex
	groups map[string]*Group // guarded by mu
}

// Group is one cgroup.
type Group struct {
	all  *Cgroups
	path string

	Pids   []int                 // of those that were added
	Limits *specs.LinuxResources // as last set
}

// At is for task.Config.
func (c *Cgroups) At(path string) (task.Cgroup, error) { return &Group{all: c, path: path}, nil }

// Get returns the cgroup of that path as it is now, nil if there is none.
func (c *Cgroups) Get(path string) *Group {
	c.mu.Lock()
	defer c.mu.Unlock()
	g, ok := c.groups[path]
	if !ok {
		return nil
	}
	return &Group{path: path, Pids: slices.Clone(g.Pids), Limits: g.Limits}
}

// Count how many there are.
func (c *Cgroups) Count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.groups)
}

// Folders implements task.Cgroup.
func (g *Group) Folders() ([]string, error) {
	return []string{hostcgroup.Root + "/xcontainer-test-none" + g.path}, nil
}

// Make implements task.Cgroup.
func (g *Group) Make() error {
	g.all.mu.Lock()
	defer g.all.mu.Unlock()
	switch {
	case g.all.Unavailable:
		return hostcgroup.ErrUnavailable
	case g.all.groups[g.path] != nil:
		return hostcgroup.ErrInUse
	case g.all.groups == nil:
		g.all.groups = map[string]*Group{}
	}
	g.all.groups[g.path] = g
	return nil
}

// Open implements task.Cgroup.
func (g *Group) Open() (*os.File, error) { return nil, nil }

// Add implements task.Cgroup.
func (g *Group) Add(pid int) error {
	g.all.mu.Lock()
	defer g.all.mu.Unlock()
	g.Pids = append(g.Pids, pid)
	return nil
}

// Update implements task.Cgroup. Only limits that are there are taken.
func (g *Group) Update(r *specs.LinuxResources) error {
	g.all.mu.Lock()
	defer g.all.mu.Unlock()
	if g.all.groups[g.path] != g {
		return errors.New("no such cgroup")
	}
	if r != nil {
		g.Limits = r
	}
	return nil
}

// Delete implements task.Cgroup.
func (g *Group) Delete() error {
	g.all.mu.Lock()
	defer g.all.mu.Unlock()
	if g.all.groups[g.path] == g {
		delete(g.all.groups, g.path)
	}
	return nil
}
