// SPDX-License-Identifier: Apache-2.0

package kernelbuild

import (
	"fmt"
	"io"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// entry is a file of an initramfs. Owner is root, times are zero.
type entry struct {
	name  string // without a leading slash
	mode  uint32 // type and permissions, as in stat(2)
	major uint32 // of a device node
	minor uint32
	data  []byte // of a regular file
}

// trailer ends an archive.
const trailer = "TRAILER!!!"

// maxName bounds a name; the kernel refuses longer ones (PATH_MAX).
const maxName = 4095

// writeCPIO writes entries in the "newc" format that the kernel unpacks
// (Documentation/driver-api/early-userspace/buffer-format.rst). The same entries
// give the same bytes. A folder must come before what is in it.
func writeCPIO(w io.Writer, entries []entry) error {
	for i, e := range entries {
		if e.name == "" || len(e.name) > maxName || path.Clean("/"+e.name) != "/"+e.name || strings.ContainsRune(e.name, 0) {
			return fmt.Errorf("kernelbuild: initramfs: bad name %q", e.name)
		}
		// Files with one inode number would become hard links.
		if err := writeEntry(w, uint32(i+1), e); err != nil {
			return fmt.Errorf("kernelbuild: initramfs: write %s: %w", e.name, err)
		}
	}
	if err := writeEntry(w, 0, entry{name: trailer}); err != nil {
		return fmt.Errorf("kernelbuild: initramfs: %w", err)
	}
	return nil
}

func writeEntry(w io.Writer, ino uint32, e entry) error {
	if uint64(len(e.data)) > 1<<32-1 {
		return fmt.Errorf("%d bytes: %w", len(e.data), unix.EFBIG)
	}
	nlink := uint32(1)
	if e.mode&unix.S_IFMT == unix.S_IFDIR {
		nlink = 2
	}
	fields := []uint32{
		ino, e.mode, 0, 0, nlink, 0, uint32(len(e.data)),
		0, 0, e.major, e.minor, uint32(len(e.name) + 1), 0,
	}
	head := "070701"
	for _, f := range fields {
		head += fmt.Sprintf("%08X", f)
	}
	head += e.name + "\x00"
	for _, b := range [][]byte{[]byte(head), e.data} {
		if _, err := w.Write(append(b[:len(b):len(b)], make([]byte, -len(b)&3)...)); err != nil {
			return err
		}
	}
	return nil
}
