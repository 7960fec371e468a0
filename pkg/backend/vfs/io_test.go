// SPDX-License-Identifier: Apache-2.0

package vfs_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/backend/iovec"
	"github.com/xcontainer/xcontainer/pkg/backend/vfs"
	"github.com/xcontainer/xcontainer/pkg/backend/vfs/vfstest"
)

// TestIOCounts wants what was moved, not what was asked for, and nothing for
// what failed.
func TestIOCounts(t *testing.T) {
	w := newWorld(t, vfs.Config{}, vfs.PrivateOptions())
	e, fh, err := w.CreateFile(w.root, "file", unix.O_RDWR, 0o644)
	mustDo(t, err)
	for range 2 {
		_, err = w.WriteAt(e.Node, fh, 0, make([]byte, 5000), 0)
		mustDo(t, err)
	}
	_, err = w.ReadAt(e.Node, fh, 4000, 4096)
	mustDo(t, err)
	if _, err = w.ReadAt(e.Node, fh+1, 0, 100); err == nil {
		t.Error("read by an unknown handle")
	}
	reader, err := w.OpenFile(vfstest.Open, e.Node, unix.O_RDONLY)
	mustDo(t, err)
	if _, err = w.WriteAt(e.Node, reader, 0, []byte("x"), 0); err == nil {
		t.Error("wrote to a file open for reading")
	}
	want := iovec.IO{ReadBytes: 1000, ReadOps: 1, WriteBytes: 10000, WriteOps: 2}
	if got := w.fs.IO(); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}
