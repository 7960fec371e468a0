// SPDX-License-Identifier: Apache-2.0

package vsock

import "encoding/binary"

// HeaderSize is the length of a packet's header, struct virtio_vsock_hdr of
// linux/virtio_vsock.h.
const HeaderSize = 44

// Values of Header.Op.
const (
	OpRequest       = 1
	OpResponse      = 2
	OpReset         = 3
	OpShutdown      = 4
	OpData          = 5 // VIRTIO_VSOCK_OP_RW
	OpCreditUpdate  = 6
	OpCreditRequest = 7
)

// TypeStream is the only supported value of Header.Type.
const TypeStream = 1

// Bits of Header.Flags with OpShutdown: what the sender will do no more.
const (
	ShutdownReceive = 1
	ShutdownSend    = 2
	shutdownBoth    = ShutdownReceive | ShutdownSend
)

// Header is a packet's header.
type Header struct {
	SrcCID, DstCID   uint64
	SrcPort, DstPort uint32
	Len              uint32 // bytes of payload that follow
	Type, Op         uint16
	Flags            uint32
	BufAlloc         uint32 // the sender's receive buffer, bytes
	FwdCnt           uint32 // bytes the sender's reader has consumed, modulo 2^32
}

// DecodeHeader reads a header.
func DecodeHeader(b *[HeaderSize]byte) Header {
	le := binary.LittleEndian
	return Header{
		SrcCID:   le.Uint64(b[0:]),
		DstCID:   le.Uint64(b[8:]),
		SrcPort:  le.Uint32(b[16:]),
		DstPort:  le.Uint32(b[20:]),
		Len:      le.Uint32(b[24:]),
		Type:     le.Uint16(b[28:]),
		Op:       le.Uint16(b[30:]),
		Flags:    le.Uint32(b[32:]),
		BufAlloc: le.Uint32(b[36:]),
		FwdCnt:   le.Uint32(b[40:]),
	}
}

// Encode writes the header.
func (h Header) Encode(b *[HeaderSize]byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], h.SrcCID)
	le.PutUint64(b[8:], h.DstCID)
	le.PutUint32(b[16:], h.SrcPort)
	le.PutUint32(b[20:], h.DstPort)
	le.PutUint32(b[24:], h.Len)
	le.PutUint16(b[28:], h.Type)
	le.PutUint16(b[30:], h.Op)
	le.PutUint32(b[32:], h.Flags)
	le.PutUint32(b[36:], h.BufAlloc)
	le.PutUint32(b[40:], h.FwdCnt)
}
