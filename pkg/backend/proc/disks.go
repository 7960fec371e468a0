// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"fmt"
	"os"
	"strconv"

	"github.com/xcontainer/xcontainer/pkg/backend/iovec"
	"github.com/xcontainer/xcontainer/pkg/backend/virtioblk"
	"github.com/xcontainer/xcontainer/pkg/noxs"
)

// disks are the block devices of the layout, in its order.
type disks []*virtioblk.Device

// newDisks owns files, of which there is one for each block device. The guest
// sees its place among them as the serial number disk0, disk1 …, by which the
// agent finds it.
func newDisks(l noxs.Layout, files []*os.File) (_ disks, err error) {
	var ds disks
	defer func() {
		if err != nil {
			ds.close()
			for _, f := range files[len(ds):] {
				f.Close() // again for one that has been refused, without harm
			}
		}
	}()
	for i, d := range l.Devices {
		if d.ID != noxs.DeviceBlock {
			continue
		}
		decl, err := noxs.DiskOf(d)
		if err != nil {
			return nil, fmt.Errorf("device %d: %w", i, err)
		}
		n := len(ds)
		if n == len(files) {
			return nil, fmt.Errorf("device %d: no descriptor for disk %d", i, n)
		}
		dev, err := virtioblk.New(files[n], "disk"+strconv.Itoa(n), decl)
		if err != nil {
			return nil, fmt.Errorf("device %d: %w", i, err)
		}
		ds = append(ds, dev)
	}
	if len(ds) != len(files) {
		return nil, fmt.Errorf("%d descriptors for %d disks", len(files), len(ds))
	}
	return ds, nil
}

func (ds disks) close() {
	for _, d := range ds {
		// Nothing is buffered here, so nothing is lost.
		_ = d.Close()
	}
}

// stats is what all disks have done together.
func (ds disks) stats() (sum iovec.IO) {
	for _, d := range ds {
		sum.Add(d.Stats())
	}
	return sum
}
