// SPDX-License-Identifier: Apache-2.0

package noxs

import (
	"encoding/binary"
	"errors"
	"testing"
)

// TestDisks encodes as many disks as there can be.
func TestDisks(t *testing.T) {
	disks := make([]Disk, MaxDisks)
	for i := range disks {
		disks[i] = Disk{Sectors: uint64(i+1) << 40, ReadOnly: i%2 == 1}
	}
	l, err := WithDisks(disks)
	if err != nil {
		t.Fatal(err)
	}
	if want := uint32(580 + 6*256 + 6*172); l.PoolPages != want {
		t.Errorf("pool of %d pages, docs/noxs.md 7 says %d", l.PoolPages, want)
	}
	bytes := uint64(0)
	for _, d := range disks {
		bytes += d.PoolBytes()
	}
	if got := uint64(l.PoolPages-Standard().PoolPages) * PageSize; got != bytes {
		t.Errorf("disks take %d bytes, PoolBytes says %d", got, bytes)
	}
	p, err := Encode(ports(l), [SeedSize]byte{})
	if err != nil {
		t.Fatal(err)
	}
	u32 := func(off int) uint32 { return binary.LittleEndian.Uint32(p[off:]) }
	e := EntryOff(2)
	for _, c := range []struct {
		name string
		off  int
		want uint32
	}{
		{"count", OffDeviceCount, 14}, {"id", e, 2}, {"queues", e + 32, 1}, {"config_len", e + 36, 60},
		{"section", e + 52, 580}, {"out", e + 56, 128}, {"in", e + 60, 128}, {"num_max", e + 64, 128},
		{"features", e + 8, 1<<29 | 1<<1 | 1<<2 | 1<<6 | 1<<9 | 1<<10 | 1<<13 | 1<<14},
		{"capacity low", e + 192, 0}, {"capacity high", e + 196, 256}, {"size_max", e + 200, 4096}, {"seg_max", e + 204, 62},
		{"blk_size", e + 212, 512}, {"topology", e + 216, 3 | 8<<16}, {"max_discard_sectors", e + 228, 1 << 21},
		{"max_discard_seg", e + 232, 32}, {"discard_sector_alignment", e + 236, 8},
		{"max_write_zeroes_sectors", e + 240, 1 << 16}, {"max_write_zeroes_seg", e + 244, 1}, {"may_unmap", e + 248, 1},
		{"read-only features", e + 256 + 8, 1<<29 | 1<<1 | 1<<2 | 1<<5 | 1<<6 | 1<<10},
		{"read-only section", e + 256 + 52, 580 + 256}, {"read-only out", e + 256 + 56, 44}, {"read-only in", e + 256 + 60, 128},
	} {
		if got := u32(c.off); got != c.want {
			t.Errorf("%s = %d, want %d", c.name, got, c.want)
		}
	}
	for i, d := range disks {
		if got, err := DiskOf(l.Devices[2+i]); err != nil || got != d {
			t.Errorf("disk %d reads back as %+v, %v", i, got, err)
		}
	}
	if _, err := DiskOf(l.Devices[0]); !errors.Is(err, ErrLayout) {
		t.Errorf("vsock taken for a disk: %v", err)
	}
	if _, err := WithDisks(make([]Disk, MaxDisks+1)); !errors.Is(err, ErrLayout) {
		t.Errorf("too many disks: %v", err)
	}
}

// TestDiskRingFits holds the arithmetic of docs/noxs.md 7: whatever mix of
// requests fills the ring, its pages are there.
func TestDiskRingFits(t *testing.T) {
	ring := 16*DiskQueueNum + 6 + 2*DiskQueueNum + 6 + 8*DiskQueueNum + 64
	if ring > PageSize {
		t.Fatalf("rings of %d bytes", ring)
	}
	rw, rwIn := Disk{}.pages()
	ro, roIn := Disk{ReadOnly: true}.pages()
	for requests := 1; requests <= DiskQueueNum/2; requests++ {
		// All other descriptors carry data one way.
		if out := 1 + DiskQueueNum - requests; uint32(out) > rw {
			t.Errorf("%d writes take %d out pages of %d", requests, out, rw)
		}
		if in := DiskQueueNum - requests; uint32(in) > rwIn || uint32(in) > roIn {
			t.Errorf("%d reads take %d in pages of %d, %d", requests, in, rwIn, roIn)
		}
		if 3*requests <= DiskQueueNum && uint32(1+requests) > ro {
			t.Errorf("%d reads take %d out pages of %d", requests, 1+requests, ro)
		}
	}
}
