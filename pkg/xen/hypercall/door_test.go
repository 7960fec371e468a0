// SPDX-License-Identifier: Apache-2.0

package hypercall

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/xen/abi"
)

// fakeXen answers hypercalls at the level of bytes.
type fakeXen struct {
	*testing.T
	door    *Door
	domctl  uint32 // the interface version it speaks
	version uint64
	calls   []privcmdCall
	// answer is called for anything but version questions, with the memory
	// that the first pointer argument points to.
	answer func(c *privcmdCall, mem []byte) (uint64, error)
}

func newFake(t *testing.T) *fakeXen {
	t.Helper()
	fd, err := unix.MemfdCreate("arena", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, slotSize*slotCount); err != nil {
		t.Fatal(err)
	}
	bufs, err := newArena(fd)
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	x := &fakeXen{T: t, domctl: 0x15, version: 4<<16 | 17}
	x.door = &Door{privcmd: null, bufs: bufs, raw: x.call}
	x.door.version.Domctl = 0x15
	t.Cleanup(func() {
		if err := x.door.Close(); err != nil {
			t.Error(err)
		}
	})
	return x
}

// memory is the buffer from an address on.
func (x *fakeXen) memory(addr uint64) []byte {
	x.Helper()
	base := addrOf(x.door.bufs.mem)
	if addr < base || addr >= base+uint64(len(x.door.bufs.mem)) {
		x.Fatalf("address %#x is not in the buffers", addr)
	}
	return x.door.bufs.mem[addr-base:]
}

func (x *fakeXen) call(c *privcmdCall) (uint64, error) {
	x.calls = append(x.calls, *c)
	switch c.op {
	case abi.HypercallXenVersion:
		if c.arg[0] == abi.XenVerExtraVersion {
			copy(x.memory(c.arg[1]), ".7\x00")
			return 0, nil
		}
		return x.version, nil
	case abi.HypercallDomctl:
		mem := x.memory(c.arg[0])
		if binary.LittleEndian.Uint32(mem[abi.DomctlVersion:]) != x.domctl {
			return 0, unix.EACCES
		}
		if x.answer == nil {
			return 0, nil
		}
		return x.answer(c, mem)
	case abi.HypercallEventChannelOp, abi.HypercallMemoryOp:
		return x.answer(c, x.memory(c.arg[1]))
	}
	return x.answer(c, x.memory(c.arg[0]))
}

func TestProbeFindsTheInterface(t *testing.T) {
	for _, want := range abi.DomctlVersions {
		x := newFake(t)
		x.domctl = want
		v, err := x.door.probe()
		if err != nil || v.Domctl != want || v.String() != "Xen 4.17.7" {
			t.Errorf("interface %#x: %+v, %v", want, v, err)
		}
	}
}

func TestProbeRefusesByName(t *testing.T) {
	x := newFake(t)
	x.domctl, x.version = 0x18, 4<<16|22
	_, err := x.door.probe()
	if !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), "found Xen 4.22.7 with domctl interface 0x18") {
		t.Errorf("unknown interface: %v", err)
	}
	x.domctl = 0x1000
	if _, err = x.door.probe(); !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), "interface unknown") {
		t.Errorf("far interface: %v", err)
	}
	x.domctl = 0x15
	x.answer = func(*privcmdCall, []byte) (uint64, error) { return 0, unix.EPERM }
	if _, err = x.door.probe(); !errors.Is(err, ErrNoXen) || !strings.Contains(err.Error(), "dom0") {
		t.Errorf("in a guest: %v", err)
	}
}

func TestOpenWithoutXenSaysWhatToDo(t *testing.T) {
	f, err := openDevice("/nonexistent/xen/privcmd")
	if err == nil {
		f.Close()
		t.Fatal("opened nothing")
	}
	if !errors.Is(err, ErrNoXen) {
		t.Error(err)
	}
	if !strings.Contains(err.Error(), "boot the machine with Xen") && !strings.Contains(err.Error(), "modprobe") {
		t.Errorf("no remedy in %q", err)
	}
	// Any other reason stays what it is.
	if _, err := openDevice("/dev/null/x"); errors.Is(err, ErrNoXen) || errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestCreateDomainBytes(t *testing.T) {
	x := newFake(t)
	// What a call left in the buffer must not come through.
	buf, err := x.door.bufs.get()
	if err != nil {
		t.Fatal(err)
	}
	for i := range buf {
		buf[i] = 0xff
	}
	x.door.bufs.put(buf)
	for range slotCount - 1 {
		b, _ := x.door.bufs.get()
		x.door.bufs.put(b)
	}
	want := make([]byte, abi.SizeofDomctl)
	copy(want, []byte{1, 0, 0, 0, 0x15})
	u := want[abi.DomctlU:]
	copy(u[4:20], "0123456789abcdef")
	u[28], u[32], u[33], u[44] = 2, 0xff, 3, 1
	copy(u[36:44], "\xff\xff\xff\xff\xff\xff\xff\xff")
	x.answer = func(_ *privcmdCall, mem []byte) (uint64, error) {
		if !bytes.Equal(mem[:abi.SizeofDomctl], want) {
			t.Errorf("createdomain\n%x, want\n%x", mem[:abi.SizeofDomctl], want)
		}
		binary.LittleEndian.PutUint16(mem[abi.DomctlDomain:], 77)
		return 0, nil
	}
	id, err := x.door.CreateDomain(abi.CreateDomain{
		Handle: abi.UUID([]byte("0123456789abcdef")), MaxVCPUs: 2, MaxEvtchnPort: 1023,
		MaxGrantFrames: -1, MaxMaptrackFrames: -1, MaxGrantTabVersion: 1,
	})
	if err != nil || id != 77 {
		t.Errorf("id %d, %v", id, err)
	}
}

func TestDomainInfoChecksTheID(t *testing.T) {
	x := newFake(t)
	x.answer = func(_ *privcmdCall, mem []byte) (uint64, error) {
		binary.LittleEndian.PutUint16(mem[abi.DomctlU:], 6)
		return 0, nil
	}
	if _, err := x.door.DomainInfo(5); !errors.Is(err, ErrNoDomain) {
		t.Errorf("answer of the next domain: %v", err)
	}
	if i, err := x.door.DomainInfo(6); err != nil || i.Domain != 6 {
		t.Errorf("%+v, %v", i, err)
	}
	x.answer = func(*privcmdCall, []byte) (uint64, error) { return 0, unix.ESRCH }
	if _, err := x.door.DomainInfo(6); !errors.Is(err, ErrNoDomain) || !errors.Is(err, unix.ESRCH) {
		t.Errorf("no such domain: %v", err)
	}
}

func TestPopulateStopsWhereXenStops(t *testing.T) {
	x := newFake(t)
	have := maxExtents + 5
	x.answer = func(c *privcmdCall, mem []byte) (uint64, error) {
		n := binary.LittleEndian.Uint64(mem[abi.ReservationNrExtents:])
		list := x.memory(binary.LittleEndian.Uint64(mem))
		done := min(int(n), have)
		have -= done
		for i := range done {
			pfn := binary.LittleEndian.Uint64(list[i*8:])
			binary.LittleEndian.PutUint64(list[i*8:], pfn+1000)
		}
		return uint64(done), nil
	}
	pfns := make([]abi.PFN, maxExtents+10)
	for i := range pfns {
		pfns[i] = abi.PFN(i)
	}
	got, err := x.door.Populate(3, 0, pfns)
	if err != nil || len(got) != maxExtents+5 || got[maxExtents+4] != maxExtents+1004 {
		t.Errorf("%d frames, %v", len(got), err)
	}
	x.answer = func(*privcmdCall, []byte) (uint64, error) { return 0, unix.ENOMEM }
	if err := x.door.Claim(3, 10); !errors.Is(err, ErrNoMemory) {
		t.Errorf("claim: %v", err)
	}
}

func TestListGoesOnAfterAFullBatch(t *testing.T) {
	const total = 700
	x := newFake(t)
	x.answer = func(c *privcmdCall, mem []byte) (uint64, error) {
		u := mem[abi.SysctlU:]
		first := int(binary.LittleEndian.Uint16(u[abi.InfoListFirstDomain:]))
		limit := int(binary.LittleEndian.Uint32(u[abi.InfoListMaxDomains:]))
		list := x.memory(binary.LittleEndian.Uint64(u[abi.InfoListBuffer:]))
		n := max(min(total-first, limit), 0)
		for i := range n {
			binary.LittleEndian.PutUint16(list[i*abi.SizeofDomainInfo:], uint16(first+i))
		}
		binary.LittleEndian.PutUint32(u[abi.InfoListNumDomains:], uint32(n))
		return 0, nil
	}
	infos, err := x.door.DomainInfos()
	if err != nil || len(infos) != total || infos[total-1].Domain != total-1 {
		t.Errorf("%d domains, %v", len(infos), err)
	}
}

func TestCloseEndsCalls(t *testing.T) {
	x := newFake(t)
	if err := x.door.Close(); err != nil {
		t.Fatal(err)
	}
	if err := x.door.PauseDomain(1); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if err := x.door.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestOpErrorNamesOperationAndObject(t *testing.T) {
	if opError("pause", 3, nil) != nil {
		t.Error("an error for nil")
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{unix.EINVAL, "pause domain 3: invalid argument"},
		{unix.ESRCH, "pause domain 3: no such domain: no such process"},
		{unix.ENOMEM, "pause domain 3: not enough free memory in Xen: cannot allocate memory"},
	} {
		if got := opError("pause", 3, c.err); got.Error() != c.want || !errors.Is(got, c.err) {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
