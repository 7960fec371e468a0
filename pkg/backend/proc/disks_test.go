// SPDX-License-Identifier: Apache-2.0

//go:build !cgo

package proc_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/backend/control"
	"github.com/xcontainer/xcontainer/pkg/backend/proc"
	"github.com/xcontainer/xcontainer/pkg/backend/virtq/virtqtest"
	"github.com/xcontainer/xcontainer/pkg/noxs"
)

const diskSectors = 64

// diskFiles makes files for disks, of which the second is read-only, and their
// layout. The content of each is its number.
func diskFiles(t *testing.T, n int) (noxs.Layout, []*os.File) {
	t.Helper()
	var list []noxs.Disk
	var files []*os.File
	for i := range n {
		path := filepath.Join(t.TempDir(), fmt.Sprint("disk", i))
		if err := os.WriteFile(path, bytes.Repeat([]byte{byte(i + 1)}, diskSectors*512), 0o600); err != nil {
			t.Fatal(err)
		}
		d := noxs.Disk{Sectors: diskSectors, ReadOnly: i == 1}
		flag := os.O_RDWR
		if d.ReadOnly {
			flag = os.O_RDONLY
		}
		f, err := os.OpenFile(path, flag, 0)
		if err != nil {
			t.Fatal(err)
		}
		list, files = append(list, d), append(files, f)
	}
	l, err := noxs.WithDisks(list)
	if err != nil {
		t.Fatal(err)
	}
	return l, files
}

// disk is the guest's driver of one.
type disk struct {
	r   *rig
	dev int
	q   *virtqtest.Driver
}

// disk starts disk n.
func (r *rig) disk(n int) *disk {
	r.t.Helper()
	dev := 2 + n
	d := r.layout.Devices[dev]
	if s := r.negotiate(dev, d.Features); s != 0 {
		r.t.Fatalf("host_status %d", s)
	}
	q := virtqtest.NewSection(r.pool, int(d.SectionOff), int(d.OutPages), int(d.InPages)).NewDriver(int(d.Queues[0]), true)
	r.page.DriverSetQueue(dev, 0, q.Block())
	if s := r.request(dev, driverOK); s != 0 {
		r.t.Fatalf("host_status %d", s)
	}
	return &disk{r: r, dev: dev, q: q}
}

// call makes a request and returns data and status.
func (d *disk) call(kind uint32, sector uint64, data []byte, n int) ([]byte, byte) {
	d.r.t.Helper()
	h := make([]byte, 16)
	binary.LittleEndian.PutUint32(h, kind)
	binary.LittleEndian.PutUint64(h[8:], sector)
	out, in := [][]byte{h}, []int{1}
	if data != nil {
		out = append(out, data)
	}
	if n > 0 {
		in = []int{n, 1}
	}
	if _, err := d.q.Add(out, in); err != nil {
		d.r.t.Fatal(err)
	}
	d.r.ev.kick(d.dev)
	var got []byte
	waitFor(d.r.t, "the disk", func() (ok bool) {
		_, got, ok = d.q.Used()
		return ok
	})
	return got[:len(got)-1], got[len(got)-1]
}

// exercise uses a writable disk of number n in all ways.
func (d *disk) exercise(n int) {
	t := d.r.t
	t.Helper()
	if got, s := d.call(8, 0, nil, 20); s != 0 || strings.TrimRight(string(got), "\x00") != fmt.Sprint("disk", n) {
		t.Errorf("disk %d: id %q, status %d", n, got, s)
	}
	if got, s := d.call(0, 3, nil, 1024); s != 0 || !bytes.Equal(got, bytes.Repeat([]byte{byte(n + 1)}, 1024)) {
		t.Errorf("disk %d: read: status %d", n, s)
	}
	if _, s := d.call(1, 8, bytes.Repeat([]byte{'x'}, 4096), 0); s != 0 {
		t.Errorf("disk %d: write: status %d", n, s)
	}
	if _, s := d.call(4, 0, nil, 0); s != 0 {
		t.Errorf("disk %d: flush: status %d", n, s)
	}
	piece := make([]byte, 16)
	binary.LittleEndian.PutUint64(piece, 16)
	binary.LittleEndian.PutUint32(piece[8:], 8)
	if _, s := d.call(11, 0, piece, 0); s != 0 {
		t.Errorf("disk %d: discard: status %d", n, s)
	}
	binary.LittleEndian.PutUint64(piece, 24)
	if _, s := d.call(13, 0, piece, 0); s != 0 {
		t.Errorf("disk %d: write zeroes: status %d", n, s)
	}
	if got, s := d.call(0, 8, nil, 24*512); s != 0 || !bytes.Equal(got, append(bytes.Repeat([]byte{'x'}, 4096), make([]byte, 8192)...)) {
		t.Errorf("disk %d: read back: status %d", n, s)
	}
}

func TestDisks(t *testing.T) {
	l, files := diskFiles(t, noxs.MaxDisks)
	r := newRigWith(t, l, files...)
	for n := range files {
		d := r.disk(n)
		if n != 1 {
			d.exercise(n)
			continue
		}
		if _, s := d.call(1, 0, make([]byte, 512), 0); s == 0 {
			t.Error("a read-only disk was written")
		}
		if _, s := d.call(0, 0, nil, 512); s != 0 {
			t.Errorf("read of a read-only disk: status %d", s)
		}
	}
	// A second time after a reset, and nothing is left at the end.
	if s := r.request(2, 0); s != 0 {
		t.Errorf("host_status %d after a reset", s)
	}
	if _, s := r.disk(0).call(0, 8, nil, 512); s != 0 {
		t.Errorf("read after a reset: status %d", s)
	}
	if st, err := r.client.Stats(ctx(t)); err != nil || st.ReadOps != 2*(noxs.MaxDisks-1)+2 || st.WriteBytes != (noxs.MaxDisks-1)*4096 {
		t.Errorf("stats %+v, %v", st, err)
	}
	r.client.Close()
	waitFor(t, "the back-end's end", func() bool {
		n := 0
		for _, f := range files {
			n += descriptorsOf(t, f.Name())
		}
		return n == 0
	})
}

// TestConfinedDisk: a confined process may do all that a disk needs.
func TestConfinedDisk(t *testing.T) {
	l, files := diskFiles(t, 1)
	defer files[0].Close()
	r, cmd := startConfinedWith(t, l, files...)
	r.disk(0).exercise(0)
	if to, err := os.Readlink(fmt.Sprintf("/proc/%d/root", cmd.Process.Pid)); err != nil || to != "/" {
		t.Errorf("root of the process is %s, %v", to, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(files[0].Fd()), &st); err != nil || st.Size != diskSectors*512 || st.Blocks >= diskSectors {
		t.Errorf("the file has %d bytes in %d blocks, %v", st.Size, st.Blocks, err)
	}
}

// TestDisksRefused: files and layout must match.
func TestDisksRefused(t *testing.T) {
	l, files := diskFiles(t, 2)
	for name, list := range map[string][]*os.File{"too few": files[:1], "too many": append(files, files[0])} {
		var dups []*os.File
		for _, f := range list {
			fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			dups = append(dups, os.NewFile(uintptr(fd), f.Name()))
		}
		if err := startError(t, l, dups); err == nil || !strings.Contains(err.Error(), "disk") {
			t.Errorf("%s: %v", name, err)
		}
		for _, f := range dups {
			if f.Close() == nil {
				t.Errorf("%s: %s stays open", name, f.Name())
			}
		}
	}
}

// startError is what the shim hears when the back-end cannot start.
func startError(t *testing.T, l noxs.Layout, disks []*os.File) error {
	t.Helper()
	ours, theirs, err := control.Pair()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := control.Inherit(theirs)
	if err != nil {
		t.Fatal(err)
	}
	mem, pool := virtqtest.NewPool(t, 2), virtqtest.NewPool(t, int(l.PoolPages))
	ran := make(chan error, 1)
	go func() {
		ran <- proc.Run(context.Background(), control.NewServer(conn), proc.Options{
			Open: func(control.Config, []*os.File) (proc.Handles, error) {
				return proc.Handles{Page: mem, Pool: pool, Console: mem[4096:], Disks: disks, Events: newEvents(), ConsoleOut: io.Discard}, nil
			},
		})
	}()
	client := control.NewClient(ours)
	err = client.Start(ctx(t), control.Config{Layout: l})
	client.Close()
	<-ran
	return err
}
