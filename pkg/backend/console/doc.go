// SPDX-License-Identifier: Apache-2.0

// Package console drains the output half of a Xen console ring and passes the
// bytes on as they are (docs/noxs.md 8). A guest spins while the ring is full,
// so draining never waits for the reader: what the reader does not take in time
// is kept in a bounded buffer, and beyond that the oldest bytes are dropped and
// a mark stands for them. Input to the guest is not supported.
package console
