// SPDX-License-Identifier: Apache-2.0

package noxs

import (
	"encoding/binary"
	"fmt"
)

// Numbers of the block device (virtio 1.2, 5.2), docs/noxs.md 7.
const (
	// MaxDisks leaves three of the page's entries to other devices.
	MaxDisks = 12

	SectorSize = 512 // bytes, the unit of every sector number

	DiskQueueNum = 128
	// DiskSizeMax is the largest segment: one page of the pool holds any.
	DiskSizeMax = PageSize
	// DiskSegMax is the largest number of data segments of a request; with
	// header and status two such requests fill the ring.
	DiskSegMax = 62

	DiskDiscardSectors = 1 << 21 // of one range: 1 GiB
	DiskDiscardSegs    = 32      // ranges of one request
	DiskZeroSectors    = 1 << 16 // of one range: 32 MiB, which may have to be written
	DiskZeroSegs       = 1
	DiskAlignSectors   = 8 // discards are cheap in these units
)

// Feature bits of the block device (virtio 1.2, 5.2.3).
const (
	DiskFeatureSizeMax     = 1 << 1
	DiskFeatureSegMax      = 1 << 2
	DiskFeatureReadOnly    = 1 << 5
	DiskFeatureBlockSize   = 1 << 6
	DiskFeatureFlush       = 1 << 9
	DiskFeatureTopology    = 1 << 10
	DiskFeatureDiscard     = 1 << 13
	DiskFeatureWriteZeroes = 1 << 14

	diskFeatures         = FeaturesOffered | DiskFeatureSizeMax | DiskFeatureSegMax | DiskFeatureBlockSize | DiskFeatureTopology
	diskWritableFeatures = DiskFeatureFlush | DiskFeatureDiscard | DiskFeatureWriteZeroes
)

// Offsets in the block device's config space (virtio 1.2, 5.2.4).
const (
	OffDiskCapacity       = 0
	OffDiskSizeMax        = 8
	OffDiskSegMax         = 12
	OffDiskBlockSize      = 20
	OffDiskPhysicalExp    = 24
	OffDiskMinIO          = 26
	OffDiskDiscardSectors = 36
	OffDiskDiscardSegs    = 40
	OffDiskDiscardAlign   = 44
	OffDiskZeroSectors    = 48
	OffDiskZeroSegs       = 52
	OffDiskZeroMayUnmap   = 56
	DiskConfigSize        = 60
)

// Disk is what the toolstack decides about one block device.
type Disk struct {
	Sectors  uint64 // capacity
	ReadOnly bool
}

// pages is the size of the disk's section. Every descriptor is at most one
// page, so a full ring always fits (docs/noxs.md 7).
func (d Disk) pages() (out, in uint32) {
	const rings = 1
	if d.ReadOnly {
		// A request has one readable segment, its header, and at least two
		// writable ones.
		return (rings + DiskQueueNum/3 + 3) &^ 3, DiskQueueNum
	}
	return DiskQueueNum, DiskQueueNum
}

// PoolBytes is what the disk adds to the pool.
func (d Disk) PoolBytes() uint64 {
	out, in := d.pages()
	return uint64(out+in) * PageSize
}

// WithDisks returns Standard with a block device for each of disks, at most
// MaxDisks, in their order: disk i is entry 2+i. Errors match ErrLayout.
func WithDisks(disks []Disk) (Layout, error) {
	l := Standard()
	if len(disks) > MaxDisks {
		return Layout{}, fmt.Errorf("noxs: %w: %d disks, at most %d", ErrLayout, len(disks), MaxDisks)
	}
	for _, d := range disks {
		out, in := d.pages()
		features := uint64(diskFeatures | diskWritableFeatures)
		if d.ReadOnly {
			features = diskFeatures | DiskFeatureReadOnly
		}
		l.Devices = append(l.Devices, Device{
			ID:         DeviceBlock,
			Features:   features,
			Queues:     []uint32{DiskQueueNum},
			Config:     d.config(),
			SectionOff: l.PoolPages,
			OutPages:   out,
			InPages:    in,
		})
		l.PoolPages += out + in
	}
	return l, nil
}

func (d Disk) config() []byte {
	le := binary.LittleEndian
	c := make([]byte, DiskConfigSize)
	le.PutUint64(c[OffDiskCapacity:], d.Sectors)
	le.PutUint32(c[OffDiskSizeMax:], DiskSizeMax)
	le.PutUint32(c[OffDiskSegMax:], DiskSegMax)
	le.PutUint32(c[OffDiskBlockSize:], SectorSize)
	c[OffDiskPhysicalExp] = 3 // 4096 bytes
	le.PutUint16(c[OffDiskMinIO:], DiskAlignSectors)
	if !d.ReadOnly {
		le.PutUint32(c[OffDiskDiscardSectors:], DiskDiscardSectors)
		le.PutUint32(c[OffDiskDiscardSegs:], DiskDiscardSegs)
		le.PutUint32(c[OffDiskDiscardAlign:], DiskAlignSectors)
		le.PutUint32(c[OffDiskZeroSectors:], DiskZeroSectors)
		le.PutUint32(c[OffDiskZeroSegs:], DiskZeroSegs)
		c[OffDiskZeroMayUnmap] = 1
	}
	return c
}

// DiskOf reads back what the toolstack decided about the block device d.
func DiskOf(d Device) (Disk, error) {
	if d.ID != DeviceBlock || len(d.Config) < DiskConfigSize {
		return Disk{}, fmt.Errorf("noxs: %w: virtio id %d with %d bytes of config space is no disk", ErrLayout, d.ID, len(d.Config))
	}
	return Disk{
		Sectors:  binary.LittleEndian.Uint64(d.Config[OffDiskCapacity:]),
		ReadOnly: d.Features&DiskFeatureReadOnly != 0,
	}, nil
}
