// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// namespaces wants the container to have its own of what a domain cannot share
// with the host. Namespaces are made in the guest; the network is the domain's.
func (s *Settings) namespaces(spec *specs.Spec) error {
	if spec.Linux == nil {
		return nil
	}
	own := map[specs.LinuxNamespaceType]bool{}
	for _, ns := range spec.Linux.Namespaces {
		switch ns.Type {
		case specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.MountNamespace,
			specs.CgroupNamespace, specs.NetworkNamespace:
		default:
			return unsupported(fmt.Sprintf("a %s namespace", ns.Type), "create the container without it")
		}
		if ns.Path != "" {
			return unsupported(fmt.Sprintf("the %s namespace %s", ns.Type, ns.Path), "let the container have one of its own")
		}
		if own[ns.Type] {
			return invalid("linux.namespaces holds %s twice", ns.Type)
		}
		own[ns.Type] = true
	}
	for _, t := range []specs.LinuxNamespaceType{
		specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.MountNamespace, specs.NetworkNamespace,
	} {
		if !own[t] {
			return unsupported(fmt.Sprintf("sharing the host's %s namespace", t), "let the container have one of its own")
		}
	}
	return nil
}

// kernel takes the rest of the linux section.
func (s *Settings) kernel(spec *specs.Spec) error {
	l := spec.Linux
	if l == nil {
		return nil
	}
	switch {
	case len(l.Devices) > 0:
		return unsupported("the device "+l.Devices[0].Path,
			"create the container without devices (ctr: --privileged-without-host-devices)")
	case len(l.NetDevices) > 0:
		return unsupported("linux.netDevices", "")
	case l.Seccomp != nil:
		return unsupported("a seccomp profile", "create the container without one")
	case len(l.UIDMappings) > 0 || len(l.GIDMappings) > 0:
		return unsupported("a user id mapping", "create the container without it")
	case len(l.TimeOffsets) > 0:
		return unsupported("linux.timeOffsets", "")
	case l.IntelRdt != nil:
		return unsupported("linux.intelRdt", "")
	case l.MemoryPolicy != nil:
		return unsupported("linux.memoryPolicy", "")
	case l.Personality != nil && l.Personality.Domain != specs.PerLinux:
		return unsupported(fmt.Sprintf("the personality %q", l.Personality.Domain), "use a 64-bit image")
	case l.RootfsPropagation == "shared" || l.RootfsPropagation == "rshared":
		return unsupported(fmt.Sprintf("rootfsPropagation %q", l.RootfsPropagation), "use rprivate")
	}
	if l.MountLabel != "" {
		s.ignore("SELinux label %q", l.MountLabel)
	}
	for _, list := range [][]string{l.MaskedPaths, l.ReadonlyPaths} {
		for _, p := range list {
			if !path.IsAbs(p) {
				return invalid("masked or read-only path %q is not an absolute path", p)
			}
		}
	}
	s.Container.MaskedPaths = l.MaskedPaths
	s.Container.ReadonlyPaths = l.ReadonlyPaths
	for k := range l.Sysctl {
		if k == "" || strings.HasPrefix(k, "/") || slices.Contains(strings.Split(strings.ReplaceAll(k, ".", "/"), "/"), "") {
			return invalid("sysctl name %q", k)
		}
	}
	s.Container.Sysctl = l.Sysctl
	return nil
}
