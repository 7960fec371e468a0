// SPDX-License-Identifier: Apache-2.0

package virtioblk

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/backend/iovec"
	"github.com/xcontainer/xcontainer/pkg/backend/virtq"
	"github.com/xcontainer/xcontainer/pkg/noxs"
)

// Request types, virtio 1.2, 5.2.6.
const (
	typeIn          = 0
	typeOut         = 1
	typeFlush       = 4
	typeGetID       = 8
	typeDiscard     = 11
	typeWriteZeroes = 13
)

// Values of the status byte.
const (
	statusOK          = 0
	statusIOErr       = 1
	statusUnsupported = 2
)

const (
	headerSize = 16 // type, reserved, sector
	rangeSize  = 16 // sector, number of sectors, flags
	idSize     = 20

	// maxData bounds what one request moves.
	maxData = noxs.DiskSegMax * noxs.DiskSizeMax

	flagUnmap = 1 // of a range to fill with zeros
)

// maxSectors keeps byte offsets in what a file can have.
const maxSectors = 1<<63/noxs.SectorSize - 1

// request is one that is being carried out.
type request struct {
	disk     *disk
	features uint64

	kind   uint32
	sector uint64
	out    [][]byte // what follows the header
	in     [][]byte // what precedes the status
}

// handle carries out the request that c holds and writes its answer. An error
// means that the guest left no room for one.
func handle(k *disk, features uint64, c *virtq.Chain) error {
	status, rest, ok := cutLast(c.Writable)
	if !ok {
		return fmt.Errorf("virtioblk: %w: a request has no room for its status", virtq.ErrGuest)
	}
	r := request{disk: k, features: features, in: rest}
	var h [headerSize]byte
	var n int
	n, r.out = take(c.Readable, h[:])
	if n < headerSize {
		*status = statusIOErr
		return nil
	}
	r.kind = binary.LittleEndian.Uint32(h[0:])
	r.sector = binary.LittleEndian.Uint64(h[8:])
	*status = r.carryOut()
	return nil
}

// cutLast takes the last byte off bufs.
func cutLast(bufs [][]byte) (last *byte, rest [][]byte, ok bool) {
	i := len(bufs) - 1
	if i < 0 {
		return nil, nil, false
	}
	b := bufs[i]
	last = &b[len(b)-1]
	if len(b) == 1 {
		return last, bufs[:i], true
	}
	bufs[i] = b[:len(b)-1]
	return last, bufs, true
}

// take copies the first bytes of bufs to b, as many as there are, and cuts them
// off.
func take(bufs [][]byte, b []byte) (n int, rest [][]byte) {
	n = iovec.Gather(b, bufs)
	return n, iovec.Skip(bufs, n)
}

func (r *request) carryOut() byte {
	has := func(feature uint64) bool { return r.features&feature != 0 }
	switch {
	case r.kind == typeIn:
		return r.transfer(r.in, r.disk.read)
	case r.disk.ro && (r.kind == typeOut || r.kind == typeDiscard || r.kind == typeWriteZeroes):
		// Whatever was negotiated, and however the file was opened.
		return statusIOErr
	case r.kind == typeOut:
		s := r.transfer(r.out, r.disk.write)
		if s == statusOK && !has(noxs.DiskFeatureFlush) {
			// A driver that cannot ask for it takes writes for lasting.
			s = statusOf(r.disk.flush())
		}
		return s
	case r.kind == typeFlush && has(noxs.DiskFeatureFlush):
		return statusOf(r.disk.flush())
	case r.kind == typeGetID:
		return r.getID()
	case r.kind == typeDiscard && has(noxs.DiskFeatureDiscard):
		return r.ranges(noxs.DiskDiscardSegs, noxs.DiskDiscardSectors, 0, func(off, n uint64, _ uint32) error {
			return r.disk.discard(off, n)
		})
	case r.kind == typeWriteZeroes && has(noxs.DiskFeatureWriteZeroes):
		return r.ranges(noxs.DiskZeroSegs, noxs.DiskZeroSectors, flagUnmap, func(off, n uint64, flags uint32) error {
			return r.disk.writeZeroes(off, n, flags&flagUnmap != 0)
		})
	default:
		return statusUnsupported
	}
}

// transfer moves data at the request's sector. Guest buffers may overlap, so
// their sum is bounded and not only the section that holds them.
func (r *request) transfer(bufs [][]byte, f func([][]byte, uint64) error) byte {
	n := iovec.Len(bufs)
	if n == 0 || n > maxData || n%noxs.SectorSize != 0 || !r.disk.holds(r.sector, n/noxs.SectorSize) {
		return statusIOErr
	}
	return statusOf(f(bufs, r.sector*noxs.SectorSize))
}

// holds says whether n sectors at sector are the disk's.
func (k *disk) holds(sector, n uint64) bool {
	limit := min(k.sectors, maxSectors)
	return sector <= limit && n <= limit-sector
}

func (r *request) getID() byte {
	var id [idSize]byte
	copy(id[:], r.disk.id)
	iovec.Scatter(r.in, id[:])
	return statusOK
}

// ranges copies the request's list of ranges, checks all of them, and calls f
// for each.
func (r *request) ranges(most int, sectors, flags uint32, f func(off, n uint64, flags uint32) error) byte {
	var list [noxs.DiskDiscardSegs * rangeSize]byte
	n, rest := take(r.out, list[:most*rangeSize])
	if n == 0 || n%rangeSize != 0 || len(rest) > 0 {
		return statusIOErr
	}
	type piece struct {
		sector uint64
		num    uint32
		flags  uint32
	}
	var pieces [noxs.DiskDiscardSegs]piece
	le := binary.LittleEndian
	for i := range n / rangeSize {
		b := list[i*rangeSize:]
		p := piece{le.Uint64(b), le.Uint32(b[8:]), le.Uint32(b[12:])}
		if p.flags&^flags != 0 {
			return statusUnsupported
		}
		if p.num == 0 || p.num > sectors || !r.disk.holds(p.sector, uint64(p.num)) {
			return statusIOErr
		}
		pieces[i] = p
	}
	for _, p := range pieces[:n/rangeSize] {
		if s := statusOf(f(p.sector*noxs.SectorSize, uint64(p.num)*noxs.SectorSize, p.flags)); s != statusOK {
			return s
		}
	}
	return statusOK
}

func statusOf(err error) byte {
	switch {
	case err == nil:
		return statusOK
	case errors.Is(err, unix.EOPNOTSUPP):
		return statusUnsupported
	default:
		return statusIOErr
	}
}
