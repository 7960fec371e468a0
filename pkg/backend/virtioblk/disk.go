// SPDX-License-Identifier: Apache-2.0

package virtioblk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/backend/iovec"
	"github.com/xcontainer/xcontainer/pkg/noxs"
)

// zeros is what a file without a call for it is filled with.
var zeros [64 << 10]byte

// disk does the work of requests. Its methods may run at the same time; where
// on the disk has been checked before.
type disk struct {
	file    *os.File
	fd      int
	block   bool // a block device, not a file
	sectors uint64
	ro      bool
	id      string

	stats iovec.Counts
}

// newDisk owns f, also when it fails.
func newDisk(f *os.File, id string, d noxs.Disk) (*disk, error) {
	k := &disk{file: f, fd: int(f.Fd()), sectors: d.Sectors, ro: d.ReadOnly, id: id}
	var st unix.Stat_t
	err := unix.Fstat(k.fd, &st)
	switch kind := st.Mode & unix.S_IFMT; {
	case err != nil:
		err = fmt.Errorf("look at it: %w", err)
	case kind == unix.S_IFBLK:
		k.block = true
	case kind != unix.S_IFREG:
		err = fmt.Errorf("it is neither a regular file nor a block device: %w", unix.EINVAL)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("virtioblk: %s: %w", id, err)
	}
	return k, nil
}

// read fills bufs from the disk. A file that has become shorter is an error.
func (k *disk) read(bufs [][]byte, off uint64) error {
	k.stats.ReadOps.Add(1)
	return k.transfer(unix.Preadv, bufs, off, &k.stats.ReadBytes)
}

func (k *disk) write(bufs [][]byte, off uint64) error {
	k.stats.WriteOps.Add(1)
	return k.transfer(unix.Pwritev, bufs, off, &k.stats.WriteBytes)
}

func (k *disk) transfer(f func(int, [][]byte, int64) (int, error), bufs [][]byte, off uint64, count *atomic.Uint64) error {
	for len(bufs) > 0 {
		n, err := f(k.fd, bufs, int64(off))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return io.ErrUnexpectedEOF
		}
		count.Add(uint64(n))
		off += uint64(n)
		bufs = iovec.Skip(bufs, n)
	}
	return nil
}

// flush makes all writes that have been answered last.
func (k *disk) flush() error { return retry(func() error { return unix.Fdatasync(k.fd) }) }

func (k *disk) discard(off, n uint64) error {
	if k.block {
		return retry(func() error { return blkdiscard(k.fd, off, n) })
	}
	return k.fallocate(unix.FALLOC_FL_PUNCH_HOLE, off, n)
}

// writeZeroes may give back the space with unmap, and keeps it otherwise.
func (k *disk) writeZeroes(off, n uint64, unmap bool) error {
	err := error(unix.EOPNOTSUPP)
	if unmap {
		err = k.fallocate(unix.FALLOC_FL_PUNCH_HOLE, off, n)
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = k.fallocate(unix.FALLOC_FL_ZERO_RANGE, off, n)
	}
	for errors.Is(err, unix.EOPNOTSUPP) && n > 0 {
		part := min(n, uint64(len(zeros)))
		if werr := k.write([][]byte{zeros[:part]}, off); werr != nil {
			return werr
		}
		off, n = off+part, n-part
	}
	if n == 0 {
		return nil
	}
	return err
}

func (k *disk) fallocate(mode uint32, off, n uint64) error {
	return retry(func() error {
		return unix.Fallocate(k.fd, mode|unix.FALLOC_FL_KEEP_SIZE, int64(off), int64(n))
	})
}

func retry(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
