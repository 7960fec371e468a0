// SPDX-License-Identifier: Apache-2.0

package libos

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/xen/pv"
)

// Names of the library OS's files in its folder, as `make libos` writes them.
const (
	KernelFile    = "vmlinux"    // of guests that can have several virtual CPUs
	KernelFileUP  = "vmlinux-up" // of those that never have more than one
	InitramfsFile = "initramfs.cpio"
)

// maxInitramfs bounds what goes into a domain's memory; ours has about 8 MB.
const maxInitramfs = 256 << 20

// ErrImage is matched by every error about the library OS's files.
var ErrImage = errors.New("library OS image")

// Image is a kernel and an initramfs, checked and ready to be booted.
type Image struct {
	Kernel    *pv.Kernel
	Initramfs []byte
}

// LoadImage reads the initramfs in dir and the kernel for a guest that never has
// more than vcpus virtual CPUs. The error names the file and what to do.
func LoadImage(dir string, vcpus uint32) (*Image, error) {
	what, path := "kernel", filepath.Join(dir, KernelFile)
	if vcpus <= 1 {
		what, path = "kernel for one virtual CPU", filepath.Join(dir, KernelFileUP)
	}
	k, err := pv.OpenKernel(path)
	if err != nil {
		return nil, imageError(what, path, err)
	}
	path = filepath.Join(dir, InitramfsFile)
	initramfs, err := mapBounded(path, maxInitramfs)
	if err != nil {
		k.Close()
		return nil, imageError("initramfs", path, err)
	}
	return &Image{Kernel: k, Initramfs: initramfs}, nil
}

// Close gives the files back; they are mapped, so that a shim does not hold
// megabytes that it needs for a moment only. Call it once no Create runs.
func (i *Image) Close() error {
	return errors.Join(i.Kernel.Close(), unix.Munmap(i.Initramfs))
}

func imageError(what, path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: no %s at %s: install it with `make libos` or name its folder in XCONTAINER_SHARE",
			ErrImage, what, path)
	}
	return fmt.Errorf("%w: %s %s: %w", ErrImage, what, path, err)
}

func mapBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() == 0 || st.Size() > limit {
		return nil, fmt.Errorf("no regular file of 1 to %d bytes", limit)
	}
	return unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
}
