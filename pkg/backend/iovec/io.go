// SPDX-License-Identifier: Apache-2.0

package iovec

import "sync/atomic"

// IO is what has been read and written for a guest: bytes, and requests.
type IO struct {
	ReadBytes, WriteBytes uint64
	ReadOps, WriteOps     uint64
}

// Add adds what another has done.
func (io *IO) Add(o IO) {
	io.ReadBytes += o.ReadBytes
	io.WriteBytes += o.WriteBytes
	io.ReadOps += o.ReadOps
	io.WriteOps += o.WriteOps
}

// Counts is an IO that several goroutines count at once.
type Counts struct {
	ReadBytes, WriteBytes, ReadOps, WriteOps atomic.Uint64
}

// Load is the sum so far.
func (c *Counts) Load() IO {
	return IO{
		ReadBytes: c.ReadBytes.Load(), WriteBytes: c.WriteBytes.Load(),
		ReadOps: c.ReadOps.Load(), WriteOps: c.WriteOps.Load(),
	}
}
