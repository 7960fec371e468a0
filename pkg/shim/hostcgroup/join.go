// SPDX-License-Identifier: Apache-2.0

package hostcgroup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"

	"github.com/xcontainer/xcontainer/pkg/shim/refusal"
)

// Join moves a process to a cgroup that exists, a path below the root of each
// hierarchy. It is for the shim, whose cgroup is the client's to make.
func Join(where string, pid int) error {
	p := path.Clean("/" + where)
	if strings.ContainsAny(p, "\x00\n") || len(p) > maxPath {
		return refusal.New(ErrInvalid, fmt.Sprintf("the cgroup %.64q cannot be: a path has at most %d bytes, and no new line", where, maxPath))
	}
	err := join(p, pid)
	if errors.Is(err, cgroup1.ErrCgroupDeleted) || errors.Is(err, os.ErrNotExist) {
		return refusal.New(ErrUnavailable, fmt.Sprintf("the cgroup %s does not exist; make it first", p))
	}
	if err != nil {
		return fmt.Errorf("move process %d to cgroup %s: %w", pid, p, err)
	}
	return nil
}

func join(p string, pid int) error {
	if cgroups.Mode() == cgroups.Unified {
		m, err := cgroup2.Load(p)
		if err != nil {
			return err
		}
		return m.AddProc(uint64(pid))
	}
	cg, err := cgroup1.Load(cgroup1.StaticPath(p))
	if err != nil {
		return err
	}
	return cg.AddProc(uint64(pid))
}
