// SPDX-License-Identifier: Apache-2.0

package xentest

import (
	"bytes"
	"encoding/binary"

	"github.com/xcontainer/xcontainer/pkg/noxs"
	"github.com/xcontainer/xcontainer/pkg/xen/abi"
)

// run acts as guest.S would: whatever that program would fault on, or finds
// wrong, is a crash. The caller holds mu.
func (m *Machine) run(d *domain) {
	g := guest{m: m, d: d}
	if !g.sound() {
		g.shutdown(abi.ShutdownCrash)
		return
	}
	binary.LittleEndian.PutUint32(g.page[noxs.OffGuestState:], 1)
	line := "xentest: " + g.cmdline + "\n"
	copy(g.console[abi.ConsoleOut:], line)
	binary.LittleEndian.PutUint32(g.console[abi.ConsoleOutProd:], uint32(len(line)))
	g.notify(g.consolePort)
	g.notify(abi.Port(binary.LittleEndian.Uint32(g.page[noxs.OffDoorbellPort:])))
	switch g.cmdline[:min(1, len(g.cmdline))] {
	case "p":
		g.shutdown(abi.ShutdownPowerOff)
	case "r":
		g.shutdown(abi.ShutdownReboot)
	case "s":
		// It goes on, and takes its time when it is let go.
	case "i":
		d.ports[g.consolePort].wake = func() { g.shutdown(abi.ShutdownPowerOff) }
	default:
		g.shutdown(abi.ShutdownCrash)
	}
}

type guest struct {
	m           *Machine
	d           *domain
	page        []byte
	console     []byte
	consolePort abi.Port
	cmdline     string
}

// sound looks at everything that guest.S relies on, and at what Linux does
// besides: the stack, the frame list, the masked events.
func (g *guest) sound() bool {
	m, d, e := g.m, g.d, g.d.entry
	code, ok := m.read(d, e.RIP, len(guestCode))
	if !ok || !bytes.Equal(code, guestCode) {
		return false
	}
	if _, ok := m.translate(d, e.RSP-8); !ok {
		return false
	}
	bss, ok := m.read(d, guestVirtBase+guestBSS, guestBSSSize)
	if !ok || !bytes.Equal(bss, make([]byte, guestBSSSize)) {
		return false
	}
	if m.at(d.info.SharedInfo)[abi.VCPUUpcallMask] != 1 {
		return false
	}
	si, ok := m.read(d, e.RSI, abi.PageSize)
	return ok && g.readStartInfo(si)
}

func (g *guest) readStartInfo(si []byte) bool {
	u64 := func(off int) uint64 { return binary.LittleEndian.Uint64(si[off:]) }
	m, d := g.m, g.d
	store, console := abi.MFN(u64(abi.StartInfoStoreMFN)), abi.MFN(u64(abi.StartInfoConsMFN))
	switch {
	case !bytes.HasPrefix(si, []byte(abi.StartInfoMagicString)),
		u64(abi.StartInfoNrPages) != d.info.TotPages,
		u64(abi.StartInfoSharedInfo) != d.info.SharedInfo.Addr(),
		binary.LittleEndian.Uint32(si[abi.StartInfoStoreEvtchn:]) != 0,
		!m.belongs(store, d), !m.belongs(console, d):
		return false
	}
	g.consolePort = abi.Port(binary.LittleEndian.Uint32(si[abi.StartInfoConsEvtchn:]))
	if d.ports[g.consolePort] == nil || !g.frameList(abi.VAddr(u64(abi.StartInfoMFNList))) {
		return false
	}
	g.page, g.console = m.at(store), m.at(console)
	text, _, ended := bytes.Cut(si[abi.StartInfoCmdLine:abi.StartInfoCmdLine+abi.StartInfoCmdLineSize], []byte{0})
	g.cmdline = string(text)
	return ended && binary.LittleEndian.Uint32(g.page) == noxs.Magic
}

// frameList compares the list in the guest's memory with what Populate gave.
func (g *guest) frameList(at abi.VAddr) bool {
	list, ok := g.m.read(g.d, at, int(g.d.info.TotPages)*8)
	if !ok {
		return false
	}
	for i := range int(g.d.info.TotPages) {
		pfn, ok := g.d.pfns[abi.MFN(binary.LittleEndian.Uint64(list[i*8:]))]
		if !ok || pfn != abi.PFN(i) {
			return false
		}
	}
	return true
}

// notify reaches the host's end, if it is bound.
func (g *guest) notify(p abi.Port) {
	if end := g.d.ports[p]; end != nil && end.near.open() {
		end.near.raise(end.num)
	}
}

func (g *guest) shutdown(code uint32) {
	if g.d.info.Flags&abi.DomInfShutdown == 0 {
		g.d.info.Flags |= abi.DomInfShutdown | code<<abi.DomInfShutdownShift
	}
}
