// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// bootClock is the time since the guest was started, by CLOCK_BOOTTIME.
func bootClock() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// greet sends the hello of docs/agent.md section 1 and reads the answer.
// started is the boot clock when the agent began.
func greet(conn io.ReadWriter, started time.Duration) error {
	var b [agentapi.HelloSize]byte
	binary.LittleEndian.PutUint32(b[0:], agentapi.HelloMagic)
	binary.LittleEndian.PutUint32(b[4:], agentapi.Version)
	binary.LittleEndian.PutUint64(b[8:], uint64(started))
	binary.LittleEndian.PutUint64(b[16:], uint64(bootClock()))
	if _, err := conn.Write(b[:]); err != nil {
		return fmt.Errorf("send hello: %w", err)
	}
	var answer [4]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return fmt.Errorf("read the answer to the hello: %w", err)
	}
	if v := binary.LittleEndian.Uint32(answer[:]); v != agentapi.Version {
		return fmt.Errorf("the host wants protocol version %d, this agent has %d", v, agentapi.Version)
	}
	return nil
}
