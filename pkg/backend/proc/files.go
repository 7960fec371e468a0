// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/backend/control"
	"github.com/xcontainer/xcontainer/pkg/backend/iovec"
	"github.com/xcontainer/xcontainer/pkg/backend/vfs"
	"github.com/xcontainer/xcontainer/pkg/backend/virtio"
	"github.com/xcontainer/xcontainer/pkg/backend/virtiofs"
	"github.com/xcontainer/xcontainer/pkg/noxs"
)

// sharedTTL is the longest time for which the guest trusts a directory that
// others change too. An export with a longer one is taken for the guest's own.
const sharedTTL = time.Second

// files is the file service; nil when the layout has no device for it.
type files struct {
	fs     *vfs.FS
	device *virtiofs.Device
}

// newFiles makes the file service of a layout with such a device.
func newFiles(l noxs.Layout, logf func(string, ...any)) (*files, error) {
	for _, d := range l.Devices {
		if d.ID != noxs.DeviceFS || len(d.Queues) < 2 {
			continue
		}
		fs, err := vfs.New(vfs.Config{})
		if err != nil {
			return nil, err
		}
		pages := int(d.Queues[1]) - 4 // docs/noxs.md 7
		return &files{fs: fs, device: virtiofs.New(vfs.NewServer(fs, pages, logf))}, nil
	}
	return nil, nil
}

func (f *files) virtio() virtio.Device { return f.device }

func (f *files) close() { f.fs.Close() }

// add owns e.Dir.
func (f *files) add(e control.Export) error {
	if f == nil {
		e.Dir.Close()
		return errNoFiles
	}
	return withErrno(f.fs.Add(e.Name, e.Dir, exportOptions(e)))
}

func exportOptions(e control.Export) vfs.Options {
	o := vfs.SharedOptions()
	if e.CacheTTL > sharedTTL {
		o = vfs.PrivateOptions()
		o.NegativeTTL = e.CacheTTL
	}
	o.EntryTTL, o.AttrTTL = e.CacheTTL, e.CacheTTL
	o.ReadOnly = e.ReadOnly
	return o
}

func (f *files) remove(name string) error {
	if f == nil {
		return errNoFiles
	}
	return withErrno(f.fs.Remove(name))
}

func (f *files) io() iovec.IO {
	if f == nil {
		return iovec.IO{}
	}
	return f.fs.IO()
}

func (f *files) descriptors() int {
	if f == nil {
		return 0
	}
	return f.fs.Descriptors()
}

// withErrno gives the file service's own errors the number by which the shim
// knows them.
func withErrno(err error) error {
	for _, m := range []struct {
		is error
		no unix.Errno
	}{{vfs.ErrExists, unix.EEXIST}, {vfs.ErrUnknown, unix.ENOENT}, {vfs.ErrName, unix.EINVAL}, {os.ErrClosed, unix.EBADF}} {
		if errors.Is(err, m.is) {
			return fmt.Errorf("%w (%w)", err, m.no)
		}
	}
	return err
}
