// SPDX-License-Identifier: Apache-2.0

package pv

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sort"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/xen/abi"
)

// ErrKernel is the identity of every error about a file that is no kernel this
// package can start.
var ErrKernel = errors.New("not a usable PV kernel")

// Limits on what a kernel file may ask for.
const (
	maxKernelFile   = 1 << 30
	maxKernelMemory = 1 << 30
	maxSegments     = 64
)

// Segment is a part of the kernel's memory.
type Segment struct {
	Addr uint64 // guest-physical address
	Size uint64 // bytes in memory; those after Data are zero
	Data []byte // bytes from the file
}

// Kernel is what the builder needs of a kernel file. It is not changed after it
// has been read, and many domains may be built from one at once.
type Kernel struct {
	Entry    abi.VAddr
	VirtBase abi.VAddr // where pfn 0 is mapped
	InitP2M  abi.VAddr // where the frame list is mapped
	// ModStartPFN tells that the kernel takes an initramfs outside of the
	// initial mapping.
	ModStartPFN bool
	Segments    []Segment // sorted, apart from each other, not empty

	close func() error
}

// OpenKernel reads the ELF file at path, a plain vmlinux. The file stays mapped,
// and must not be cut short, until Close.
func OpenKernel(path string) (*Kernel, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open kernel: %w", err)
	}
	defer f.Close()
	data, err := mapFile(f)
	if err != nil {
		return nil, fmt.Errorf("open kernel %s: %w", path, err)
	}
	k, err := ParseKernel(data)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open kernel %s: %w", path, err), unix.Munmap(data))
	}
	k.close = sync.OnceValue(func() error { return unix.Munmap(data) })
	return k, nil
}

func mapFile(f *os.File) ([]byte, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() == 0 || st.Size() > maxKernelFile {
		return nil, fmt.Errorf("%w: not a file of 1 to %d bytes", ErrKernel, maxKernelFile)
	}
	return unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
}

// Close releases the file. Segments must not be used after it.
func (k *Kernel) Close() error {
	if k.close == nil {
		return nil
	}
	return k.close()
}

// ParseKernel reads a kernel from memory, which it keeps referring to.
func ParseKernel(data []byte) (*Kernel, error) {
	if bytes.HasPrefix(data, []byte("MZ")) {
		return nil, fmt.Errorf("%w: a compressed bzImage; give the vmlinux", ErrKernel)
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKernel, err)
	}
	if f.Class != elf.ELFCLASS64 || f.Machine != elf.EM_X86_64 || f.Type != elf.ET_EXEC {
		return nil, fmt.Errorf("%w: not an x86-64 executable", ErrKernel)
	}
	n, err := readNotes(f, data)
	if err != nil {
		return nil, err
	}
	k, err := n.kernel()
	if err != nil {
		return nil, err
	}
	if k.Segments, err = loadSegments(f, data, n.number[abi.NotePaddrOffset]); err != nil {
		return nil, err
	}
	return k, k.checkEntry()
}

func (k *Kernel) checkEntry() error {
	if addr := uint64(k.Entry - k.VirtBase); k.Entry >= k.VirtBase {
		for _, s := range k.Segments {
			if addr >= s.Addr && addr < s.Addr+s.Size {
				return nil
			}
		}
	}
	return fmt.Errorf("%w: entry %#x outside of its segments", ErrKernel, uint64(k.Entry))
}

// fileRange is data[off:off+n], checked.
func fileRange(data []byte, off, n uint64) ([]byte, error) {
	if off > uint64(len(data)) || n > uint64(len(data))-off {
		return nil, fmt.Errorf("%w: file ends inside of a segment", ErrKernel)
	}
	return data[off : off+n : off+n], nil
}

func loadSegments(f *elf.File, data []byte, paddrOffset uint64) ([]Segment, error) {
	var segs []Segment
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD || p.Memsz == 0 {
			continue
		}
		part, err := fileRange(data, p.Off, p.Filesz)
		if err != nil {
			return nil, err
		}
		if p.Paddr < paddrOffset || p.Filesz > p.Memsz || p.Memsz > maxKernelMemory || p.Paddr-paddrOffset > maxKernelMemory {
			return nil, fmt.Errorf("%w: segment of %d bytes at %#x", ErrKernel, p.Memsz, p.Paddr)
		}
		segs = append(segs, Segment{Addr: p.Paddr - paddrOffset, Size: p.Memsz, Data: part})
	}
	if len(segs) == 0 || len(segs) > maxSegments {
		return nil, fmt.Errorf("%w: %d loadable segments", ErrKernel, len(segs))
	}
	sort.Slice(segs, func(i, j int) bool { return segs[i].Addr < segs[j].Addr })
	for i := 1; i < len(segs); i++ {
		if segs[i-1].Addr+segs[i-1].Size > segs[i].Addr {
			return nil, fmt.Errorf("%w: segments overlap at %#x", ErrKernel, segs[i].Addr)
		}
	}
	return segs, nil
}

// notes are a kernel's ELF notes of owner "Xen" by type.
type notes struct {
	number map[uint32]uint64
	text   map[uint32]string
}

func readNotes(f *elf.File, data []byte) (notes, error) {
	n := notes{number: map[uint32]uint64{}, text: map[uint32]string{}}
	for _, p := range f.Progs {
		if p.Type != elf.PT_NOTE {
			continue
		}
		b, err := fileRange(data, p.Off, p.Filesz)
		if err != nil {
			return n, err
		}
		if err := n.parse(b); err != nil {
			return n, err
		}
	}
	return n, nil
}

// parse reads one segment of notes: a head of three words (length of the owner's
// name, length of the content, type), then both, each padded to four bytes.
func (n notes) parse(b []byte) error {
	const head = 12
	for len(b) >= head {
		nameLen := uint64(binary.LittleEndian.Uint32(b))
		descLen := uint64(binary.LittleEndian.Uint32(b[4:]))
		kind := binary.LittleEndian.Uint32(b[8:])
		b = b[head:]
		nameEnd := (nameLen + 3) &^ 3
		if nameEnd+descLen > uint64(len(b)) {
			return fmt.Errorf("%w: cut short in its notes", ErrKernel)
		}
		if string(bytes.TrimRight(b[:nameLen], "\x00")) == abi.NoteOwner {
			n.add(kind, b[nameEnd:nameEnd+descLen])
		}
		b = b[min((nameEnd+descLen+3)&^3, uint64(len(b))):]
	}
	return nil
}

func (n notes) add(kind uint32, desc []byte) {
	switch len(desc) {
	case 4:
		n.number[kind] = uint64(binary.LittleEndian.Uint32(desc))
	case 8:
		n.number[kind] = binary.LittleEndian.Uint64(desc)
	}
	n.text[kind] = string(bytes.TrimRight(desc, "\x00"))
}

// kernel takes what the builder needs and refuses what it cannot serve.
func (n notes) kernel() (*Kernel, error) {
	entry, ok := n.number[abi.NoteEntry]
	if !ok {
		if _, pvh := n.number[abi.NotePhys32Entry]; pvh {
			return nil, fmt.Errorf("%w: built for PVH only (CONFIG_XEN_PV is off)", ErrKernel)
		}
		return nil, fmt.Errorf("%w: no Xen notes with an entry (CONFIG_XEN_PV is off)", ErrKernel)
	}
	if v := n.text[abi.NoteXenVersion]; v != "xen-3.0" {
		return nil, fmt.Errorf("%w: interface %q, want xen-3.0", ErrKernel, v)
	}
	if _, page := n.text[abi.NoteHypercallPage]; page {
		return nil, fmt.Errorf("%w: wants a hypercall page, which Linux 6.12.7 and later do without", ErrKernel)
	}
	base, ok := n.number[abi.NoteVirtBase]
	if !ok {
		return nil, fmt.Errorf("%w: no VIRT_BASE note", ErrKernel)
	}
	p2m, ok := n.number[abi.NoteInitP2M]
	if !ok {
		return nil, fmt.Errorf("%w: no INIT_P2M note", ErrKernel)
	}
	if base%abi.PageSize != 0 || p2m%abi.PageSize != 0 {
		return nil, fmt.Errorf("%w: VIRT_BASE or INIT_P2M inside of a page", ErrKernel)
	}
	return &Kernel{
		Entry:       abi.VAddr(entry),
		VirtBase:    abi.VAddr(base),
		InitP2M:     abi.VAddr(p2m),
		ModStartPFN: n.number[abi.NoteModStartPFN] == 1,
	}, nil
}
