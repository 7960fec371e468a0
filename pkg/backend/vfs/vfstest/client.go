// SPDX-License-Identifier: Apache-2.0

package vfstest

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Opcodes of linux/fuse.h that tests name.
const (
	Lookup     = 1
	Forget     = 2
	Getattr    = 3
	Setattr    = 4
	Readlink   = 5
	Symlink    = 6
	Mknod      = 8
	Mkdir      = 9
	Unlink     = 10
	Rmdir      = 11
	Rename     = 12
	Link       = 13
	Open       = 14
	Read       = 15
	Write      = 16
	Statfs     = 17
	Release    = 18
	Fsync      = 20
	Setxattr   = 21
	Getxattr   = 22
	Listxattr  = 23
	Removexatt = 24
	Flush      = 25
	Init       = 26
	Opendir    = 27
	Readdir    = 28
	Releasedir = 29
	Getlk      = 31
	Access     = 34
	Create     = 35
	Interrupt  = 36
	Destroy    = 38
	Ioctl      = 39
	Poll       = 40
	BatchForg  = 42
	Fallocate  = 43
	Readdirpl  = 44
	Rename2    = 45
	Lseek      = 46
	Syncfs     = 50
	Tmpfile    = 51
	Statx      = 52
)

// Root is the node id of the file system's root.
const Root = 1

// Client sends requests through Do, which carries them to a server and returns
// how many bytes of out were written.
type Client struct {
	Do       func(in, out [][]byte) int
	UID, GID uint32

	unique atomic.Uint64
}

// Header returns struct fuse_in_header.
func (c *Client) Header(op uint32, unique, node uint64, size int) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(size))
	b = binary.LittleEndian.AppendUint32(b, op)
	b = binary.LittleEndian.AppendUint64(b, unique)
	b = binary.LittleEndian.AppendUint64(b, node)
	b = binary.LittleEndian.AppendUint32(b, c.UID)
	b = binary.LittleEndian.AppendUint32(b, c.GID)
	b = binary.LittleEndian.AppendUint32(b, 1) // pid
	return binary.LittleEndian.AppendUint32(b, 0)
}

// Call sends a request of the fixed fields and data that parts hold and returns
// what follows the reply's header, of which there is room for size bytes. A
// reply that is not well-formed is an error that is no errno.
func (c *Client) Call(op uint32, node uint64, size int, parts ...[]byte) ([]byte, error) {
	var body []byte
	for _, p := range parts {
		body = append(body, p...)
	}
	unique := c.unique.Add(1)
	req := append(c.Header(op, unique, node, 40+len(body)), body...)
	out := make([]byte, 16+size)
	n := c.Do(Pages(req), Pages(out))
	return Parse(out[:n], unique)
}

// Parse checks a reply and returns what follows its header.
func Parse(reply []byte, unique uint64) ([]byte, error) {
	if len(reply) < 16 {
		return nil, fmt.Errorf("reply of %d bytes", len(reply))
	}
	size := binary.LittleEndian.Uint32(reply)
	errno := int32(binary.LittleEndian.Uint32(reply[4:]))
	got := binary.LittleEndian.Uint64(reply[8:])
	switch {
	case int(size) != len(reply):
		return nil, fmt.Errorf("reply of %d bytes says %d", len(reply), size)
	case got != unique:
		return nil, fmt.Errorf("reply to %d answers %d", unique, got)
	case errno > 0 || errno <= -512:
		return nil, fmt.Errorf("reply has error %d", errno)
	case errno < 0 && size != 16:
		return nil, fmt.Errorf("reply with error %d has %d bytes", errno, size)
	case errno < 0:
		return nil, unix.Errno(-errno)
	}
	return reply[16:], nil
}

// Pages cuts b into pieces of one page, which is how a guest's bounce buffers
// arrive.
func Pages(b []byte) (p [][]byte) {
	for len(b) > 4096 {
		p, b = append(p, b[:4096]), b[4096:]
	}
	if len(b) > 0 {
		p = append(p, b)
	}
	return p
}

// Name is a name with its NUL.
func Name(s string) []byte { return append([]byte(s), 0) }

// U32 and U64 are fixed fields.
func U32(v ...uint32) (b []byte) {
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, x)
	}
	return b
}

// U64 is U32 for wider fields.
func U64(v ...uint64) (b []byte) {
	for _, x := range v {
		b = binary.LittleEndian.AppendUint64(b, x)
	}
	return b
}

// InitBody is struct fuse_init_in of a kernel that can do everything.
func InitBody() []byte {
	b := U32(7, 41, 128<<10, 0xffffffff, 0xffffffff)
	return append(b, make([]byte, 44)...)
}

// Mount sends INIT and returns the reply's flags and max_write.
func (c *Client) Mount() (flags uint64, maxWrite uint32, err error) {
	b, err := c.Call(Init, 0, 64, InitBody())
	if err != nil {
		return 0, 0, err
	}
	flags = uint64(binary.LittleEndian.Uint32(b[12:])) | uint64(binary.LittleEndian.Uint32(b[32:]))<<32
	return flags, binary.LittleEndian.Uint32(b[20:]), nil
}

// Entry is what LOOKUP and the calls that make a file return.
type Entry struct {
	Node               uint64
	EntryTTL, AttrTTL  uint64 // seconds
	Ino, Size          uint64
	Mode, Nlink        uint32
	UID, GID           uint32
	EntryNsec, AttrNse uint32
}

// ParseEntry decodes struct fuse_entry_out.
func ParseEntry(b []byte) Entry {
	u32, u64 := binary.LittleEndian.Uint32, binary.LittleEndian.Uint64
	return Entry{
		Node: u64(b), EntryTTL: u64(b[16:]), AttrTTL: u64(b[24:]),
		EntryNsec: u32(b[32:]), AttrNse: u32(b[36:]),
		Ino: u64(b[40:]), Size: u64(b[48:]),
		Mode: u32(b[100:]), Nlink: u32(b[104:]), UID: u32(b[108:]), GID: u32(b[112:]),
	}
}

// entryLen is the size of struct fuse_entry_out.
const entryLen = 128

// Entry sends a request that is answered with an entry.
func (c *Client) Entry(op uint32, node uint64, parts ...[]byte) (Entry, error) {
	b, err := c.Call(op, node, entryLen, parts...)
	if err != nil {
		return Entry{}, err
	}
	if len(b) != entryLen {
		return Entry{}, fmt.Errorf("entry of %d bytes", len(b))
	}
	return ParseEntry(b), nil
}

// Walk looks up one name after the other from the root and returns the last
// entry. A name that the server says is not there gives ENOENT.
func (c *Client) Walk(names ...string) (Entry, error) {
	e := Entry{Node: Root}
	for _, name := range names {
		var err error
		if e, err = c.Entry(Lookup, e.Node, Name(name)); err != nil {
			return e, err
		}
		if e.Node == 0 {
			return e, unix.ENOENT
		}
	}
	return e, nil
}

// OpenFile opens node, a directory if op is Opendir, and returns the handle.
func (c *Client) OpenFile(op uint32, node uint64, flags uint32) (uint64, error) {
	b, err := c.Call(op, node, 16, U32(flags, 0))
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b), nil
}

// CreateFile makes and opens a file.
func (c *Client) CreateFile(dir uint64, name string, flags, mode uint32) (Entry, uint64, error) {
	b, err := c.Call(Create, dir, entryLen+16, U32(flags, mode, 0, 0), Name(name))
	if err != nil {
		return Entry{}, 0, err
	}
	return ParseEntry(b), binary.LittleEndian.Uint64(b[entryLen:]), nil
}

// ReadAt reads up to size bytes.
func (c *Client) ReadAt(node, fh, off uint64, size uint32) ([]byte, error) {
	return c.Call(Read, node, int(size), U64(fh, off), U32(size, 0), U64(0), U32(0, 0))
}

// WriteAt writes data with the given write flags.
func (c *Client) WriteAt(node, fh, off uint64, data []byte, flags uint32) (uint32, error) {
	b, err := c.Call(Write, node, 8, U64(fh, off), U32(uint32(len(data)), flags), U64(0), U32(0, 0), data)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(b), nil
}

// Close releases a handle.
func (c *Client) Close(op uint32, node, fh uint64) error {
	_, err := c.Call(op, node, 0, U64(fh), U32(0, 0), U64(0))
	return err
}

// List reads a whole directory and returns the names in it.
func (c *Client) List(node uint64) ([]string, error) {
	fh, err := c.OpenFile(Opendir, node, 0)
	if err != nil {
		return nil, err
	}
	defer c.Close(Releasedir, node, fh)
	var names []string
	for off := uint64(0); ; {
		b, err := c.Call(Readdir, node, 4096, U64(fh, off), U32(4096, 0), U64(0), U32(0, 0))
		if err != nil || len(b) == 0 {
			return names, err
		}
		for len(b) >= 24 {
			n := int(binary.LittleEndian.Uint32(b[16:]))
			off = binary.LittleEndian.Uint64(b[8:])
			names = append(names, string(b[24:24+n]))
			b = b[(24+n+7)&^7:]
		}
	}
}
