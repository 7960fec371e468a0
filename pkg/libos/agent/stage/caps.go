// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// capabilityNames are in the order of their numbers in
// include/uapi/linux/capability.h.
var capabilityNames = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID",
	"CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE",
	"CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK",
	"CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE",
	"CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
	"CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE",
	"CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
	"CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF",
	"CAP_CHECKPOINT_RESTORE",
}

// capSet has the bit of each capability in it.
type capSet uint64

// parseCaps reads a list of names and leaves out what lies beyond last, the
// highest capability that this kernel knows.
func parseCaps(names []string, last int) (capSet, error) {
	var set capSet
next:
	for _, name := range names {
		for n, known := range capabilityNames {
			if name != known {
				continue
			}
			if n <= last {
				set |= 1 << n
			}
			continue next
		}
		return 0, failf(codes.InvalidArgument, "unknown capability %q", name)
	}
	return set, nil
}

// capSets are the five sets of a thread.
type capSets struct {
	bounding, effective, inheritable, permitted, ambient capSet
	last                                                 int
}

func parseCapabilities(c *agentapi.Capabilities) (capSets, error) {
	s := capSets{last: lastCap()}
	for _, one := range []struct {
		names []string
		set   *capSet
	}{
		{c.GetBounding(), &s.bounding},
		{c.GetEffective(), &s.effective},
		{c.GetInheritable(), &s.inheritable},
		{c.GetPermitted(), &s.permitted},
		{c.GetAmbient(), &s.ambient},
	} {
		var err error
		if *one.set, err = parseCaps(one.names, s.last); err != nil {
			return s, err
		}
	}
	return s, nil
}

// lastCap is the highest capability of the running kernel.
func lastCap() int {
	last := 0
	for n := range capabilityNames {
		if unix.Prctl(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0) == nil {
			last = n
		}
	}
	return last
}

// limit drops from the bounding set what is not in it. It needs CAP_SETPCAP, so
// it runs before the identity changes.
func (s capSets) limit() error {
	for n := 0; n <= s.last; n++ {
		if s.bounding&(1<<n) != 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(n), 0, 0, 0); err != nil {
			return fmt.Errorf("drop %s from the bounding set: %w", capabilityNames[n], err)
		}
	}
	return nil
}

// apply sets the other four sets of the calling thread.
func (s capSets) apply() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	for i := range data {
		data[i].Effective = uint32(s.effective >> (32 * i))
		data[i].Permitted = uint32(s.permitted >> (32 * i))
		data[i].Inheritable = uint32(s.inheritable >> (32 * i))
	}
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	if err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	for n := 0; n <= s.last; n++ {
		if s.ambient&(1<<n) == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(n), 0, 0); err != nil {
			return fmt.Errorf("raise ambient %s: %w", capabilityNames[n], err)
		}
	}
	return nil
}
