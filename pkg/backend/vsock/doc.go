// SPDX-License-Identifier: Apache-2.0

// Package vsock is the device side of virtio-vsock (virtio 1.2, 5.10) for one
// guest: streams with credit both ways, half-close and reset, and a bridge that
// joins a stream to a unix socket.
//
// The host end exists in this process only; nothing of AF_VSOCK in the host's
// kernel is used. Datagrams, seqpacket and the event queue are not supported.
//
// One goroutine takes packets from the guest and never waits for a stream's
// reader: what is not read stays in the stream's buffer, which the credit given
// to the guest bounds. Another sends, one packet of each stream in turn.
package vsock
