// SPDX-License-Identifier: Apache-2.0

//go:build !cgo

// The process as it is in real use, but for Xen: confined, with memory and
// events shared with this test, which is its guest. A program with cgo cannot
// be confined; run with CGO_ENABLED=0.

package proc_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/backend/confine"
	"github.com/xcontainer/xcontainer/pkg/backend/control"
	"github.com/xcontainer/xcontainer/pkg/backend/proc"
	"github.com/xcontainer/xcontainer/pkg/backend/virtq/virtqtest"
	"github.com/xcontainer/xcontainer/pkg/backend/vsock/vsocktest"
	"github.com/xcontainer/xcontainer/pkg/noxs"
)

const roleEnv = "PROC_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) == "" {
		os.Exit(m.Run())
	}
	if err := backendMain(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func backendMain() error {
	if err := confine.CloseOthers(3); err != nil {
		return err
	}
	conn, err := control.Inherit(os.NewFile(3, "control"))
	if err != nil {
		return err
	}
	return proc.Run(context.Background(), control.NewServer(conn), proc.Options{
		Open: openShared, Confine: confine.Drop,
	})
}

// openShared takes a memory file, a socket for events, and the console's pipe.
func openShared(cfg control.Config, files []*os.File) (proc.Handles, error) {
	mem, err := mapShared(files[0], cfg.Layout)
	if err != nil {
		return proc.Handles{}, err
	}
	files[0].Close()
	c, err := net.FileConn(files[1])
	if err != nil {
		return proc.Handles{}, err
	}
	files[1].Close()
	return proc.Handles{
		Page: mem[:4096], Console: mem[4096:8192], Pool: mem[8192:],
		Events: socketEvents{c}, ConsoleOut: files[2], Disks: files[3:],
	}, nil
}

func mapShared(f *os.File, l noxs.Layout) ([]byte, error) {
	return unix.Mmap(int(f.Fd()), 0, (2+int(l.PoolPages))*4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

// socketEvents sends a byte for an event.
type socketEvents struct{ c net.Conn }

func (e socketEvents) Next(buf []int) ([]int, error) {
	var b [1]byte
	if _, err := e.c.Read(b[:]); err != nil {
		return buf, os.ErrClosed
	}
	return append(buf, int(b[0])), nil
}

func (e socketEvents) Notify(source int) error {
	_, err := e.c.Write([]byte{byte(source)})
	return err
}

func (e socketEvents) Close() error { return e.c.Close() }

// startConfined runs the back-end as a process of its own.
func startConfined(t *testing.T) (*rig, *exec.Cmd) {
	return startConfinedWith(t, noxs.Standard())
}

// startConfinedWith passes disks on; they stay the caller's.
func startConfinedWith(t *testing.T, l noxs.Layout, disks ...*os.File) (*rig, *exec.Cmd) {
	t.Helper()
	for i := range l.Devices {
		l.Devices[i].Port = uint32(10 + i)
	}
	raw, err := noxs.Encode(l, [noxs.SeedSize]byte{})
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.MemfdCreate("domain", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	memory := os.NewFile(uintptr(fd), "domain")
	defer memory.Close()
	if err := memory.Truncate((2 + int64(l.PoolPages)) * 4096); err != nil {
		t.Fatal(err)
	}
	mem, err := mapShared(memory, l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(mem) })
	copy(mem, raw)
	r := &rig{t: t, layout: l, pool: mem[8192:], console: mem[4096:8192], ev: newEvents(), out: &lockedBuffer{}}
	if r.page, err = noxs.NewPage(mem); err != nil {
		t.Fatal(err)
	}
	d := l.Devices[vsockDev]
	r.section = virtqtest.NewSection(r.pool, int(d.SectionOff), int(d.OutPages), int(d.InPages))

	events, theirEvents, err := control.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer theirEvents.Close()
	conn, theirs, err := control.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	consoleR, consoleW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer consoleW.Close()
	go io.Copy(r.out, consoleR)

	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{roleEnv + "=1", "GOMAXPROCS=2", "GOGC=50"}
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: confine.Cloneflags}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.client = control.NewClient(conn)
	t.Cleanup(func() {
		r.client.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("back-end: %v", err)
		}
		if r.guest != nil {
			r.guest.Close()
		}
		events.Close()
		consoleR.Close()
	})
	if err := r.client.Start(ctx(t), control.Config{Layout: l}, append([]*os.File{memory, theirEvents, consoleW}, disks...)...); err != nil {
		t.Fatal(err)
	}
	go r.carry(events)
	return r, cmd
}

// carry moves events between the rig's and the socket.
func (r *rig) carry(c net.Conn) {
	go func() {
		var b [1]byte
		for {
			if n, err := c.Read(b[:]); n != 1 || err != nil {
				return
			}
			r.ev.Notify(int(b[0]))
		}
	}()
	for {
		sources, err := r.ev.Next(nil)
		if err != nil {
			return
		}
		for _, s := range sources {
			if _, err := c.Write([]byte{byte(s)}); err != nil {
				return
			}
		}
	}
}

func TestConfinedProcess(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, cmd := startConfined(t)
	if to, err := os.Readlink(fmt.Sprintf("/proc/%d/root", cmd.Process.Pid)); err == nil && to != "/" {
		t.Errorf("root of the process is %s", to)
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mounts", cmd.Process.Pid)); err != nil || strings.Count(string(b), "\n") != 1 {
		t.Errorf("mounts of the process: %q, %v", b, err)
	}

	r.up()
	r.guest.Listen(5, echo)
	want := randomBytes(20 << 20)
	c := r.dial(5)
	go func() { c.Write(want); c.CloseWrite() }()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
		t.Errorf("echo: %d bytes, %v", len(got), err)
	}

	f, err := os.OpenFile(dir, unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := r.client.AddExport(ctx(t), control.Export{Name: "rootfs", Dir: f}); err != nil {
		t.Fatal(err)
	}
	fs := r.mount()
	root := fs.lookup(1, "rootfs")
	if got := fs.read(fs.lookup(root, "file"), 100); string(got) != "content" {
		t.Errorf("file reads %q", got)
	}
	if err := r.client.RemoveExport(ctx(t), "rootfs"); err != nil {
		t.Error(err)
	}

	rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(rollup)) {
		if strings.HasPrefix(line, "Pss") || strings.HasPrefix(line, "Rss") {
			t.Log(strings.TrimSpace(line))
		}
	}
	st, err := r.client.Stats(ctx(t))
	if err != nil {
		t.Fatal(err)
	}
	if st.ReadBytes != uint64(len("content")) || st.ReadOps != 1 || st.WriteBytes != 0 || st.WriteOps != 0 {
		t.Errorf("one file was read: %+v", st)
	}
	t.Logf("%+v", st)
}

// TestConfinedProcessKilledShim: the process ends when the shim's end closes
// without a word, here in the middle of traffic.
func TestConfinedProcessKilledShim(t *testing.T) {
	r, _ := startConfined(t)
	r.up()
	r.guest.Listen(5, func(c *vsocktest.Conn) { io.Copy(c, c) })
	c := r.dial(5)
	go c.Write(make([]byte, 64<<20))
	io.CopyN(io.Discard, c, 1<<20)
}

// fuse is a guest's file system client, just enough to read a file.
type fuse struct {
	r      *rig
	q      *virtqtest.Driver
	unique uint64
}

// mount starts the file system device and says FUSE_INIT.
func (r *rig) mount() *fuse {
	r.t.Helper()
	if s := r.negotiate(fsDev, noxs.FeaturesOffered); s != 0 {
		r.t.Fatalf("host_status %d", s)
	}
	d := r.layout.Devices[fsDev]
	sec := virtqtest.NewSection(r.pool, int(d.SectionOff), int(d.OutPages), int(d.InPages))
	f := &fuse{r: r}
	for q, num := range d.Queues {
		f.q = sec.NewDriver(int(num), true)
		r.page.DriverSetQueue(fsDev, q, f.q.Block())
	}
	if s := r.request(fsDev, driverOK); s != 0 {
		r.t.Fatalf("host_status %d", s)
	}
	le := binary.LittleEndian
	in := make([]byte, 64) // struct fuse_init_in
	le.PutUint32(in[0:], 7)
	le.PutUint32(in[4:], 38)
	le.PutUint32(in[8:], 1<<20)
	if _, err := f.call(26, 0, in, 64); err != nil {
		r.t.Fatalf("FUSE_INIT: %v", err)
	}
	return f
}

// call makes a request with room for an answer of n bytes.
func (f *fuse) call(opcode uint32, node uint64, body []byte, n int) ([]byte, error) {
	le := binary.LittleEndian
	f.unique++
	h := make([]byte, 40) // struct fuse_in_header
	le.PutUint32(h[0:], uint32(40+len(body)))
	le.PutUint32(h[4:], opcode)
	le.PutUint64(h[8:], f.unique)
	le.PutUint64(h[16:], node)
	if _, err := f.q.Add([][]byte{h, body}, []int{16, n}); err != nil {
		return nil, err
	}
	f.r.ev.kick(fsDev)
	var out []byte
	waitFor(f.r.t, "a file system answer", func() (ok bool) {
		_, out, ok = f.q.Used()
		return ok
	})
	if len(out) < 16 || le.Uint64(out[8:]) != f.unique {
		return nil, errors.New("malformed answer")
	}
	if e := int32(le.Uint32(out[4:])); e != 0 {
		return nil, syscall.Errno(-e)
	}
	return out[16:], nil
}

func (f *fuse) lookup(dir uint64, name string) uint64 {
	f.r.t.Helper()
	out, err := f.call(1, dir, append([]byte(name), 0), 128)
	if err != nil {
		f.r.t.Fatalf("lookup %s: %v", name, err)
	}
	return binary.LittleEndian.Uint64(out)
}

func (f *fuse) read(node uint64, n int) []byte {
	f.r.t.Helper()
	out, err := f.call(14, node, make([]byte, 8), 16)
	if err != nil {
		f.r.t.Fatalf("open: %v", err)
	}
	in := make([]byte, 40) // struct fuse_read_in
	copy(in, out[:8])
	binary.LittleEndian.PutUint32(in[16:], uint32(n))
	data, err := f.call(15, node, in, n)
	if err != nil {
		f.r.t.Fatalf("read: %v", err)
	}
	return data
}
