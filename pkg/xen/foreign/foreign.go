// SPDX-License-Identifier: Apache-2.0

package foreign

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/xcontainer/xcontainer/pkg/xen/abi"
	"golang.org/x/sys/unix"
)

// MaxFrames bounds one mapping: 64 GiB.
const MaxFrames = 1 << 24

// ErrFrame is the identity of a mapping that failed because a frame does not
// belong to the domain or cannot be mapped.
var ErrFrame = errors.New("frame cannot be mapped")

// MapSpec names the frames that a domain's back-end process shares with it. It
// travels as JSON from the toolstack to that process.
type MapSpec struct {
	DomID   abi.DomID `json:"domid"`
	Page    abi.MFN   `json:"page"`    // the device page
	Pool    []abi.MFN `json:"pool"`    // the pool, in order
	Console abi.MFN   `json:"console"` // the console ring
}

// Map maps frames of dom, in order, as one run of memory. The caller owns the
// mapping and ends it with unmap, which may be called twice; after that the
// memory must not be touched. A domain that is destroyed keeps its mapped frames,
// and stays as a dead domain, until they are unmapped.
func Map(privcmd *os.File, dom abi.DomID, frames []abi.MFN, writable bool) (mem []byte, unmap func() error, err error) {
	mem, err = mapFrames(privcmd, dom, frames, writable)
	if err != nil {
		return nil, nil, fmt.Errorf("map %d frames of domain %d: %w", len(frames), dom, err)
	}
	return mem, sync.OnceValue(func() error { return unix.Munmap(mem) }), nil
}

func mapFrames(privcmd *os.File, dom abi.DomID, frames []abi.MFN, writable bool) ([]byte, error) {
	if len(frames) == 0 || len(frames) > MaxFrames {
		return nil, fmt.Errorf("number of frames not in 1..%d: %w", MaxFrames, unix.EINVAL)
	}
	prot := unix.PROT_READ
	if writable {
		prot |= unix.PROT_WRITE
	}
	conn, err := privcmd.SyscallConn()
	if err != nil {
		return nil, err
	}
	var mem []byte
	errs := make([]int32, len(frames))
	ctlErr := conn.Control(func(fd uintptr) {
		mem, err = unix.Mmap(int(fd), 0, len(frames)*abi.PageSize, prot, unix.MAP_SHARED)
		if err != nil {
			return
		}
		err = mmapBatch(fd, dom, mem, frames, errs)
	})
	if err = errors.Join(ctlErr, err); err == nil {
		err = firstBad(frames, errs)
	}
	if err != nil && mem != nil {
		err = errors.Join(err, unix.Munmap(mem))
	}
	return mem, err
}

// firstBad turns the kernel's answer per frame into an error. An unmapped page
// in the run would fault on use, so one bad frame fails the whole mapping.
func firstBad(frames []abi.MFN, errs []int32) error {
	for i, e := range errs {
		if e != 0 {
			return fmt.Errorf("%w: frame %#x (%d of %d): %w", ErrFrame, uint64(frames[i]), i, len(frames), unix.Errno(-e))
		}
	}
	return nil
}

// batchArg encodes struct privcmd_mmapbatch_v2.
func batchArg(n int, dom abi.DomID, addr, arr, errs uintptr) []byte {
	b := make([]byte, abi.SizeofMmapBatchV2)
	binary.LittleEndian.PutUint32(b[abi.MmapBatchNum:], uint32(n))
	binary.LittleEndian.PutUint16(b[abi.MmapBatchDom:], uint16(dom))
	binary.LittleEndian.PutUint64(b[abi.MmapBatchAddr:], uint64(addr))
	binary.LittleEndian.PutUint64(b[abi.MmapBatchArr:], uint64(arr))
	binary.LittleEndian.PutUint64(b[abi.MmapBatchErr:], uint64(errs))
	return b
}

// Restrict limits privcmd for ever to mapping memory of dom: every hypercall and
// every other domain is refused after it.
func Restrict(privcmd *os.File, dom abi.DomID) error {
	conn, err := privcmd.SyscallConn()
	if err != nil {
		return err
	}
	ctlErr := conn.Control(func(fd uintptr) { err = restrict(fd, dom) })
	if err = errors.Join(ctlErr, err); err != nil {
		return fmt.Errorf("restrict privcmd to domain %d: %w", dom, err)
	}
	return nil
}

// MapBackend maps what m names, writable. page and console are one page each,
// pool is len(m.Pool) pages. unmap ends all three, and may be called twice.
// privcmd stays the caller's and can be closed at once: mappings do not need it.
func MapBackend(privcmd *os.File, m MapSpec) (page, pool, console []byte, unmap func() error, err error) {
	frames := make([]abi.MFN, 0, len(m.Pool)+2)
	frames = append(frames, m.Page)
	frames = append(frames, m.Pool...)
	frames = append(frames, m.Console)
	mem, unmap, err := Map(privcmd, m.DomID, frames, true)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	page, pool, console = split(mem)
	return page, pool, console, unmap, nil
}

func split(mem []byte) (page, pool, console []byte) {
	end := len(mem) - abi.PageSize
	return mem[:abi.PageSize:abi.PageSize], mem[abi.PageSize:end:end], mem[end:]
}
