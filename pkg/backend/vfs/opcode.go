// SPDX-License-Identifier: Apache-2.0

package vfs

import (
	"bytes"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Opcodes of enum fuse_opcode, linux/fuse.h of Linux 6.12.
const (
	opLookup        = 1
	opForget        = 2
	opGetattr       = 3
	opSetattr       = 4
	opReadlink      = 5
	opSymlink       = 6
	opMknod         = 8
	opMkdir         = 9
	opUnlink        = 10
	opRmdir         = 11
	opRename        = 12
	opLink          = 13
	opOpen          = 14
	opRead          = 15
	opWrite         = 16
	opStatfs        = 17
	opRelease       = 18
	opFsync         = 20
	opSetxattr      = 21
	opGetxattr      = 22
	opListxattr     = 23
	opRemovexattr   = 24
	opFlush         = 25
	opInit          = 26
	opOpendir       = 27
	opReaddir       = 28
	opReleasedir    = 29
	opFsyncdir      = 30
	opCreate        = 35
	opDestroy       = 38
	opBatchForget   = 42
	opFallocate     = 43
	opReaddirplus   = 44
	opRename2       = 45
	opLseek         = 46
	opCopyFileRange = 47
	opSyncfs        = 50
	opTmpfile       = 51
)

// Sizes in bytes of struct fuse_in_header, fuse_out_header, fuse_read_in and
// fuse_write_in, the latter two with the header.
const (
	inHeaderLen  = 40
	outHeaderLen = 16
	readInLen    = 80
	writeInLen   = 80
)

// Bounds of what is copied out of and built for the guest, in bytes.
const (
	maxRequest = 128 << 10 // largest request but a write: a 64 KiB attribute
	maxStruct  = 288       // largest fixed part of a reply
)

// operation says what a request of one opcode looks like: a fixed part of size
// bytes with the header, then so many names, each ended by NUL, then data if
// tail is set and nothing if not.
type operation struct {
	size  int
	names int
	tail  bool
}

// operations holds what is served. All others are answered with ENOSYS, upon
// which Linux does without: locks and poll are then the guest's own, access is
// checked by the guest (default_permissions), statx gets no time of birth, ioctl
// and DAX do not exist. There is no FUSE_INTERRUPT in virtio-fs.
var operations = map[uint32]operation{
	opLookup:        {size: 40, names: 1},
	opForget:        {size: 48},
	opGetattr:       {size: 56},
	opSetattr:       {size: 128},
	opReadlink:      {size: 40},
	opSymlink:       {size: 40, names: 2},
	opMknod:         {size: 56, names: 1},
	opMkdir:         {size: 48, names: 1},
	opUnlink:        {size: 40, names: 1},
	opRmdir:         {size: 40, names: 1},
	opRename:        {size: 48, names: 2},
	opLink:          {size: 48, names: 1},
	opOpen:          {size: 48},
	opRead:          {size: readInLen},
	opWrite:         {size: writeInLen, tail: true},
	opStatfs:        {size: 40},
	opRelease:       {size: 64},
	opFsync:         {size: 56},
	opSetxattr:      {size: 48, names: 1, tail: true},
	opGetxattr:      {size: 48, names: 1},
	opListxattr:     {size: 48},
	opRemovexattr:   {size: 40, names: 1},
	opFlush:         {size: 64},
	opInit:          {size: 104},
	opOpendir:       {size: 48},
	opReaddir:       {size: readInLen},
	opReleasedir:    {size: 64},
	opFsyncdir:      {size: 56},
	opCreate:        {size: 56, names: 1},
	opDestroy:       {size: 40},
	opBatchForget:   {size: 48, tail: true},
	opFallocate:     {size: 72},
	opReaddirplus:   {size: readInLen},
	opRename2:       {size: 56, names: 2},
	opLseek:         {size: 64},
	opCopyFileRange: {size: 96},
	opSyncfs:        {size: 48},
	opTmpfile:       {size: 56, names: 1},
}

// check says whether the private copy req has the form of op.
func (op operation) check(req []byte) fuse.Status {
	if len(req) < op.size {
		return fuse.EINVAL
	}
	rest := req[op.size:]
	for range op.names {
		i := bytes.IndexByte(rest, 0)
		if i < 0 {
			return fuse.EINVAL
		}
		rest = rest[i+1:]
	}
	if len(rest) > 0 && !op.tail {
		return fuse.EINVAL
	}
	return fuse.OK
}
