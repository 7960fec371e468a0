// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"path"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// Character devices of these majors exist in a guest if they need no hardware:
// memory (null, zero, random), terminals (tty, ptmx) and others (fuse). The agent
// knows which of them its kernel has.
const (
	majorMem  = 1
	majorTTY  = 5
	majorMisc = 10
)

// defaultDeviceMode is that of a node whose mode config.json leaves open.
const defaultDeviceMode = 0o666

// devices are nodes to make: their devices are the guest's, never the host's.
func (s *Settings) devices(list []specs.LinuxDevice) error {
	for i := range list {
		d := &list[i]
		if !path.IsAbs(d.Path) {
			return invalid("the path of the device %q is not absolute", d.Path)
		}
		out := &agentapi.Device{Path: path.Clean(d.Path), Type: d.Type, Major: d.Major, Minor: d.Minor, Mode: defaultDeviceMode}
		switch d.Type {
		case "p":
		case "c", "u":
			out.Type = "c"
			if d.Major == majorMem || d.Major == majorTTY || d.Major == majorMisc {
				break
			}
			return hostDevice(d)
		case "b":
			return hostDevice(d)
		default:
			return invalid("the device %s is of the type %q; the types are c, b, u and p", d.Path, d.Type)
		}
		if d.Minor < 0 {
			return invalid("the device %s has the number %d:%d", d.Path, d.Major, d.Minor)
		}
		if d.FileMode != nil {
			// In config.json it is a number of mode_t, type and all.
			out.Mode = uint32(*d.FileMode) & 0o7777
		}
		if d.UID != nil {
			out.Uid = *d.UID
		}
		if d.GID != nil {
			out.Gid = *d.GID
		}
		s.Container.Devices = append(s.Container.Devices, out)
	}
	return nil
}

// hostDevice refuses what only the host can have.
func hostDevice(d *specs.LinuxDevice) error {
	return unsupported(fmt.Sprintf("the host's device %s (%s %d:%d)", d.Path, d.Type, d.Major, d.Minor),
		"create the container without devices of the host (ctr: --privileged-without-host-devices)")
}
