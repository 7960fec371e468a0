// SPDX-License-Identifier: Apache-2.0

package proc_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/backend/control"
	"github.com/xcontainer/xcontainer/pkg/backend/proc"
	"github.com/xcontainer/xcontainer/pkg/backend/virtq"
	"github.com/xcontainer/xcontainer/pkg/backend/vsock/vsocktest"
	"github.com/xcontainer/xcontainer/pkg/noxs"
)

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.New(rand.NewSource(int64(n))).Read(b)
	return b
}

func TestEchoThroughEverything(t *testing.T) {
	r := newRig(t)
	if _, err := r.client.Dial(ctx(t), 1024); !errors.Is(err, unix.ENOTCONN) {
		t.Errorf("dial before the driver runs: %v", err)
	}
	r.up()
	if _, err := r.client.Dial(ctx(t), 1024); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("dial to nobody: %v", err)
	}
	r.guest.Listen(1024, echo)
	want := randomBytes(20 << 20)
	c := r.dial(1024)
	go func() { c.Write(want); c.CloseWrite() }()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes of %d, %v", len(got), len(want), err)
	}
	st, err := r.client.Stats(ctx(t))
	if err != nil || st.BytesIn != uint64(len(want)) || st.BytesOut != uint64(len(want)) {
		t.Errorf("stats %+v, %v", st, err)
	}
}

func TestGuestDials(t *testing.T) {
	r := newRig(t)
	r.up()
	if _, err := r.guest.Dial(1); !errors.Is(err, vsocktest.ErrReset) {
		t.Errorf("dial to nobody: %v", err)
	}
	l, err := r.client.Listen(1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.client.Listen(1); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("second listen: %v", err)
	}
	g, err := r.guest.Dial(1)
	if err != nil {
		t.Fatal(err)
	}
	go func() { g.Write([]byte("hello")); g.CloseWrite() }()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); string(b) != "hello" || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
	c.Write([]byte("back"))
	c.Close()
	if b, err := io.ReadAll(g); string(b) != "back" || err != nil {
		t.Errorf("guest read %q, %v", b, err)
	}
	l.Close()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
	if _, err := r.guest.Dial(1); !errors.Is(err, vsocktest.ErrReset) {
		t.Errorf("dial after close: %v", err)
	}
}

// TestBacklog opens more streams than the shim accepts.
func TestBacklog(t *testing.T) {
	r := newRig(t)
	r.up()
	l, err := r.client.Listen(1)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	refused := make(chan bool, 40)
	for range 40 {
		g, err := r.guest.Dial(1)
		if errors.Is(err, vsocktest.ErrReset) { // came with the response
			refused <- true
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, err := g.Read(make([]byte, 1))
			refused <- errors.Is(err, vsocktest.ErrReset)
		}()
	}
	for range 40 - 16 {
		if !<-refused {
			t.Error("a stream beyond the backlog ended without a reset")
		}
	}
}

func TestNegotiation(t *testing.T) {
	r := newRig(t)
	for name, f := range map[string]uint64{
		"none":                    0,
		"without access platform": noxs.FeatureVersion1,
		"not offered":             noxs.FeaturesOffered | 1<<40,
		"bit 0":                   noxs.FeaturesOffered | 1,
	} {
		if s := r.negotiate(vsockDev, f); s != noxs.HostNeedsReset {
			t.Errorf("%s: host_status %d", name, s)
		}
		if s := r.request(vsockDev, driverOK); s != noxs.HostNeedsReset {
			t.Errorf("%s: started all the same", name)
		}
	}
	if s := r.negotiate(vsockDev, noxs.FeaturesRequired); s != 0 {
		t.Errorf("required features only: host_status %d", s)
	}
	if s := r.request(vsockDev, 0); s != 0 {
		t.Errorf("reset: host_status %d", s)
	}
	if s := r.request(vsockDev, driverOK); s != noxs.HostNeedsReset {
		t.Error("started without negotiation after a reset")
	}
	if s := r.request(vsockDev, noxs.StatusFailed); s != 0 {
		t.Errorf("failed: host_status %d", s)
	}
	r.up()
}

func TestBadQueues(t *testing.T) {
	r := newRig(t)
	good := r.section.NewDriver(128, true).Block()
	for name, f := range map[string]func(rx, tx *noxs.QueueBlock){
		"larger than offered": func(rx, _ *noxs.QueueBlock) { rx.Num = 256 },
		"not a power of two":  func(rx, _ *noxs.QueueBlock) { rx.Num = 100 },
		"size 0":              func(rx, _ *noxs.QueueBlock) { rx.Num = 0 },
		"strange ready":       func(rx, _ *noxs.QueueBlock) { rx.Ready = 2 },
		"tx not ready":        func(_, tx *noxs.QueueBlock) { tx.Ready = 0 },
		"in the other's part": func(rx, _ *noxs.QueueBlock) { rx.Desc = 400 * 4096 },
		"in the in pages":     func(rx, _ *noxs.QueueBlock) { rx.Used = 200 * 4096 },
		"past the pool":       func(rx, _ *noxs.QueueBlock) { rx.Avail = 0xfffffffe },
	} {
		if s := r.negotiate(vsockDev, noxs.FeaturesOffered); s != 0 {
			t.Fatalf("host_status %d", s)
		}
		rx, tx := good, good
		f(&rx, &tx)
		r.page.DriverSetQueue(vsockDev, 0, rx)
		r.page.DriverSetQueue(vsockDev, 1, tx)
		if s := r.request(vsockDev, driverOK); s != noxs.HostNeedsReset {
			t.Errorf("%s: host_status %d", name, s)
		}
	}
	r.up()
}

// TestBrokenRing ends the process, with a reason, and leaves the page behind as
// docs/noxs.md 4 says.
func TestBrokenRing(t *testing.T) {
	r := newRig(t)
	r.upBare()
	r.queues[1].SetAvail(1000)
	r.ev.kick(vsockDev)
	<-r.client.Done()
	if err := r.client.Err(); err == nil || !strings.Contains(err.Error(), "rules broken by the guest") {
		t.Errorf("the shim hears %v", err)
	}
	if err := <-r.ran; !errors.Is(err, virtq.ErrGuest) {
		t.Errorf("run: %v", err)
	}
	r.ran <- nil
	if s := r.page.HostStatus(vsockDev); s != noxs.HostNeedsReset {
		t.Errorf("host_status %d", s)
	}
}

func TestResetUnderLoad(t *testing.T) {
	r := newRig(t)
	zeros := make([]byte, 32<<20)
	for range 10 {
		r.up()
		accepted := make(chan *vsocktest.Conn, 4)
		r.guest.Listen(5, func(c *vsocktest.Conn) { accepted <- c })
		var wg sync.WaitGroup
		for range 4 {
			c := r.dial(5)
			g := <-accepted
			wg.Add(4)
			go func() { defer wg.Done(); io.Copy(io.Discard, g) }()
			go func() { defer wg.Done(); g.Write(zeros) }()
			go func() { defer wg.Done(); c.Write(zeros) }()
			go func() { defer wg.Done(); io.Copy(io.Discard, c) }()
		}
		r.down()
		wg.Wait()
	}
	// A stream's ends hear of it before it is counted out.
	waitFor(t, "no stream to be left", func() bool {
		st, err := r.client.Stats(ctx(t))
		if err != nil {
			t.Fatal(err)
		}
		return st.Streams == 0
	})
}

func TestGuestState(t *testing.T) {
	r := newRig(t)
	for _, v := range []uint32{noxs.GuestUp, 77, noxs.GuestBooting, noxs.GuestReboot, noxs.GuestUp, noxs.GuestPowerOff} {
		r.page.DriverSetGuestState(v)
		r.ev.kick(proc.Doorbell)
	}
	// Only the last is sure to be seen; what is seen goes up.
	last := uint32(0)
	for last != noxs.GuestPowerOff {
		v := <-r.client.GuestState()
		if v <= last || v > noxs.GuestPowerOff {
			t.Fatalf("state %d after %d", v, last)
		}
		last = v
	}
}

func TestConsole(t *testing.T) {
	r := newRig(t)
	put := func(s string) {
		prod := binary.LittleEndian.Uint32(r.console[3084:])
		for i := range len(s) {
			r.console[1024+(prod+uint32(i))%2048] = s[i]
		}
		binary.LittleEndian.PutUint32(r.console[3084:], prod+uint32(len(s)))
	}
	put("Linux version\n")
	r.ev.kick(proc.Console)
	waitFor(t, "the console", func() bool { return r.out.String() == "Linux version\n" })
	put("Kernel panic\n") // and no event
	r.client.Drain()
	if got := r.out.String(); got != "Linux version\nKernel panic\n" {
		t.Errorf("console %q", got)
	}
}

func TestExports(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, path string
		want       error
	}{
		{"c/rootfs", dir, nil},
		{"c/hosts", file, nil},
		{"c/rootfs", dir, unix.EEXIST},
		{"c", dir, unix.EEXIST},
		{"../c", dir, unix.EINVAL},
		{strings.Repeat("n", 300), dir, unix.ENAMETOOLONG},
	} {
		f, err := os.OpenFile(c.path, unix.O_PATH, 0)
		if err != nil {
			t.Fatal(err)
		}
		err = r.client.AddExport(ctx(t), control.Export{Name: c.name, Dir: f})
		f.Close()
		if !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
			t.Errorf("add %q: %v, want %v", c.name, err, c.want)
		}
	}
	if err := r.client.RemoveExport(ctx(t), "c/rootfs"); err != nil {
		t.Error(err)
	}
	if err := r.client.RemoveExport(ctx(t), "c/rootfs"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("second removal: %v", err)
	}
	if n := descriptorsOf(t, dir); n != 0 {
		t.Errorf("%d descriptors of the removed export are left", n)
	}
	if n := descriptorsOf(t, file); n != 1 {
		t.Errorf("%d descriptors of the other export", n)
	}
}

// descriptorsOf counts this process's descriptors of a path; the test is shim
// and back-end in one.
func descriptorsOf(t *testing.T, path string) (n int) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, _ := os.Readlink("/proc/self/fd/" + e.Name()); to == path {
			n++
		}
	}
	return n
}
