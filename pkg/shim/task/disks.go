// SPDX-License-Identifier: Apache-2.0

package task

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
	"github.com/xcontainer/xcontainer/pkg/noxs"
	"github.com/xcontainer/xcontainer/pkg/shim/refusal"
)

// Disk is a block image or block device that a domain sees as a disk. File stays
// the caller's.
type Disk struct {
	File     *os.File
	ReadOnly bool
}

// root is how the root file system gets into the guest: put together from disks
// there, or, without any, mounted on the host and shared.
type root struct {
	mounts []*agentapi.Mount
	disks  []Disk
}

// close closes the disks here; a running back-end has its own.
func (r *root) close() {
	for _, d := range r.disks {
		d.File.Close()
	}
}

// poolBytes is what the disks take of the domain's memory.
func (r *root) poolBytes() (n uint64) {
	for _, d := range r.disks {
		n += noxs.Disk{ReadOnly: d.ReadOnly}.PoolBytes()
	}
	return n
}

// openDisks opens the images of a plan.
func openDisks(p *diskPlan) (_ *root, err error) {
	r := &root{mounts: p.mounts}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	for _, i := range p.images {
		f, err := openDisk(i.path, i.readOnly)
		if err != nil {
			return nil, fmt.Errorf("rootfs: %w", err)
		}
		r.disks = append(r.disks, Disk{f, i.readOnly})
	}
	return r, nil
}

// openDisk opens a regular file or block device for one domain, or read-only for
// any number. What it is is looked at before it is opened: a pipe would block,
// and a device may do anything.
func openDisk(path string, readOnly bool) (*os.File, error) {
	pin, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open block image %s: %w; is the container's snapshot still there?", path, err)
	}
	defer unix.Close(pin)
	var st unix.Stat_t
	if err := unix.Fstat(pin, &st); err != nil {
		return nil, fmt.Errorf("open block image %s: %w", path, err)
	}
	block := st.Mode&unix.S_IFMT == unix.S_IFBLK
	if !block && st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, refusal.New(ErrHostPath, fmt.Sprintf("block image %s is neither a regular file nor a block device", path))
	}
	flags := unix.O_RDWR
	if readOnly {
		flags = unix.O_RDONLY
	} else if block {
		flags |= unix.O_EXCL // not while it is mounted here
	}
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(pin), flags|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, inUse(path)
	}
	if err != nil {
		return nil, fmt.Errorf("open block image %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	if err := claim(f, readOnly, block); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// claim keeps a file that a domain writes from every other domain. The lock is
// that of the open file, which the back-end process shares: it lasts as long as
// the domain. Of a block device, O_EXCL does the same.
func claim(f *os.File, readOnly, block bool) error {
	if !block {
		how := unix.LOCK_EX
		if readOnly {
			how = unix.LOCK_SH
		}
		if err := flock(f, how); errors.Is(err, unix.EWOULDBLOCK) {
			return inUse(f.Name())
		} else if err != nil {
			return fmt.Errorf("lock block image %s: %w", f.Name(), err)
		}
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("find the size of block image %s: %w", f.Name(), err)
	}
	if size < noxs.SectorSize {
		return refusal.New(ErrHostPath, fmt.Sprintf("block image %s is empty", f.Name()))
	}
	return nil
}

// The back-end of a domain that has just ended may still be on its way out.
const (
	claimTries = 20
	claimPause = 50 * time.Millisecond
)

func flock(f *os.File, how int) error {
	for try := 0; ; try++ {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || try == claimTries {
			return err
		}
		time.Sleep(claimPause)
	}
}

func inUse(path string) error {
	return refusal.New(ErrHostPath, fmt.Sprintf("block image %s is in use: it can be written by one container at a time, and not while it is mounted", path))
}
