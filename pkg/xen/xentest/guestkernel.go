// SPDX-License-Identifier: Apache-2.0

package xentest

import (
	_ "embed"
	"encoding/binary"

	"github.com/xcontainer/xcontainer/pkg/xen/abi"
)

// guestCode is guest.S, assembled.
//
//go:embed guest.bin
var guestCode []byte

// Where guest.S expects to be.
const (
	guestVirtBase = 0xffffffff80000000
	guestInitP2M  = 0x8000000000
	guestAddr     = 1 << 20
	guestBSS      = guestAddr + abi.PageSize
	guestBSSSize  = 2 * abi.PageSize
)

// Note is one ELF note of owner "Xen".
type Note struct {
	Type uint32
	Desc []byte
}

// Word is the content of a numeric note.
func Word(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }

// GuestNotes are the notes of GuestKernel, in a new slice.
func GuestNotes() []Note {
	return []Note{
		{abi.NoteGuestOS, []byte("xentest\x00")},
		{abi.NoteXenVersion, []byte("xen-3.0\x00")},
		{abi.NoteVirtBase, Word(guestVirtBase)},
		{abi.NotePaddrOffset, Word(0)},
		{abi.NoteEntry, Word(guestVirtBase + guestAddr)},
		{abi.NoteInitP2M, Word(guestInitP2M)},
		{abi.NoteModStartPFN, Word(1)},
	}
}

// GuestKernel is an ELF file with the program of guest.S: it needs 8 MiB of
// memory and obeys the first letter of its command line.
func GuestKernel() []byte { return Kernel(GuestNotes()) }

// Kernel is GuestKernel with other notes.
func Kernel(notes []Note) []byte {
	const (
		headSize = 64
		progSize = 56
		progs    = 2
		noteAt   = headSize + progs*progSize
	)
	var note []byte
	for _, n := range notes {
		note = binary.LittleEndian.AppendUint32(note, uint32(len(abi.NoteOwner)+1))
		note = binary.LittleEndian.AppendUint32(note, uint32(len(n.Desc)))
		note = binary.LittleEndian.AppendUint32(note, n.Type)
		note = append(note, abi.NoteOwner+"\x00"...)
		note = append(note, n.Desc...)
		for len(note)%4 != 0 {
			note = append(note, 0)
		}
	}
	codeAt := noteAt + len(note)
	head := make([]byte, noteAt)
	copy(head, "\x7fELF\x02\x01\x01")
	le := binary.LittleEndian
	le.PutUint16(head[16:], 2)    // ET_EXEC
	le.PutUint16(head[18:], 0x3e) // EM_X86_64
	le.PutUint32(head[20:], 1)
	le.PutUint64(head[24:], guestVirtBase+guestAddr)
	le.PutUint64(head[32:], headSize) // program headers
	le.PutUint16(head[52:], headSize)
	le.PutUint16(head[54:], progSize)
	le.PutUint16(head[56:], progs)
	le.PutUint16(head[58:], 64) // size of section headers, of which there are none
	prog := func(i int, kind uint32, off int, virt, phys uint64, filesz, memsz uint64) {
		p := head[headSize+i*progSize:]
		le.PutUint32(p, kind)
		le.PutUint32(p[4:], 7)
		le.PutUint64(p[8:], uint64(off))
		le.PutUint64(p[16:], virt)
		le.PutUint64(p[24:], phys)
		le.PutUint64(p[32:], filesz)
		le.PutUint64(p[40:], memsz)
		le.PutUint64(p[48:], 1)
	}
	prog(0, 1, codeAt, guestVirtBase+guestAddr, guestAddr, uint64(len(guestCode)), guestBSS+guestBSSSize-guestAddr)
	prog(1, 4, noteAt, 0, 0, uint64(len(note)), uint64(len(note)))
	return append(append(head, note...), guestCode...)
}
