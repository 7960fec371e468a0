// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/xcontainer/xcontainer/integration/internal/ctrbox"
	"github.com/xcontainer/xcontainer/integration/lab"
)

// folder is where dom0 has the programs.
const folder = "/var/tmp/benchsyscalls"

// Limits, on a machine that may be emulated.
const (
	checkLimit  = 3 * time.Minute
	importLimit = 15 * time.Minute // of images
	// patience is what a workload may take beyond its time, which is only a part of
	// what it does: it warms up, and some things take seconds by themselves.
	patience = 5 * time.Minute
)

// container is one in which workloads are run, one after the other.
type container struct {
	*ctrbox.Box
	config config
	kernel string // its release, once the container has started
}

func newContainer(l *lab.Lab, c config, image, id string) *container {
	return &container{config: c, Box: &ctrbox.Box{
		Lab: l, ID: id, Image: image, Runtime: c.runtime, XLibOS: c.xlibos, VCPUs: c.vcpus,
		Args: []string{
			"--mount", "type=bind,src=" + folder + ",dst=" + mount + ",options=rbind:ro",
			// Unlike /dev/shm, programs can be executed there.
			"--mount", "type=tmpfs,src=tmpfs,dst=" + memory + ",options=nosuid:nodev",
		},
	}}
}

// start starts the container and makes sure that it is what its configuration says:
// a comparison with something else would be worth nothing. It returns the kernel's
// release.
func (c *container) start(ctx context.Context) (string, error) {
	if err := c.Start(ctx); err != nil {
		return "", err
	}
	out, err := c.Exec(ctx, checkLimit, "nproc; uname -r; uname -v; cat /proc/xlibos 2>/dev/null; true")
	if err != nil {
		return "", err
	}
	return c.config.check(out)
}

// check reads what the container says of itself: the number of its processors, the
// kernel's release and version, and /proc/xlibos.
func (c config) check(out string) (release string, err error) {
	f := strings.SplitN(out, "\n", 4)
	if len(f) != 4 {
		return "", fmt.Errorf("no processors and kernel in %q", out)
	}
	if c.vcpus > 0 && (f[0] != strconv.Itoa(c.vcpus) || strings.Contains(f[2], "SMP") != (c.vcpus > 1)) {
		return "", fmt.Errorf("%s processors and the kernel %q, want %d and one to go with it", f[0], f[2], c.vcpus)
	}
	x, err := ctrbox.ParseXLibOS(f[3])
	if err != nil {
		return "", err
	}
	switch {
	case c.mode == "" || c.mode == ctrbox.ModeOff:
		if x.On() {
			return "", fmt.Errorf("X-LibOS is in mode %q, want it off", x.Mode)
		}
	case x.Mode != c.mode || x.Rewriting != c.rewriting:
		return "", fmt.Errorf("X-LibOS is in mode %q, rewriting %t; want mode %q, rewriting %t", x.Mode, x.Rewriting, c.mode, c.rewriting)
	}
	return f[1], nil
}

// remove ends the container, if it was given a name.
func (c *container) remove(ctx context.Context) error {
	if c.ID == "" {
		return nil
	}
	return c.Remove(ctx)
}
