// SPDX-License-Identifier: Apache-2.0

package virtiofs_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/backend/vfs"
	"github.com/xcontainer/xcontainer/pkg/backend/vfs/vfstest"
	"github.com/xcontainer/xcontainer/pkg/backend/virtio"
	"github.com/xcontainer/xcontainer/pkg/backend/virtiofs"
	"github.com/xcontainer/xcontainer/pkg/backend/virtq"
	"github.com/xcontainer/xcontainer/pkg/backend/virtq/virtqtest"
)

// The section of docs/noxs.md 7.
const (
	outPages, inPages = 208, 208
	hiprioNum         = 16
	requestNum        = 128
	dataPages         = requestNum - 4
)

// slot is where the reply to a request goes.
type slot struct {
	done bool
	data []byte
}

// guest is a driver that waits for each reply.
type guest struct {
	vfstest.Client
	dev    virtio.Device
	hiprio *virtqtest.Driver
	queue  *virtqtest.Driver
	queues []*virtq.Queue
	failed chan error

	mu     sync.Mutex
	cond   *sync.Cond
	events int
	slots  map[uint16]*slot // by head, which is free again once used
}

func newGuest(t *testing.T, pool []byte, dev virtio.Device) *guest {
	t.Helper()
	sec := virtqtest.NewSection(pool, 0, outPages, inPages)
	g := &guest{dev: dev, failed: make(chan error, 1), slots: map[uint16]*slot{}}
	g.cond = sync.NewCond(&g.mu)
	g.hiprio, g.queue = sec.NewDriver(hiprioNum, true), sec.NewDriver(requestNum, true)
	for _, d := range []*virtqtest.Driver{g.hiprio, g.queue} {
		q, err := virtq.New(pool, d.Config())
		if err != nil {
			t.Fatal(err)
		}
		g.queues = append(g.queues, q)
	}
	env := virtio.Env{
		Notify: func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.events++
			g.cond.Broadcast()
		},
		Fail: func(err error) { g.failed <- err },
	}
	if err := dev.Start(g.queues, 0, env); err != nil {
		t.Fatal(err)
	}
	dev.Kick()
	g.Do = g.call
	return g
}

func (g *guest) stop() {
	for _, q := range g.queues {
		q.Stop()
	}
	g.dev.Stop()
}

// call posts one request and waits for its reply; others may be under way.
func (g *guest) call(in, out [][]byte) int {
	var sizes []int
	for _, b := range out {
		sizes = append(sizes, len(b))
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	head, err := g.queue.Add(in, sizes)
	for errors.Is(err, virtqtest.ErrNoSpace) {
		g.cond.Wait()
		g.reap()
		head, err = g.queue.Add(in, sizes)
	}
	if g.queue.NeedKick() {
		g.dev.Kick()
	}
	mine := &slot{}
	g.slots[head] = mine
	for {
		g.reap()
		if mine.done {
			n := 0
			for _, b := range out {
				n += copy(b, mine.data[n:])
			}
			return n
		}
		if !g.queue.Arm() {
			g.cond.Wait()
		}
	}
}

func (g *guest) reap() {
	for {
		head, data, ok := g.queue.Used()
		if !ok {
			return
		}
		*g.slots[head] = slot{true, data}
		delete(g.slots, head)
		g.cond.Broadcast()
	}
}

func newDevice(t *testing.T, dir string) (*virtiofs.Device, *vfs.FS) {
	t.Helper()
	fs, err := vfs.New(vfs.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fs.Close() })
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := fs.Add("root", os.NewFile(uintptr(fd), dir), vfs.PrivateOptions()); err != nil {
		t.Fatal(err)
	}
	return virtiofs.New(vfs.NewServer(fs, dataPages, t.Logf)), fs
}

func TestLargestTransfer(t *testing.T) {
	dir := t.TempDir()
	dev, _ := newDevice(t, dir)
	g := newGuest(t, virtqtest.NewPool(t, outPages+inPages), dev)
	defer g.stop()
	_, maxWrite, err := g.Mount()
	if err != nil || maxWrite != dataPages*4096 {
		t.Fatalf("max_write %d, %v", maxWrite, err)
	}
	root, err := g.Walk("root")
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, maxWrite)
	for i := range want {
		want[i] = byte(i * 7 >> 3)
	}
	file, fh, err := g.CreateFile(root.Node, "f", unix.O_RDWR, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := g.WriteAt(file.Node, fh, 0, want, 0); err != nil || n != maxWrite {
		t.Fatalf("wrote %d, %v", n, err)
	}
	got, err := g.ReadAt(file.Node, fh, 0, maxWrite)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read %d bytes, %v, equal %v", len(got), err, bytes.Equal(got, want))
	}
	if got, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("host has %d bytes, %v", len(got), err)
	}
}

func TestParallelFiles(t *testing.T) {
	dir := t.TempDir()
	dev, fs := newDevice(t, dir)
	g := newGuest(t, virtqtest.NewPool(t, outPages+inPages), dev)
	defer g.stop()
	if _, _, err := g.Mount(); err != nil {
		t.Fatal(err)
	}
	root, err := g.Walk("root")
	if err != nil {
		t.Fatal(err)
	}
	one := func(i int) error {
		name, want := fmt.Sprint("f", i), bytes.Repeat([]byte{byte(i)}, 3*4096+i)
		e, fh, err := g.CreateFile(root.Node, name, unix.O_RDWR, 0o644)
		if err != nil {
			return err
		}
		if _, err := g.WriteAt(e.Node, fh, 0, want, 0); err != nil {
			return err
		}
		got, err := g.ReadAt(e.Node, fh, 0, 8*4096)
		if err != nil || !bytes.Equal(got, want) {
			return fmt.Errorf("%s: read %d bytes, %v", name, len(got), err)
		}
		if err := g.Close(vfstest.Release, e.Node, fh); err != nil {
			return err
		}
		_, err = g.Call(vfstest.Unlink, root.Node, 0, vfstest.Name(name))
		return err
	}
	errs := make(chan error)
	for i := range 32 {
		go func() {
			for range 20 {
				if err := one(i); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range 32 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if list, err := g.List(root.Node); err != nil || len(list) != 2 {
		t.Errorf("left: %v, %v", list, err)
	}
	_ = fs
}

func TestForgetByHiprio(t *testing.T) {
	dev, _ := newDevice(t, t.TempDir())
	g := newGuest(t, virtqtest.NewPool(t, outPages+inPages), dev)
	defer g.stop()
	if _, _, err := g.Mount(); err != nil {
		t.Fatal(err)
	}
	root, err := g.Walk("root")
	if err != nil {
		t.Fatal(err)
	}
	e, fh, err := g.CreateFile(root.Node, "f", unix.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Close(vfstest.Release, e.Node, fh); err != nil {
		t.Fatal(err)
	}
	req := append(g.Header(vfstest.Forget, 99, e.Node, 48), vfstest.U64(1)...)
	g.mu.Lock()
	if _, err := g.hiprio.Add([][]byte{req}, nil); err != nil {
		t.Fatal(err)
	}
	g.mu.Unlock()
	dev.Kick()
	for {
		g.mu.Lock()
		_, data, ok := g.hiprio.Used()
		g.mu.Unlock()
		if ok {
			if len(data) != 0 {
				t.Errorf("forget has a reply of %d bytes", len(data))
			}
			break
		}
		runtime.Gosched()
	}
	if _, err := g.Call(vfstest.Getattr, e.Node, 104, vfstest.U64(0, 0)); !errors.Is(err, unix.ESTALE) {
		t.Errorf("forgotten node: %v", err)
	}
}

// TestRemount resets the device with files open and mounts again.
func TestRemount(t *testing.T) {
	pool := virtqtest.NewPool(t, outPages+inPages)
	dev, fs := newDevice(t, t.TempDir())
	for range 3 {
		g := newGuest(t, pool, dev)
		if _, _, err := g.Mount(); err != nil {
			t.Fatal(err)
		}
		root, err := g.Walk("root")
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := g.CreateFile(root.Node, "f", unix.O_RDWR, 0o644); err != nil {
			t.Fatal(err)
		}
		if fs.Descriptors() == 0 {
			t.Error("no descriptor for an open file")
		}
		g.stop()
		if n := fs.Descriptors(); n != 0 {
			t.Errorf("%d descriptors after a reset", n)
		}
	}
}

func TestBrokenRing(t *testing.T) {
	dev, _ := newDevice(t, t.TempDir())
	g := newGuest(t, virtqtest.NewPool(t, outPages+inPages), dev)
	g.mu.Lock()
	g.queue.Publish(requestNum + 1)
	g.mu.Unlock()
	dev.Kick()
	if err := <-g.failed; !errors.Is(err, virtq.ErrGuest) {
		t.Errorf("reported %v", err)
	}
	g.stop()
}

func TestStartWithoutRequestQueue(t *testing.T) {
	dev, _ := newDevice(t, t.TempDir())
	for _, queues := range [][]*virtq.Queue{nil, {nil, nil}} {
		if err := dev.Start(queues, 0, virtio.Env{}); err == nil {
			t.Errorf("%d queues: started", len(queues))
		}
	}
	dev.Kick()
	dev.Stop()
}
