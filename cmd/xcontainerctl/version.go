// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// shimProgram is what containerd looks for in its PATH.
const shimProgram = "containerd-shim-xcontainer-v2"

// manifestFile says what the guest's files were built from.
const manifestFile = "manifest.json"

// versions is what `version --json` prints. Fields are only ever added.
type versions struct {
	Program string `json:"program"`
	Shim    string `json:"shim,omitempty"`   // of the first in PATH
	Kernel  string `json:"kernel,omitempty"` // of guests
	Agent   int    `json:"agent_protocol"`
	Xen     string `json:"xen,omitempty"`
	Domctl  uint32 `json:"domctl,omitempty"`
}

// version does not fail without Xen or any other part: it is asked for in bug
// reports.
func (c *command) version(ctx context.Context) error {
	v := versions{Program: ownVersion(), Agent: agentapi.Version}
	var shimErr, kernelErr, xenErr error
	v.Shim, shimErr = c.shimVersion(ctx)
	v.Kernel, kernelErr = kernelVersion(c.share)
	host, xenErr := c.openXen()
	if xenErr == nil {
		defer host.Close()
		v.Xen, v.Domctl = host.Version().String(), host.Version().Domctl
	}
	if c.json {
		return c.printJSON(v)
	}
	line := func(what, value string, err error) {
		if err != nil {
			value = fmt.Sprintf("unknown (%v)", err)
		}
		fmt.Fprintf(c.out, "%-15s %s\n", what, value)
	}
	line("xcontainerctl", v.Program, nil)
	line("shim", v.Shim, shimErr)
	line("guest kernel", v.Kernel, kernelErr)
	line("agent protocol", fmt.Sprint(v.Agent), nil)
	line("hypervisor", fmt.Sprintf("%s, domctl interface %#x", v.Xen, v.Domctl), xenErr)
	return nil
}

func ownVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "unknown"
}

// shimVersion asks the shim that containerd would start, if PATH is the same.
func (c *command) shimVersion(ctx context.Context) (string, error) {
	out, err := c.output(ctx, shimProgram, "-v")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(out) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "Version:"); ok {
			return strings.TrimSpace(v), nil
		}
	}
	return "", fmt.Errorf("%s -v names no version", shimProgram)
}

// kernelVersion reads the manifest beside the guest's files.
func kernelVersion(share string) (string, error) {
	data, err := os.ReadFile(filepath.Join(share, manifestFile))
	if err != nil {
		return "", err
	}
	var m struct {
		Kernel struct {
			Version string `json:"version"`
		} `json:"kernel"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return "", fmt.Errorf("%s: %w", filepath.Join(share, manifestFile), err)
	}
	if m.Kernel.Version == "" {
		return "", fmt.Errorf("%s names no kernel version", filepath.Join(share, manifestFile))
	}
	return m.Kernel.Version, nil
}
