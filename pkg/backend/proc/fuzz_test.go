// SPDX-License-Identifier: Apache-2.0

package proc_test

import (
	"encoding/binary"
	"testing"

	"github.com/xcontainer/xcontainer/pkg/backend/proc"
	"github.com/xcontainer/xcontainer/pkg/noxs"
)

// FuzzDevicePage plays a guest that writes what it likes to the device page and
// the pool and sends events. Each step of the input is an address, a value and a
// source. Whatever happens, the process ends when it is told to, or has said why
// it went on no longer.
func FuzzDevicePage(f *testing.F) {
	const stepSize = 12
	step := func(where int, value uint32, source uint32) []byte {
		b := make([]byte, stepSize)
		binary.LittleEndian.PutUint32(b, uint32(where))
		binary.LittleEndian.PutUint32(b[4:], value)
		binary.LittleEndian.PutUint32(b[8:], source)
		return b
	}
	entry := noxs.EntryOff(fsDev)
	var start []byte
	for _, s := range [][]byte{
		step(entry+noxs.OffDriverFeatures+4, 3, 99),
		step(entry+noxs.OffStatus, 11, 99),
		step(entry+noxs.OffReqSeq, 1, fsDev),
		step(entry+noxs.OffQueues+noxs.QueueSize+noxs.OffQueueNum, 128, 99),
		step(entry+noxs.OffQueues+noxs.QueueSize+noxs.OffQueueReady, 1, 99),
		step(entry+noxs.OffQueues+noxs.QueueSize+noxs.OffQueueDesc, 272*4096, 99),
		step(entry+noxs.OffQueues+noxs.QueueSize+noxs.OffQueueAvail, 272*4096+2048, 99),
		step(entry+noxs.OffQueues+noxs.QueueSize+noxs.OffQueueUsed, 273*4096, 99),
		step(entry+noxs.OffStatus, 15, 99),
		step(entry+noxs.OffReqSeq, 2, fsDev),
		step(noxs.PageSize+272*4096+2048, 1<<16, fsDev),
	} {
		start = append(start, s...)
	}
	f.Add(start)
	f.Add(step(noxs.OffGuestState, noxs.GuestPanic, 15))
	f.Add(step(entry+noxs.OffReqSeq, 0xffffffff, fsDev))
	f.Add(step(noxs.OffMagic, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := newRig(t)
		r.mayFail = true
		for n := 0; len(b) >= stepSize && n < 64; n++ {
			where := binary.LittleEndian.Uint32(b) &^ 3
			value := binary.LittleEndian.Uint32(b[4:])
			if where < noxs.PageSize {
				r.page.Store32(int(where), value)
			} else {
				at := (int(where) - noxs.PageSize) % (len(r.pool) - 4) &^ 3
				binary.LittleEndian.PutUint32(r.pool[at:], value)
			}
			if source := binary.LittleEndian.Uint32(b[8:]); source < uint32(len(r.layout.Devices)) || source == proc.Doorbell || source == proc.Console {
				r.ev.kick(int(source))
				waitFor(t, "the event to be handled", r.ev.idle)
			}
			b = b[stepSize:]
		}
	})
}
