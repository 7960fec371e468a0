// SPDX-License-Identifier: Apache-2.0

package virtioblk_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/backend/iovec"
	"github.com/xcontainer/xcontainer/pkg/backend/virtio"
	"github.com/xcontainer/xcontainer/pkg/backend/virtioblk"
	"github.com/xcontainer/xcontainer/pkg/backend/virtq"
	"github.com/xcontainer/xcontainer/pkg/backend/virtq/virtqtest"
	"github.com/xcontainer/xcontainer/pkg/noxs"
)

const (
	sectors = 2048 // of the disk: 1 MiB
	tail    = 4096 // bytes of the file behind the disk's end
)

// The requests of virtio 1.2, 5.2.6.
const (
	typeIn, typeOut, typeFlush, typeGetID  = 0, 1, 4, 8
	typeDiscard, typeWriteZeroes           = 11, 13
	statusOK, statusIOErr, statusUnsupport = 0, 1, 2
)

// guest is a driver of one disk that waits for each reply; several may do so at
// once.
type guest struct {
	t      *testing.T
	path   string
	dev    *virtioblk.Device
	queue  *virtq.Queue
	driver *virtqtest.Driver
	failed chan error

	mu    sync.Mutex
	cond  *sync.Cond
	slots map[uint16]*[]byte
}

// newGuest starts a disk on a file of its own, which is longer than the disk.
func newGuest(t *testing.T, readOnly bool) *guest {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, content(), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	decl := noxs.Disk{Sectors: sectors, ReadOnly: readOnly}
	l, err := noxs.WithDisks([]noxs.Disk{decl})
	if err != nil {
		t.Fatal(err)
	}
	dev, err := virtioblk.New(f, "disk7", decl)
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{t: t, path: path, dev: dev, failed: make(chan error, 1)}
	g.cond = sync.NewCond(&g.mu)
	g.start(l.Devices[2].Features)
	t.Cleanup(func() {
		g.stop()
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// content is random, and 0xee behind the disk's end.
func content() []byte {
	b := make([]byte, sectors*512+tail)
	rand.New(rand.NewSource(1)).Read(b)
	for i := sectors * 512; i < len(b); i++ {
		b[i] = 0xee
	}
	return b
}

func (g *guest) start(features uint64) {
	g.t.Helper()
	pool := virtqtest.NewPool(g.t, 256)
	g.driver = virtqtest.NewSection(pool, 0, 128, 128).NewDriver(noxs.DiskQueueNum, true)
	g.slots = map[uint16]*[]byte{}
	var err error
	if g.queue, err = virtq.New(pool, g.driver.Config()); err != nil {
		g.t.Fatal(err)
	}
	env := virtio.Env{
		Notify: func() { g.mu.Lock(); defer g.mu.Unlock(); g.cond.Broadcast() },
		Fail:   func(err error) { g.failed <- err },
	}
	if err := g.dev.Start([]*virtq.Queue{g.queue}, features, env); err != nil {
		g.t.Fatal(err)
	}
	g.dev.Kick()
}

func (g *guest) stop() {
	g.queue.Stop()
	g.dev.Stop()
}

// call posts one request as it is and returns what the device wrote.
func (g *guest) call(out [][]byte, in ...int) []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	head, err := g.driver.Add(out, in)
	for errors.Is(err, virtqtest.ErrNoSpace) {
		g.wait()
		head, err = g.driver.Add(out, in)
	}
	if g.driver.NeedKick() {
		g.dev.Kick()
	}
	mine := new([]byte)
	g.slots[head] = mine
	for *mine == nil {
		g.wait()
	}
	return *mine
}

// wait takes what the device has used, or waits for its event.
func (g *guest) wait() {
	any := false
	for {
		head, data, ok := g.driver.Used()
		if !ok {
			break
		}
		any = true
		*g.slots[head] = data
		delete(g.slots, head)
	}
	if any {
		g.cond.Broadcast()
	} else if !g.driver.Arm() {
		g.cond.Wait()
	}
}

func header(kind uint32, sector uint64) []byte {
	h := make([]byte, 16)
	binary.LittleEndian.PutUint32(h, kind)
	binary.LittleEndian.PutUint64(h[8:], sector)
	return h
}

func rangeOf(sector uint64, n, flags uint32) []byte {
	b := make([]byte, 16)
	binary.LittleEndian.PutUint64(b, sector)
	binary.LittleEndian.PutUint32(b[8:], n)
	binary.LittleEndian.PutUint32(b[12:], flags)
	return b
}

// status makes a request without data to the guest.
func (g *guest) status(parts ...[]byte) byte {
	g.t.Helper()
	got := g.call(parts, 1)
	if len(got) != 1 {
		g.t.Fatalf("%d bytes of status", len(got))
	}
	return got[0]
}

func (g *guest) read(sector uint64, in ...int) (data []byte, status byte) {
	got := g.call([][]byte{header(typeIn, sector)}, append(in, 1)...)
	return got[:len(got)-1], got[len(got)-1]
}

// file is what the host has, which must be as long as ever.
func (g *guest) file() []byte {
	g.t.Helper()
	b, err := os.ReadFile(g.path)
	if err != nil {
		g.t.Fatal(err)
	}
	if len(b) != sectors*512+tail || !bytes.Equal(b[sectors*512:], content()[sectors*512:]) {
		g.t.Error("the file behind the disk's end has changed")
	}
	return b
}

func TestReadWrite(t *testing.T) {
	g := newGuest(t, false)
	want := content()
	if got, s := g.read(3, 4096, 512, 1024); s != statusOK || !bytes.Equal(got, want[3*512:3*512+5632]) {
		t.Errorf("read: status %d", s)
	}
	data := bytes.Repeat([]byte("0123456789abcdef"), 5632/16)
	if s := g.status(header(typeOut, 5), data[:4096], data[4096:]); s != statusOK {
		t.Errorf("write: status %d", s)
	}
	copy(want[5*512:], data)
	if s := g.status(header(typeFlush, 0)); s != statusOK {
		t.Errorf("flush: status %d", s)
	}
	if !bytes.Equal(g.file(), want) {
		t.Error("the file does not hold what was written")
	}
	st := g.dev.Stats()
	if st != (iovec.IO{ReadOps: 1, ReadBytes: 5632, WriteOps: 1, WriteBytes: 5632}) {
		t.Errorf("stats %+v", st)
	}
}

// TestLayouts: a driver may cut a request into segments as it likes (virtio
// 1.2, 2.7.4.2).
func TestLayouts(t *testing.T) {
	g := newGuest(t, false)
	data := bytes.Repeat([]byte{7}, 512)
	h := header(typeOut, 9)
	if s := g.status(append(append([]byte{}, h...), data...)); s != statusOK {
		t.Errorf("header and data in one: status %d", s)
	}
	if s := g.status(h[:5], h[5:15], append([]byte{h[15]}, data[:100]...), data[100:]); s != statusOK {
		t.Errorf("header in pieces: status %d", s)
	}
	got := g.call([][]byte{header(typeIn, 9)}, 512+1)
	if len(got) != 513 || got[512] != statusOK || !bytes.Equal(got[:512], data) {
		t.Errorf("status behind the data: %d bytes, status %d", len(got), got[len(got)-1])
	}
}

func TestGetID(t *testing.T) {
	g := newGuest(t, true)
	got := g.call([][]byte{header(typeGetID, 0)}, 20, 1)
	if string(got) != "disk7"+string(make([]byte, 16)) {
		t.Errorf("id %q", got)
	}
	if got := g.call([][]byte{header(typeGetID, 0)}, 3, 1); string(got) != "dis\x00" {
		t.Errorf("short id %q", got)
	}
}

func TestDiscardAndZeroes(t *testing.T) {
	g := newGuest(t, false)
	blocks := func() int64 {
		var st unix.Stat_t
		if err := unix.Stat(g.path, &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks
	}
	before := blocks()
	want := content()
	zero := func(from, n int) { clear(want[from*512 : (from+n)*512]) }
	for _, c := range []struct {
		kind     uint32
		list     []byte
		status   byte
		from, n  int
		from2, m int
	}{
		{typeWriteZeroes, rangeOf(3, 2, 0), statusOK, 3, 2, 0, 0},
		{typeWriteZeroes, rangeOf(8, 8, 1), statusOK, 8, 8, 0, 0},
		{typeDiscard, append(rangeOf(64, 512, 0), rangeOf(1024, 1024, 0)...), statusOK, 64, 512, 1024, 1024},
		{typeDiscard, rangeOf(0, 8, 1), statusUnsupport, 0, 0, 0, 0},
		{typeWriteZeroes, rangeOf(0, 8, 2), statusUnsupport, 0, 0, 0, 0},
		{typeDiscard, rangeOf(0, 0, 0), statusIOErr, 0, 0, 0, 0},
		{typeDiscard, rangeOf(sectors-1, 2, 0), statusIOErr, 0, 0, 0, 0},
		{typeDiscard, rangeOf(^uint64(0), 1, 0), statusIOErr, 0, 0, 0, 0},
		{typeDiscard, rangeOf(1<<55, 8, 0), statusIOErr, 0, 0, 0, 0},
		{typeDiscard, rangeOf(0, noxs.DiskDiscardSectors+1, 0), statusIOErr, 0, 0, 0, 0},
		{typeWriteZeroes, rangeOf(0, noxs.DiskZeroSectors+1, 0), statusIOErr, 0, 0, 0, 0},
		{typeWriteZeroes, append(rangeOf(0, 8, 0), rangeOf(8, 8, 0)...), statusIOErr, 0, 0, 0, 0},
		{typeDiscard, append(rangeOf(16, 8, 0), 1), statusIOErr, 0, 0, 0, 0},
		// One bad range, and none is carried out.
		{typeDiscard, append(rangeOf(16, 8, 0), rangeOf(sectors, 1, 0)...), statusIOErr, 0, 0, 0, 0},
		{typeDiscard, make([]byte, 16*(noxs.DiskDiscardSegs+1)), statusIOErr, 0, 0, 0, 0},
	} {
		if s := g.status(header(c.kind, 0), c.list); s != c.status {
			t.Errorf("type %d, ranges % x: status %d, want %d", c.kind, c.list, s, c.status)
		}
		zero(c.from, c.n)
		zero(c.from2, c.m)
		if !bytes.Equal(g.file(), want) {
			t.Fatalf("type %d, ranges % x: wrong content", c.kind, c.list)
		}
	}
	if s := g.status(header(typeDiscard, 0)); s != statusIOErr {
		t.Errorf("discard without ranges: status %d", s)
	}
	if after := blocks(); after > before-1400 {
		t.Errorf("the file has %d blocks, had %d", after, before)
	}
}

func TestRefuses(t *testing.T) {
	g := newGuest(t, false)
	sector := make([]byte, 512)
	for name, c := range map[string]struct {
		out  [][]byte
		in   []int
		want byte
	}{
		"short header":          {[][]byte{make([]byte, 15)}, []int{512, 1}, statusIOErr},
		"no header":             {nil, []int{512, 1}, statusIOErr},
		"read nothing":          {[][]byte{header(typeIn, 0)}, []int{1}, statusIOErr},
		"read no sector":        {[][]byte{header(typeIn, 0)}, []int{511, 1}, statusIOErr},
		"read behind the end":   {[][]byte{header(typeIn, sectors)}, []int{512, 1}, statusIOErr},
		"read over the end":     {[][]byte{header(typeIn, sectors-1)}, []int{1024, 1}, statusIOErr},
		"read far away":         {[][]byte{header(typeIn, ^uint64(0))}, []int{512, 1}, statusIOErr},
		"read, offset wraps":    {[][]byte{header(typeIn, 1<<55)}, []int{512, 1}, statusIOErr},
		"read, offset negative": {[][]byte{header(typeIn, 1<<54)}, []int{512, 1}, statusIOErr},
		"read too much":         {[][]byte{header(typeIn, 0)}, []int{63 * 4096, 1}, statusIOErr},
		"write nothing":         {[][]byte{header(typeOut, 0)}, []int{1}, statusIOErr},
		"write no sector":       {[][]byte{header(typeOut, 0), sector[:100]}, []int{1}, statusIOErr},
		"write over the end":    {[][]byte{header(typeOut, sectors-1), sector, sector}, []int{1}, statusIOErr},
		"write behind the end":  {[][]byte{header(typeOut, sectors), sector}, []int{1}, statusIOErr},
		"write too much":        {[][]byte{header(typeOut, 0), make([]byte, 63*4096)}, []int{1}, statusIOErr},
		"unknown":               {[][]byte{header(99, 0)}, []int{1}, statusUnsupport},
		"secure erase":          {[][]byte{header(14, 0), rangeOf(0, 8, 0)}, []int{1}, statusUnsupport},
	} {
		got := g.call(c.out, c.in...)
		if s := got[len(got)-1]; s != c.want {
			t.Errorf("%s: status %d, want %d", name, s, c.want)
		}
		// The first byte may be the status of an earlier request.
		if len(got) > 100 && bytes.Contains(content(), got[1:17]) {
			t.Errorf("%s: data came along", name)
		}
	}
	if !bytes.Equal(g.file(), content()) {
		t.Error("the file has changed")
	}
}

func TestReadOnly(t *testing.T) {
	g := newGuest(t, true)
	for name, parts := range map[string][][]byte{
		"write":   {header(typeOut, 0), make([]byte, 512)},
		"discard": {header(typeDiscard, 0), rangeOf(0, 8, 0)},
		"zeroes":  {header(typeWriteZeroes, 0), rangeOf(0, 8, 0)},
	} {
		if s := g.status(parts...); s == statusOK {
			t.Errorf("%s succeeds", name)
		}
	}
	if got, s := g.read(0, 512); s != statusOK || !bytes.Equal(got, content()[:512]) {
		t.Errorf("read: status %d", s)
	}
	if !bytes.Equal(g.file(), content()) {
		t.Error("the file has changed")
	}
}

// TestNotNegotiated: what the driver did not choose it does not get.
func TestNotNegotiated(t *testing.T) {
	g := newGuest(t, false)
	g.stop()
	g.start(noxs.FeaturesOffered)
	for name, parts := range map[string][][]byte{
		"flush":   {header(typeFlush, 0)},
		"discard": {header(typeDiscard, 0), rangeOf(0, 8, 0)},
		"zeroes":  {header(typeWriteZeroes, 0), rangeOf(0, 8, 0)},
	} {
		if s := g.status(parts...); s != statusUnsupport {
			t.Errorf("%s: status %d", name, s)
		}
	}
	if s := g.status(header(typeOut, 0), make([]byte, 512)); s != statusOK {
		t.Errorf("write: status %d", s)
	}
}

// TestShrunkFile: what is no longer there is an error, not old data.
func TestShrunkFile(t *testing.T) {
	g := newGuest(t, false)
	if err := os.Truncate(g.path, 1024); err != nil {
		t.Fatal(err)
	}
	if _, s := g.read(1, 1024); s != statusIOErr {
		t.Errorf("status %d", s)
	}
	if err := os.WriteFile(g.path, content(), 0); err != nil {
		t.Fatal(err)
	}
}

func TestNoStatus(t *testing.T) {
	g := newGuest(t, false)
	g.mu.Lock()
	if _, err := g.driver.Add([][]byte{header(typeFlush, 0)}, nil); err != nil {
		t.Fatal(err)
	}
	g.mu.Unlock()
	g.dev.Kick()
	if err := <-g.failed; !errors.Is(err, virtq.ErrGuest) {
		t.Errorf("error %v", err)
	}
}

// TestParallel: many requests at once, each its own sectors, then a stop in the
// middle of more.
func TestParallel(t *testing.T) {
	g := newGuest(t, false)
	want := content()
	var wg sync.WaitGroup
	for i := range 16 {
		data := bytes.Repeat([]byte{byte(i + 1)}, 16*512)
		copy(want[i*16*512:], data)
		wg.Go(func() {
			for range 50 {
				if s := g.status(header(typeOut, uint64(i*16)), data[:4096], data[4096:]); s != statusOK {
					t.Errorf("write: status %d", s)
				}
				if got, s := g.read(uint64(i*16), 16*512); s != statusOK || !bytes.Equal(got, data) {
					t.Errorf("read: status %d", s)
				}
			}
		})
	}
	wg.Wait()
	if !bytes.Equal(g.file(), want) {
		t.Error("wrong content")
	}
	g.mu.Lock()
	for range 30 {
		if _, err := g.driver.Add([][]byte{header(typeIn, 0)}, []int{4096, 1}); err != nil {
			t.Fatal(err)
		}
	}
	g.mu.Unlock()
	g.dev.Kick()
	g.stop() // waits for what is under way
	g.start(noxs.FeaturesOffered)
}

func TestNewRefuses(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := virtioblk.New(r, "disk0", noxs.Disk{Sectors: 8}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a pipe: %v", err)
	}
	if err := r.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the refused file stays open: %v", err)
	}
}
