// SPDX-License-Identifier: Apache-2.0

package libos

import (
	"fmt"
	"io"
	"os"

	"github.com/xcontainer/xcontainer/pkg/noxs"
)

// MaxDisks is how many disks a guest can have.
const MaxDisks = noxs.MaxDisks

// Disk is a regular file or block device that the guest sees as a virtio block
// device.
type Disk struct {
	// File is open for reading, and for writing unless the disk is read-only.
	// Nobody else may write to it while the guest lives. It stays the caller's,
	// who may close it after Boot.
	File     *os.File
	ReadOnly bool
}

// layout says what the device page of a guest with these disks holds. A disk is
// as large as its file is now, in whole sectors.
func layout(disks []Disk) (noxs.Layout, error) {
	list := make([]noxs.Disk, len(disks))
	for i, d := range disks {
		size, err := d.File.Seek(0, io.SeekEnd)
		if err != nil {
			return noxs.Layout{}, fmt.Errorf("find the size of disk %d: %w", i, err)
		}
		list[i] = noxs.Disk{Sectors: uint64(size) / noxs.SectorSize, ReadOnly: d.ReadOnly}
	}
	return noxs.WithDisks(list)
}
