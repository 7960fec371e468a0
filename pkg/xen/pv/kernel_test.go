// SPDX-License-Identifier: Apache-2.0

package pv_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/xcontainer/xcontainer/pkg/xen/abi"
	"github.com/xcontainer/xcontainer/pkg/xen/pv"
	"github.com/xcontainer/xcontainer/pkg/xen/xentest"
)

func TestParseKernel(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vmlinux")
	if err := os.WriteFile(path, xentest.GuestKernel(), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := pv.OpenKernel(path)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if k.VirtBase != 0xffffffff80000000 || k.Entry != k.VirtBase+1<<20 || k.InitP2M != 0x8000000000 || !k.ModStartPFN {
		t.Errorf("kernel %+v", k)
	}
	if len(k.Segments) != 1 || k.Segments[0].Addr != 1<<20 || k.Segments[0].Size != 3*abi.PageSize {
		t.Errorf("segments %+v", k.Segments)
	}
	for range 2 {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	}
}

// notesBut are the good notes without one, and with others.
func notesBut(kind uint32, more ...xentest.Note) []byte {
	notes := slices.DeleteFunc(xentest.GuestNotes(), func(n xentest.Note) bool { return n.Type == kind })
	return xentest.Kernel(append(notes, more...))
}

// patched is the good kernel with bytes replaced.
func patched(off int, b ...byte) []byte {
	k := xentest.GuestKernel()
	copy(k[off:], b)
	return k
}

func TestParseKernelRefuses(t *testing.T) {
	word := func(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }
	const prog = 64 // the PT_LOAD header
	for name, c := range map[string]struct {
		file []byte
		says string
	}{
		"nothing":            {nil, ""},
		"text":               {bytes.Repeat([]byte("#!/bin/sh\n"), 10), "magic"},
		"bzImage":            {append([]byte("MZ"), make([]byte, 600)...), "vmlinux"},
		"32 bit":             {patched(4, 1), ""},
		"ARM":                {patched(18, 0xb7), "x86-64"},
		"no entry":           {notesBut(abi.NoteEntry), "CONFIG_XEN_PV"},
		"PVH only":           {notesBut(abi.NoteEntry, xentest.Note{Type: abi.NotePhys32Entry, Desc: xentest.Word(1)}), "PVH only"},
		"hypercall page":     {notesBut(0, xentest.Note{Type: abi.NoteHypercallPage, Desc: xentest.Word(1)}), "hypercall page"},
		"no version":         {notesBut(abi.NoteXenVersion), "want xen-3.0"},
		"other version":      {notesBut(abi.NoteXenVersion, xentest.Note{Type: abi.NoteXenVersion, Desc: []byte("xen-9\x00")}), `"xen-9"`},
		"no base":            {notesBut(abi.NoteVirtBase), "VIRT_BASE"},
		"crooked base":       {notesBut(abi.NoteVirtBase, xentest.Note{Type: abi.NoteVirtBase, Desc: xentest.Word(123)}), "inside of a page"},
		"no p2m":             {notesBut(abi.NoteInitP2M), "INIT_P2M"},
		"entry elsewhere":    {notesBut(abi.NoteEntry, xentest.Note{Type: abi.NoteEntry, Desc: xentest.Word(0xffffffff80000000)}), "outside"},
		"entry below base":   {notesBut(abi.NoteEntry, xentest.Note{Type: abi.NoteEntry, Desc: xentest.Word(5)}), "outside"},
		"offset":             {notesBut(abi.NotePaddrOffset, xentest.Note{Type: abi.NotePaddrOffset, Desc: xentest.Word(2 << 20)}), "segment"},
		"cut in its code":    {xentest.GuestKernel()[:len(xentest.GuestKernel())-1], "ends inside"},
		"huge segment":       {patched(prog+40, word(1<<40)...), "segment"},
		"more file than mem": {patched(prog+40, word(1)...), "segment"},
		"far segment":        {patched(prog+24, word(1<<40)...), "segment"},
		"far data":           {patched(prog+8, word(1<<40)...), "ends inside"},
		"no segment":         {patched(prog, 6), "loadable"},
		"overlap":            {overlapping(), "overlap"},
		"broken notes":       {patched(len(xentest.GuestKernel())-1, 0)[:64+112+20], "ends inside"},
	} {
		_, err := pv.ParseKernel(c.file)
		if !errors.Is(err, pv.ErrKernel) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// overlapping is the good kernel with its segment listed twice.
func overlapping() []byte {
	k := xentest.GuestKernel()
	// A third program header, over the first bytes of the notes; the notes
	// move to the end of the file.
	notes := bytes.Clone(k[64+112:])
	k = append(k, notes...)
	binary.LittleEndian.PutUint16(k[56:], 3)
	copy(k[64+112:], k[64:64+56])
	binary.LittleEndian.PutUint64(k[64+56+8:], uint64(len(k)-len(notes)))
	return k
}

func FuzzParseKernel(f *testing.F) {
	f.Add(xentest.GuestKernel())
	f.Add(notesBut(abi.NoteEntry))
	f.Add(overlapping())
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := pv.ParseKernel(data)
		if err != nil {
			return
		}
		for _, s := range k.Segments {
			if uint64(len(s.Data)) > s.Size || s.Size == 0 {
				t.Fatalf("segment %+v", s)
			}
		}
		// Whatever parses must plan or be refused, and never take for ever.
		p, err := pv.NewPlan(k, pv.Sizes{Pages: 32768, Pool: 8, Initramfs: 1})
		if err == nil && uint64(p.End) > 32768 {
			t.Fatalf("plan %+v", p)
		}
	})
}
