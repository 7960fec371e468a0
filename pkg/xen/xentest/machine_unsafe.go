// SPDX-License-Identifier: Apache-2.0

package xentest

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/xen/abi"
)

// mapFrames shows frames, given as page numbers of the file fd, as one run of
// memory: the kernel's mappings of a file stand for Xen's of a domain, so that
// writes are seen everywhere and a read-only mapping faults on a write.
func mapFrames(fd int, pages []int64, prot int) ([]byte, error) {
	size := uintptr(len(pages)) * abi.PageSize
	// Reserve the addresses, then put each run of pages over its part.
	mem, err := unix.Mmap(-1, 0, int(size), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(pages); {
		n := 1
		for i+n < len(pages) && pages[i+n] == pages[i]+int64(n) {
			n++
		}
		at := unsafe.Pointer(&mem[i*abi.PageSize])
		_, err := unix.MmapPtr(fd, pages[i]*abi.PageSize, at, uintptr(n)*abi.PageSize, prot, unix.MAP_SHARED|unix.MAP_FIXED)
		if err != nil {
			return nil, fmt.Errorf("map %d pages: %w", n, err)
		}
		i += n
	}
	return mem, nil
}
