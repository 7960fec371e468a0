// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"

	"github.com/xcontainer/xcontainer/pkg/shim/refusal"
	"github.com/xcontainer/xcontainer/pkg/shim/seccomp"
)

// namespaces wants the container to have its own of what a domain cannot share
// with the host. Namespaces are made in the guest; the network is the domain's,
// and the pid namespace of the host is that of the guest.
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
		if ns.Path != "" && ns.Type == specs.NetworkNamespace {
			if !path.IsAbs(ns.Path) {
				return invalid("the path %q of the network namespace is not absolute", ns.Path)
			}
			s.Host.NetNS = ns.Path
			s.ignore("the interfaces of network namespace %s: they do not reach the container yet", ns.Path)
		} else if ns.Path != "" {
			return unsupported(fmt.Sprintf("the %s namespace %s", ns.Type, ns.Path), "let the container have one of its own")
		}
		if own[ns.Type] {
			return invalid("linux.namespaces holds %s twice", ns.Type)
		}
		own[ns.Type] = true
	}
	if !own[specs.PIDNamespace] {
		// What asks for it most often is a debugger or a tool that must be told
		// its pid as its parent knows it. Within the guest that is so.
		s.Container.GuestPids = true
		s.ignore("the host's pid namespace: the container has that of its guest, in which there are only its own processes, the agent's and the kernel's")
	}
	for _, t := range []specs.LinuxNamespaceType{
		specs.IPCNamespace, specs.UTSNamespace, specs.MountNamespace, specs.NetworkNamespace,
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
	case len(l.NetDevices) > 0:
		return unsupported("linux.netDevices", "")
	case len(l.UIDMappings) > 0 || len(l.GIDMappings) > 0:
		return unsupported("a user id mapping", "create the container without it")
	case len(l.TimeOffsets) > 0:
		return unsupported("linux.timeOffsets", "")
	case l.IntelRdt != nil:
		return unsupported("linux.intelRdt", "")
	case l.MemoryPolicy != nil:
		return unsupported("linux.memoryPolicy", "")
	case l.RootfsPropagation == "shared" || l.RootfsPropagation == "rshared":
		return unsupported(fmt.Sprintf("rootfsPropagation %q", l.RootfsPropagation), "use rprivate")
	}
	switch l.RootfsPropagation {
	case "", "private", "rprivate", "slave", "rslave", "unbindable", "runbindable":
	default:
		return invalid("rootfsPropagation %q is unknown", l.RootfsPropagation)
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
	if err := s.devices(l.Devices); err != nil {
		return err
	}
	if err := s.personality(l.Personality); err != nil {
		return err
	}
	return s.seccomp(l.Seccomp)
}

// personality for personality(2).
func (s *Settings) personality(p *specs.LinuxPersonality) error {
	if p == nil {
		return nil
	}
	if len(p.Flags) > 0 {
		return unsupported(fmt.Sprintf("the personality flag %q", p.Flags[0]), "leave linux.personality.flags out")
	}
	switch p.Domain {
	case specs.PerLinux:
		s.Container.Process.Personality = proto.Uint32(perLinux)
	case specs.PerLinux32:
		s.Container.Process.Personality = proto.Uint32(perLinux32)
	default:
		return invalid("linux.personality.domain %q is neither LINUX nor LINUX32", p.Domain)
	}
	return nil
}

// Of personality(2).
const (
	perLinux   = 0
	perLinux32 = 8
)

// seccomp compiles the profile; the guest's kernel takes it as it comes.
func (s *Settings) seccomp(p *specs.LinuxSeccomp) error {
	f, err := seccomp.Compile(p)
	if errors.Is(err, seccomp.ErrUnsupported) {
		return refusal.New(ErrUnsupported, err.Error())
	}
	if err != nil {
		return invalid("%v", err)
	}
	if f != nil {
		s.Container.Process.Seccomp, s.Container.Process.SeccompFlags = f.Program, f.Flags
	}
	return nil
}
