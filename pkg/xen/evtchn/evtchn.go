// SPDX-License-Identifier: Apache-2.0

package evtchn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/xcontainer/xcontainer/pkg/xen/abi"
)

const devicePath = "/dev/xen/evtchn"

// portSize is the width of a port number in the device's stream.
const portSize = 4

// maxBatch bounds one read or write; the kernel's ring is of this order.
const maxBatch = 1024

// Channels is an open descriptor. Its methods may be used from several
// goroutines. Ports live as long as any copy of the descriptor, in any process.
type Channels struct {
	f *os.File
}

// Open opens the device.
func Open() (*Channels, error) {
	// The device can be polled, so os.OpenFile makes it non-blocking and
	// hands it to the runtime's poller.
	f, err := os.OpenFile(devicePath, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open event channels (`modprobe xen-evtchn` loads the driver): %w", err)
	}
	return New(f), nil
}

// New takes over a descriptor of the device, for example an inherited one made
// with os.NewFile from a non-blocking descriptor.
func New(f *os.File) *Channels { return &Channels{f: f} }

// File is the descriptor; it stays owned by c.
func (c *Channels) File() *os.File { return c.f }

// Close closes the descriptor, and ends its ports if it was the last copy. It
// may be called twice.
func (c *Channels) Close() error {
	if err := c.f.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// Bind makes a port whose far end is remote's unbound port. An event is pending
// on it at once, in case the far end was notified before.
func (c *Channels) Bind(remote abi.DomID, port abi.Port) (abi.Port, error) {
	var arg [8]byte
	binary.LittleEndian.PutUint32(arg[0:], uint32(remote))
	binary.LittleEndian.PutUint32(arg[4:], uint32(port))
	local, err := c.ioctl(abi.IoctlEvtchnBindInterdomain, arg[:])
	if err != nil {
		return 0, fmt.Errorf("bind event channel %d of domain %d: %w", port, remote, err)
	}
	return abi.Port(local), nil
}

// Unbind closes a port.
func (c *Channels) Unbind(local abi.Port) error {
	return c.onPort("unbind", abi.IoctlEvtchnUnbind, local)
}

// Notify sends an event to the far end of local.
func (c *Channels) Notify(local abi.Port) error {
	return c.onPort("notify", abi.IoctlEvtchnNotify, local)
}

func (c *Channels) onPort(op string, req uintptr, local abi.Port) error {
	var arg [portSize]byte
	binary.LittleEndian.PutUint32(arg[:], uint32(local))
	if _, err := c.ioctl(req, arg[:]); err != nil {
		return fmt.Errorf("%s event channel %d: %w", op, local, err)
	}
	return nil
}

// Restrict limits the descriptor for ever to binding ports of dom. Ports that are
// bound stay.
func (c *Channels) Restrict(dom abi.DomID) error {
	var arg [2]byte
	binary.LittleEndian.PutUint16(arg[:], uint16(dom))
	if _, err := c.ioctl(abi.IoctlEvtchnRestrictDomID, arg[:]); err != nil {
		return fmt.Errorf("restrict event channels to domain %d: %w", dom, err)
	}
	return nil
}

// Pending waits for events and fills ports with their near ends, each of which is
// masked until Unmask. It ends with os.ErrClosed after Close, and with
// os.ErrDeadlineExceeded after a deadline.
func (c *Channels) Pending(ports []abi.Port) (int, error) {
	buf := make([]byte, min(len(ports), maxBatch)*portSize)
	n, err := c.f.Read(buf)
	if err != nil {
		return 0, fmt.Errorf("wait for events: %w", err)
	}
	n /= portSize
	for i := range n {
		ports[i] = abi.Port(binary.LittleEndian.Uint32(buf[i*portSize:]))
	}
	return n, nil
}

// SetDeadline bounds the waits of Pending; the zero time ends the bound.
func (c *Channels) SetDeadline(t time.Time) error { return c.f.SetReadDeadline(t) }

// Unmask lets events of ports through again.
func (c *Channels) Unmask(ports ...abi.Port) error {
	for len(ports) > 0 {
		n := min(len(ports), maxBatch)
		buf := make([]byte, 0, n*portSize)
		for _, p := range ports[:n] {
			buf = binary.LittleEndian.AppendUint32(buf, uint32(p))
		}
		if _, err := c.f.Write(buf); err != nil {
			return fmt.Errorf("unmask %d event channels: %w", n, err)
		}
		ports = ports[n:]
	}
	return nil
}

func (c *Channels) ioctl(req uintptr, arg []byte) (uintptr, error) {
	conn, err := c.f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var ret uintptr
	ctlErr := conn.Control(func(fd uintptr) { ret, err = ioctl(fd, req, arg) })
	return ret, errors.Join(ctlErr, err)
}
