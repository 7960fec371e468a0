// SPDX-License-Identifier: Apache-2.0

// Package control is the conversation between a shim and the back-end process
// of its domain, over one SEQPACKET socket pair. It moves requests and
// descriptors; what they mean is decided by the Handler on the back-end's side.
//
// The back-end trusts the shim. The shim does not trust the back-end, which
// parses what a guest writes: it takes no descriptor from it (both ends of every
// stream socket are made by the shim), bounds every message and queue, waits
// for no write longer than sendTimeout, and ends the conversation at the first
// message that makes no sense.
//
// One packet is one JSON message of at most maxMessage bytes; descriptors
// travel beside it. A message with op "reply" answers the request of the same
// id. The back-end ends when the socket does.
package control
