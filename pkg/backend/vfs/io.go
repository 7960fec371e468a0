// SPDX-License-Identifier: Apache-2.0

package vfs

import (
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/xcontainer/xcontainer/pkg/backend/iovec"
)

// IO is the file data that the guest has read and written since the file system
// was made, and the requests that succeeded in it. What the guest has in its own
// cache it does not ask for.
func (fs *FS) IO() iovec.IO { return fs.io.Load() }

// count adds a request that moved n bytes, if it succeeded.
func count(bytes, ops *atomic.Uint64, n int, st fuse.Status) {
	if st.Ok() {
		bytes.Add(uint64(n))
		ops.Add(1)
	}
}
