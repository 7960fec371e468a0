// SPDX-License-Identifier: Apache-2.0

package libos

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/xcontainer/xcontainer/pkg/xen/pv"
)

// Names of the library OS's files in its folder, as `make libos` writes them.
const (
	KernelFile    = "vmlinux"
	InitramfsFile = "initramfs.cpio"
)

// maxInitramfs bounds what is read into memory; ours has about 8 MB.
const maxInitramfs = 256 << 20

// ErrImage is matched by every error about the library OS's files.
var ErrImage = errors.New("library OS image")

// Image is a kernel and an initramfs, checked and ready to be booted.
type Image struct {
	Kernel    *pv.Kernel
	Initramfs []byte
}

// LoadImage reads the kernel and the initramfs in dir. The error names the file
// and what to do.
func LoadImage(dir string) (*Image, error) {
	path := filepath.Join(dir, KernelFile)
	k, err := pv.OpenKernel(path)
	if err != nil {
		return nil, imageError("kernel", path, err)
	}
	path = filepath.Join(dir, InitramfsFile)
	initramfs, err := readBounded(path, maxInitramfs)
	if err != nil {
		k.Close()
		return nil, imageError("initramfs", path, err)
	}
	return &Image{Kernel: k, Initramfs: initramfs}, nil
}

// Close gives the kernel file back.
func (i *Image) Close() error { return i.Kernel.Close() }

func imageError(what, path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: no %s at %s: install it with `make libos` or name its folder in XCONTAINER_SHARE",
			ErrImage, what, path)
	}
	return fmt.Errorf("%w: %s %s: %w", ErrImage, what, path, err)
}

func readBounded(path string, limit int64) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() == 0 || st.Size() > limit {
		return nil, fmt.Errorf("no regular file of 1 to %d bytes", limit)
	}
	return os.ReadFile(path)
}
