// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/mdlayher/socket"
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

// dialHello connects to the host's hello port. It is vsock.Dial but for the
// kernel's time limit of 2 s for a connect, which a busy host can miss; that can
// only be changed on a socket that is not yet connected. The connect does not
// block (docs/agent.md section 1).
func dialHello() (net.Conn, error) {
	c, err := socket.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0, "vsock", nil)
	if err != nil {
		return nil, err
	}
	limit := unix.NsecToTimeval(helloTimeout.Nanoseconds())
	if err := setConnectTimeout(c, &limit); err != nil {
		c.Close()
		return nil, fmt.Errorf("set the time limit: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), helloTimeout)
	defer cancel()
	if _, err := c.Connect(ctx, &unix.SockaddrVM{CID: agentapi.HostCID, Port: agentapi.PortHello}); err != nil {
		c.Close()
		return nil, err
	}
	return hostConn{c}, nil
}

// soVMConnectTimeout is SO_VM_SOCKETS_CONNECT_TIMEOUT_NEW of linux/vm_sockets.h,
// an option of the level AF_VSOCK.
const soVMConnectTimeout = 8

func setConnectTimeout(c *socket.Conn, limit *unix.Timeval) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	ctlErr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptTimeval(int(fd), unix.AF_VSOCK, soVMConnectTimeout, limit)
	})
	return errors.Join(ctlErr, err)
}

// hostConn makes a net.Conn of a socket that nobody asks for addresses.
type hostConn struct{ *socket.Conn }

func (hostConn) LocalAddr() net.Addr  { return vsockHost{} }
func (hostConn) RemoteAddr() net.Addr { return vsockHost{} }

type vsockHost struct{}

func (vsockHost) Network() string { return "vsock" }
func (vsockHost) String() string  { return "host" }

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
