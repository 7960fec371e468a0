// SPDX-License-Identifier: Apache-2.0

package hypercall

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/xen/abi"
)

func TestHostInfo(t *testing.T) {
	x := newFake(t)
	le := binary.LittleEndian
	x.answer = func(c *privcmdCall, mem []byte) (uint64, error) {
		if c.op != abi.HypercallSysctl || le.Uint32(mem[abi.SysctlVersion:]) != abi.SysctlInterfaceVersion {
			return 0, unix.EACCES
		}
		u := mem[abi.SysctlU:]
		switch le.Uint32(mem[abi.SysctlCmd:]) {
		case abi.SysctlPhysInfo:
			le.PutUint32(u[abi.PhysInfoCPUs:], 4)
			le.PutUint64(u[abi.PhysInfoTotalPages:], 1000)
			le.PutUint64(u[abi.PhysInfoFreePages:], 500)
			le.PutUint64(u[abi.PhysInfoClaimedPages:], 7)
		case abi.SysctlSchedID:
			le.PutUint32(u[abi.SchedIDScheduler:], abi.SchedulerCredit2)
		}
		return 0, nil
	}
	want := abi.HostInfo{CPUs: 4, TotalPages: 1000, FreePages: 500, ClaimedPages: 7, Scheduler: abi.SchedulerCredit2}
	if got, err := x.door.HostInfo(); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	x.answer = func(*privcmdCall, []byte) (uint64, error) { return 0, unix.EPERM }
	if _, err := x.door.HostInfo(); !errors.Is(err, unix.EPERM) {
		t.Errorf("refused: %v", err)
	}
}
