// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// guestTypes are the mount types that the guest's kernel makes by itself.
var guestTypes = []string{"proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"}

func (s *Settings) mounts(spec *specs.Spec) error {
	for i := range spec.Mounts {
		m := &spec.Mounts[i]
		if !path.IsAbs(m.Destination) {
			return invalid("mount destination %q is not an absolute path", m.Destination)
		}
		if len(m.UIDMappings) > 0 || len(m.GIDMappings) > 0 {
			return unsupported(fmt.Sprintf("an id-mapped mount (at %s)", m.Destination), "")
		}
		out := &agentapi.Mount{Type: m.Type, Source: m.Source, Destination: path.Clean(m.Destination)}
		bind := m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
		switch {
		case bind:
			if err := s.bind(m, out); err != nil {
				return err
			}
		case slices.Contains(guestTypes, m.Type):
			opts, err := s.propagation(m)
			if err != nil {
				return err
			}
			out.Options = opts
		default:
			return unsupported(fmt.Sprintf("mount type %q (at %s)", m.Type, m.Destination),
				"use a bind mount or one of "+strings.Join(guestTypes, ", "))
		}
		s.Container.Mounts = append(s.Container.Mounts, out)
	}
	return nil
}

func (s *Settings) bind(m *specs.Mount, out *agentapi.Mount) error {
	if !filepath.IsAbs(m.Source) {
		return invalid("source %q of the bind mount at %s is not an absolute path", m.Source, m.Destination)
	}
	opts, err := s.propagation(m)
	if err != nil {
		return err
	}
	out.Type, out.Source = "bind", ""
	readOnly := false
	for _, o := range opts {
		switch o {
		case "bind", "rbind":
			continue
		case "idmap", "ridmap":
			return unsupported(fmt.Sprintf("an id-mapped mount (at %s)", m.Destination), "")
		case "ro", "rro":
			readOnly, o = true, "ro"
		case "rw":
			readOnly = false
		}
		out.Options = append(out.Options, o)
	}
	s.Binds = append(s.Binds, Bind{Mount: len(s.Container.Mounts), Source: filepath.Clean(m.Source), ReadOnly: readOnly})
	return nil
}

// propagation takes the propagation options out. A domain has mounts of its
// own, so private is what it has anyway; slave would differ only in mounts that
// the host makes later, which a guest cannot see; shared cannot be.
func (s *Settings) propagation(m *specs.Mount) ([]string, error) {
	var out []string
	for _, o := range m.Options {
		switch o {
		case "private", "rprivate", "unbindable", "runbindable":
		case "slave", "rslave":
			s.ignore("propagation %q of the mount at %s", o, m.Destination)
		case "shared", "rshared":
			return nil, unsupported(fmt.Sprintf("propagation %q (of the mount at %s)", o, m.Destination), "use rprivate")
		default:
			out = append(out, o)
		}
	}
	return out, nil
}
