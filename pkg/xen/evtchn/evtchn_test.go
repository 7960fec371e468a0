// SPDX-License-Identifier: Apache-2.0

package evtchn

import (
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/xen/abi"
)

// pair is Channels over one end of a socket, whose packets look to Pending and
// Unmask like the device's stream, and the other end.
func pair(t *testing.T) (*Channels, *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	c, far := New(os.NewFile(uintptr(fds[0]), "near")), os.NewFile(uintptr(fds[1]), "far")
	t.Cleanup(func() { c.Close(); far.Close() })
	return c, far
}

func TestPendingAndUnmaskSpeakPortNumbers(t *testing.T) {
	c, far := pair(t)
	if _, err := far.Write([]byte{5, 0, 0, 0, 1, 2, 0, 0}); err != nil {
		t.Fatal(err)
	}
	ports := make([]abi.Port, 4)
	n, err := c.Pending(ports)
	if err != nil || !slices.Equal(ports[:n], []abi.Port{5, 0x201}) {
		t.Fatalf("Pending = %v, %v", ports[:n], err)
	}
	if err := c.Unmask(ports[:n]...); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	n, err = far.Read(buf)
	if err != nil || !slices.Equal(buf[:n], []byte{5, 0, 0, 0, 1, 2, 0, 0}) {
		t.Fatalf("unmask wrote %v, %v", buf[:n], err)
	}
}

func TestCloseEndsPending(t *testing.T) {
	c, _ := pair(t)
	done := make(chan error, 1)
	go func() {
		_, err := c.Pending(make([]abi.Port, 1))
		done <- err
	}()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Fatalf("Pending = %v, want os.ErrClosed", err)
	}
	if err := c.Close(); err != nil {
		t.Fatalf("second Close: %v", err)
	}
}

func TestDeadlineEndsPending(t *testing.T) {
	c, _ := pair(t)
	if err := c.SetDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Pending(make([]abi.Port, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("Pending = %v, want os.ErrDeadlineExceeded", err)
	}
}
