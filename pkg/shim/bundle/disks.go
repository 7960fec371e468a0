// SPDX-License-Identifier: Apache-2.0

package bundle

import "github.com/opencontainers/runtime-spec/specs-go"

// AnnotationDisks says who mounts block images that the root file system is made
// of: "guest", which is the default, or "host".
const AnnotationDisks = "io.xcontainer.disks"

func (s *Settings) disks(spec *specs.Spec) error {
	switch v := spec.Annotations[AnnotationDisks]; v {
	case "", "guest":
	case "host":
		s.HostMounts = true
	default:
		return invalid("annotation %s=%q is neither guest nor host", AnnotationDisks, v)
	}
	return nil
}

// ForDevices gives the domain memory for devices on top of what it has, unless
// its size was fixed.
func (s *Settings) ForDevices(bytes uint64) {
	s.Limits.devices = bytes
	s.Size = s.Limits.Size()
}
