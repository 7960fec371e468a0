// SPDX-License-Identifier: Apache-2.0

package hypercall

import (
	"fmt"

	"github.com/xcontainer/xcontainer/pkg/xen/abi"
)

// HostInfo describes the machine.
func (d *Door) HostInfo() (abi.HostInfo, error) {
	var info abi.HostInfo
	buf, err := d.bufs.get()
	if err != nil {
		return info, fmt.Errorf("describe the machine: %w", err)
	}
	defer d.bufs.put(buf)
	for _, c := range []struct {
		cmd uint32
		get func([]byte)
	}{
		{abi.SysctlPhysInfo, info.GetPhysInfo},
		{abi.SysctlSchedID, info.GetSchedID},
	} {
		abi.PutSysctl(buf, c.cmd)
		if _, err := d.call(abi.HypercallSysctl, addrOf(buf)); err != nil {
			return info, fmt.Errorf("describe the machine: sysctl %d: %w", c.cmd, err)
		}
		c.get(buf)
	}
	return info, nil
}
