// SPDX-License-Identifier: Apache-2.0

package suites

import (
	"context"
	"time"

	"github.com/xcontainer/xcontainer/integration/internal/cache"
	"github.com/xcontainer/xcontainer/integration/internal/inputs"
)

// Suite is somebody's tests.
type Suite struct {
	Name  string
	About string // in a few words
	// Build makes what is needed, or finds it in the cache.
	Build func(ctx context.Context, b Builder) (Material, error)
	// Command is the script that runs a unit in the container, for sh, as root.
	Command func(unit string) string
	Parse   Parser
	// CodeOnly: a unit without tests in its output is fine; its exit code counts.
	CodeOnly bool
	// SkipCode is the exit code of a unit that cannot be run here; 0 if there is none.
	SkipCode int
	// Limit is the time for one unit, if Limits has no other, on an emulated machine.
	Limit  time.Duration
	Limits map[string]time.Duration
	// Short are the units of a short run.
	Short      []string
	Privileged bool
	MemoryMB   int // of the container's domain
}

// Builder has what suites are made with.
type Builder struct {
	Cache    *cache.Cache
	Inputs   *inputs.Builder
	Progress func(what string)
	Scratch  string // an empty folder
}

// Material is what dom0 needs for a suite.
type Material struct {
	Image   string // its name in containerd
	Archive string // for ctr images import, or empty if dom0 has the image
	// Folder is copied to dom0, and mounted read-only at Mount; it may be empty.
	Folder string
	Units  []string // all there are, in the order of their run
}

// Mount is where a container has the suite's folder.
const Mount = "/suite"

// Work is the folder in the container for what is copied from Mount, and for what
// tests write.
const Work = "/var/tmp/suite"

// LimitOf is the time for a unit.
func (s *Suite) LimitOf(unit string) time.Duration {
	if l, ok := s.Limits[unit]; ok {
		return l
	}
	return s.Limit
}

// All are the suites, the most telling first.
func All() []*Suite {
	return []*Suite{selftests(), goTests(), debuggers(), stressNG(), python(), perl(), java(), node()}
}
