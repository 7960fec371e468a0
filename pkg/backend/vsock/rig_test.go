// SPDX-License-Identifier: Apache-2.0

package vsock_test

import (
	"context"
	"net"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/backend/virtio"
	"github.com/xcontainer/xcontainer/pkg/backend/virtq"
	"github.com/xcontainer/xcontainer/pkg/backend/virtq/virtqtest"
	"github.com/xcontainer/xcontainer/pkg/backend/vsock"
	"github.com/xcontainer/xcontainer/pkg/backend/vsock/vsocktest"
)

// rig is a device and a guest on one section, sized as docs/noxs.md 7 says.
type rig struct {
	t     *testing.T
	d     *vsock.Device
	sec   *virtqtest.Section
	pool  []byte
	g     *vsocktest.Guest
	rx    *virtqtest.Driver
	tx    *virtqtest.Driver
	q     []*virtq.Queue
	fails chan error

	mu     sync.Mutex
	notify func()
}

func newRig(t *testing.T) *rig {
	pool := virtqtest.NewPool(t, 400)
	r := &rig{t: t, d: vsock.New(), pool: pool, sec: virtqtest.NewSection(pool, 0, 128, 272), fails: make(chan error, 8)}
	t.Cleanup(func() {
		r.down()
		select {
		case err := <-r.fails:
			t.Errorf("device failed: %v", err)
		default:
		}
	})
	return r
}

// start brings the device up, with a Guest unless bare.
func (r *rig) start(bare bool) {
	r.t.Helper()
	r.rx, r.tx = r.sec.NewDriver(128, true), r.sec.NewDriver(128, true)
	r.q = nil
	for _, d := range []*virtqtest.Driver{r.rx, r.tx} {
		q, err := virtq.New(r.pool, d.Config())
		if err != nil {
			r.t.Fatal(err)
		}
		r.q = append(r.q, q)
	}
	env := virtio.Env{
		Notify: func() {
			r.mu.Lock()
			f := r.notify
			r.mu.Unlock()
			if f != nil {
				f()
			}
		},
		Fail: func(err error) { r.fails <- err },
	}
	if err := r.d.Start(append(r.q, nil), 0, env); err != nil {
		r.t.Fatal(err)
	}
	if !bare {
		g := vsocktest.New(r.rx, r.tx, r.d.Kick)
		r.mu.Lock()
		r.g, r.notify = g, g.Interrupt
		r.mu.Unlock()
		g.Interrupt()
	}
}

// down does what the event loop does at a reset.
func (r *rig) down() {
	for _, q := range r.q {
		q.Stop()
	}
	r.d.Stop()
	if r.g != nil {
		r.g.Close()
		r.g = nil
	}
	if r.rx != nil {
		r.rx.Close()
		r.tx.Close()
		r.rx = nil
	}
}

// accept listens on a guest port and returns what arrives.
func (r *rig) accept(port uint32) <-chan *vsocktest.Conn {
	c := make(chan *vsocktest.Conn, 100)
	r.g.Listen(port, func(conn *vsocktest.Conn) { c <- conn })
	return c
}

func (r *rig) dial(port uint32) *vsock.Conn {
	r.t.Helper()
	c, err := r.d.Dial(context.Background(), port)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// bridged dials the guest and returns the socket that the shim would hold.
func (r *rig) bridged(port uint32, done *sync.WaitGroup) *net.UnixConn {
	r.t.Helper()
	ours, theirs := socketpair(r.t)
	c := r.dial(port)
	done.Add(1)
	go func() {
		defer done.Done()
		vsock.Bridge(c, ours)
	}()
	return theirs
}

func socketpair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var c [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		conn, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		c[i] = conn.(*net.UnixConn)
		t.Cleanup(func() { conn.Close() })
	}
	return c[0], c[1]
}
