// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"path"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
	"github.com/xcontainer/xcontainer/pkg/shim/hooks"
)

// Host is what config.json says of the container's place on the host.
type Host struct {
	// NetNS is the path of the network namespace to join; empty: a new one.
	NetNS string
	// CgroupsPath is as in config.json, in whatever form.
	CgroupsPath string
	// Resources are as in config.json; nil if there are none.
	Resources *specs.LinuxResources
	// OOMScoreAdj of the process that stands for the container; nil: as it is.
	OOMScoreAdj *int
	// Hooks that the host runs: all but startContainer. Not nil.
	Hooks *specs.Hooks
	// Annotations are part of a hook's state.
	Annotations map[string]string
}

func (s *Settings) host(spec *specs.Spec) error {
	s.Host.Annotations = spec.Annotations
	if spec.Process != nil {
		s.Host.OOMScoreAdj = spec.Process.OOMScoreAdj
	}
	if spec.Linux != nil {
		s.Host.CgroupsPath = spec.Linux.CgroupsPath
		s.Host.Resources = spec.Linux.Resources
	}
	return s.hooks(spec.Hooks)
}

func (s *Settings) hooks(h *specs.Hooks) error {
	s.Host.Hooks = &specs.Hooks{}
	if h == nil {
		return nil
	}
	for _, k := range []struct {
		name  string
		hooks []specs.Hook
	}{
		{hooks.Prestart, h.Prestart}, //nolint:staticcheck // deprecated, yet still sent
		{hooks.CreateRuntime, h.CreateRuntime},
		{hooks.CreateContainer, h.CreateContainer},
		{hooks.StartContainer, h.StartContainer},
		{hooks.Poststart, h.Poststart},
		{hooks.Poststop, h.Poststop},
	} {
		for i := range k.hooks {
			if err := checkHook(k.name, &k.hooks[i]); err != nil {
				return err
			}
		}
	}
	for _, hook := range h.StartContainer {
		out := &agentapi.Hook{Path: hook.Path, Args: hook.Args, Env: hook.Env}
		if len(out.Args) == 0 {
			out.Args = []string{hook.Path}
		}
		if hook.Timeout != nil {
			out.Timeout = uint32(*hook.Timeout)
		}
		s.Container.StartHooks = append(s.Container.StartHooks, out)
	}
	if len(h.Prestart)+len(h.CreateRuntime)+len(h.CreateContainer) > 0 { //nolint:staticcheck // deprecated, yet still sent
		// They find the root file system in the bundle.
		s.HostMounts = true
	}
	own := *h
	own.StartContainer = nil
	s.Host.Hooks = &own
	return nil
}

// maxHookTimeout bounds the time that config.json gives to one hook, in seconds.
const maxHookTimeout = 24 * 60 * 60

func checkHook(kind string, h *specs.Hook) error {
	name := fmt.Sprintf("%s hook %q", kind, h.Path)
	if !path.IsAbs(h.Path) {
		return invalid("the path of the %s is not absolute", name)
	}
	for _, list := range [][]string{{h.Path}, h.Args, h.Env} {
		for _, v := range list {
			if strings.ContainsRune(v, 0) {
				return invalid("the %s has %q, which holds a NUL byte", name, v)
			}
		}
	}
	if h.Timeout != nil && (*h.Timeout <= 0 || *h.Timeout > maxHookTimeout) {
		return invalid("the timeout %d of the %s is not between 1 and %d seconds", *h.Timeout, name, maxHookTimeout)
	}
	return nil
}
