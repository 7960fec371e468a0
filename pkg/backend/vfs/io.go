// SPDX-License-Identifier: Apache-2.0

package vfs

import (
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// IO counts the file data that the guest has read and written, and the requests
// that succeeded in it. What the guest has in its own cache it does not ask for.
type IO struct {
	ReadBytes, WriteBytes uint64
	ReadOps, WriteOps     uint64
}

// IO is the sum since the file system was made.
func (fs *FS) IO() IO {
	return IO{
		ReadBytes: fs.io.readBytes.Load(), WriteBytes: fs.io.writeBytes.Load(),
		ReadOps: fs.io.readOps.Load(), WriteOps: fs.io.writeOps.Load(),
	}
}

type ioCounts struct {
	readBytes, writeBytes, readOps, writeOps atomic.Uint64
}

func (c *ioCounts) read(n int, st fuse.Status) {
	if st.Ok() {
		c.readBytes.Add(uint64(n))
		c.readOps.Add(1)
	}
}

func (c *ioCounts) write(n int, st fuse.Status) {
	if st.Ok() {
		c.writeBytes.Add(uint64(n))
		c.writeOps.Add(1)
	}
}
