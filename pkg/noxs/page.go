// SPDX-License-Identifier: Apache-2.0

package noxs

import "fmt"

// Page gives access to a device page that both sides have mapped. Each method
// makes one aligned atomic access, so a value cannot change between check and
// use unless the caller asks twice. The device index must be one that the
// caller's own Layout has; it panics otherwise.
//
// Methods named Driver... are the guest's half and serve tests.
type Page struct {
	b []byte
}

// QueueBlock is what the guest wrote about one queue. Nothing is checked yet.
type QueueBlock struct {
	Num, Ready, Desc, Avail, Used uint32
}

// NewPage wraps the mapping b, which must hold a page and be 8-aligned. The
// caller keeps it mapped while the Page is in use.
func NewPage(b []byte) (*Page, error) {
	if len(b) < PageSize {
		return nil, fmt.Errorf("noxs: device page of %d bytes", len(b))
	}
	if !aligned8(b) {
		return nil, fmt.Errorf("noxs: device page is not aligned")
	}
	return &Page{b: b[:PageSize:PageSize]}, nil
}

// Load32 reads the aligned field at offset off of the page.
func (p *Page) Load32(off int) uint32 { return load32(p.b, off) }

// Store32 writes the aligned field at offset off of the page.
func (p *Page) Store32(off int, v uint32) { store32(p.b, off, v) }

// GuestState reads guest_state.
func (p *Page) GuestState() uint32 { return p.Load32(OffGuestState) }

// Status reads the device status that the guest asks for.
func (p *Page) Status(i int) uint32 { return p.Load32(EntryOff(i) + OffStatus) }

// DriverFeatures reads the features that the guest chose.
func (p *Page) DriverFeatures(i int) uint64 { return load64(p.b, EntryOff(i)+OffDriverFeatures) }

// ReqSeq reads the number of the guest's last request.
func (p *Page) ReqSeq(i int) uint32 { return p.Load32(EntryOff(i) + OffReqSeq) }

// AckSeq reads the number of the last request answered.
func (p *Page) AckSeq(i int) uint32 { return p.Load32(EntryOff(i) + OffAckSeq) }

// SetAckSeq answers request seq. Everything the request asked for must have
// happened before.
func (p *Page) SetAckSeq(i int, seq uint32) { p.Store32(EntryOff(i)+OffAckSeq, seq) }

// SetHostStatus writes host_status.
func (p *Page) SetHostStatus(i int, v uint32) { p.Store32(EntryOff(i)+OffHostStatus, v) }

// HostStatus reads host_status.
func (p *Page) HostStatus(i int) uint32 { return p.Load32(EntryOff(i) + OffHostStatus) }

// Queue reads the block of queue q of device i, each field once.
func (p *Page) Queue(i, q int) QueueBlock {
	o := QueueOff(i, q)
	return QueueBlock{
		Num:   p.Load32(o + OffQueueNum),
		Ready: p.Load32(o + OffQueueReady),
		Desc:  p.Load32(o + OffQueueDesc),
		Avail: p.Load32(o + OffQueueAvail),
		Used:  p.Load32(o + OffQueueUsed),
	}
}

// DriverSetGuestState writes guest_state as the guest does.
func (p *Page) DriverSetGuestState(v uint32) { p.Store32(OffGuestState, v) }

// DriverSetFeatures writes the features that the guest chooses.
func (p *Page) DriverSetFeatures(i int, f uint64) { store64(p.b, EntryOff(i)+OffDriverFeatures, f) }

// DriverSetQueue writes a queue block as the guest does.
func (p *Page) DriverSetQueue(i, q int, b QueueBlock) {
	o := QueueOff(i, q)
	p.Store32(o+OffQueueNum, b.Num)
	p.Store32(o+OffQueueDesc, b.Desc)
	p.Store32(o+OffQueueAvail, b.Avail)
	p.Store32(o+OffQueueUsed, b.Used)
	p.Store32(o+OffQueueReady, b.Ready)
}

// DriverRequest writes status and raises req_seq, as the guest does to ask for
// a change. It returns the number that ack_seq will take.
func (p *Page) DriverRequest(i int, status uint32) uint32 {
	p.Store32(EntryOff(i)+OffStatus, status)
	seq := p.ReqSeq(i) + 1
	p.Store32(EntryOff(i)+OffReqSeq, seq)
	return seq
}
