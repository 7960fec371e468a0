// SPDX-License-Identifier: Apache-2.0

package task

import (
	"errors"
	"fmt"
	"os"

	"github.com/containerd/log"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/xcontainer/xcontainer/pkg/shim/bundle"
	"github.com/xcontainer/xcontainer/pkg/shim/holder"
	"github.com/xcontainer/xcontainer/pkg/shim/hostcgroup"
	"github.com/xcontainer/xcontainer/pkg/shim/record"
)

// Cgroup is a container's cgroup on the host, which may not exist yet. See package
// hostcgroup, whose Group it is.
type Cgroup interface {
	// Folders are where it is, for the record.
	Folders() ([]string, error)
	// Make makes it.
	Make() error
	// Open returns its folder to start a process in, nil if processes come by Add.
	Open() (*os.File, error)
	Add(pid int) error
	// Update sets the limits that r names, which may be nil.
	Update(r *specs.LinuxResources) error
	// Delete removes it. It may be called twice.
	Delete() error
}

func hostCgroup(path string) (Cgroup, error) { return hostcgroup.At(path) }

// startHolder starts the process that stands for the container, at its place on
// the host.
func (c *container) startHolder(h *bundle.Host) (err error) {
	defer c.steps.time("holder")()
	if err := c.makeCgroup(h.CgroupsPath); err != nil {
		return err
	}
	config := holder.Config{ID: c.id, NetNS: h.NetNS}
	if c.cgroup != nil {
		if config.Cgroup, err = c.cgroup.Open(); err != nil {
			return err
		}
	}
	if config.Cgroup != nil {
		defer config.Cgroup.Close()
	}
	if c.holder, err = holder.Start(config); err != nil {
		return err
	}
	p, err := record.Of(c.holder.Pid())
	if err != nil {
		return fmt.Errorf("record holder: %w", err)
	}
	if err := c.amend(func(r *record.Record) { r.Holder = p }); err != nil {
		return err
	}
	if c.cgroup != nil {
		if config.Cgroup == nil {
			if err := c.cgroup.Add(c.holder.Pid()); err != nil {
				return err
			}
		}
		// With the process in it: none of its limits can keep it from starting.
		if err := c.cgroup.Update(h.Resources); err != nil {
			return err
		}
	}
	if h.OOMScoreAdj != nil {
		if err := c.holder.SetOOMScoreAdj(*h.OOMScoreAdj); err != nil {
			log.L.WithError(err).WithField("id", c.id).Warn("the host's OOM killer rates the container as it does the shim")
		}
	}
	return nil
}

// makeCgroup makes the cgroup that config.json names. On a host that lets none be
// made a container does without: its limits are kept by guest and hypervisor.
func (c *container) makeCgroup(cgroupsPath string) error {
	path, err := hostcgroup.Path(cgroupsPath, c.s.Namespace, c.id)
	if err != nil {
		return err
	}
	group, err := c.s.Cgroup(path)
	var folders []string
	if err == nil {
		folders, err = group.Folders()
	}
	if err == nil {
		err = c.amend(func(r *record.Record) { r.Cgroups = folders })
	}
	if err == nil {
		err = group.Make()
	}
	if err == nil {
		c.cgroup = group
		return nil
	}
	if rerr := c.amend(func(r *record.Record) { r.Cgroups = nil }); rerr != nil {
		return rerr
	}
	if errors.Is(err, hostcgroup.ErrUnavailable) {
		log.L.WithError(err).WithField("id", c.id).Warn("the container has no cgroup on the host")
		return nil
	}
	return err
}
