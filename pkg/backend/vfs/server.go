// SPDX-License-Identifier: Apache-2.0

package vfs

import (
	"bytes"
	"encoding/binary"
	"io"
	"log"
	"runtime/debug"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/backend/iovec"
)

// minMinor is the oldest minor version of FUSE that is served: the first whose
// INIT has max_pages (Linux 4.20).
const minMinor = 28

const pageSize = 4096

// pollHack is a name in the root that go-fuse answers by itself, with a node of
// its own, for programs that mount what they serve (its poll.go).
var pollHack = []byte(".go-fuse-epoll-hack\x00")

// Server is the gate between request bytes of a guest and an FS. It checks the
// form of each request on a private copy and sees to it that each gets a
// well-formed reply. Only file data is moved from and to the guest's memory
// directly.
type Server struct {
	fs    *FS
	pages int
	logf  func(format string, args ...any)

	// mu is held for reading by each request, and for writing by INIT,
	// DESTROY and Reset.
	mu sync.RWMutex
	ps *fuse.ProtocolServer // nil: not mounted

	panicked sync.Once
}

// NewServer returns a server of fs. pages bounds the data of a request: a queue
// of Q descriptors carries Q−4 pages (docs/noxs.md 7). logf is told of faults of
// the service itself, not of the guest's.
func NewServer(fs *FS, pages int, logf func(format string, args ...any)) *Server {
	return &Server{fs: fs, pages: pages, logf: logf}
}

// Reset unmounts: it waits for requests under way, closes all files and forgets
// all nodes. The guest may mount again.
func (s *Server) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resetLocked()
}

func (s *Server) resetLocked() {
	s.ps = nil
	s.fs.Reset()
}

// Handle carries out the request in the bytes of in and writes the reply to out.
// Both may be memory that someone else changes meanwhile. It returns the number
// of bytes written, 0 for a request that has no reply, and may be called from
// any goroutine.
func (s *Server) Handle(in, out [][]byte) int {
	var head [writeInLen]byte
	got := iovec.Gather(head[:], in)
	if got < inHeaderLen {
		unique := uint64(0)
		if got >= 16 {
			unique = binary.LittleEndian.Uint64(head[8:])
		}
		return refuse(out, unique, fuse.EIO)
	}
	h := parseHeader(head[:])
	op, known := operations[h.opcode]
	total := iovec.Len(in)
	switch {
	case !known:
		return refuse(out, h.unique, fuse.ENOSYS)
	case h.opcode == opForget || h.opcode == opBatchForget:
		out = nil // has no reply, not even of an error
	}
	switch {
	case uint64(h.length) != total || total < uint64(op.size):
		return refuse(out, h.unique, fuse.EINVAL)
	case h.extLen != 0 || h.node == ^uint64(0): // extensions are not negotiated; go-fuse gives that node a meaning
		return refuse(out, h.unique, fuse.EINVAL)
	case h.opcode == opRead || h.opcode == opWrite:
		return s.data(h, head[:], in, out)
	case total > maxRequest:
		return refuse(out, h.unique, fuse.Status(unix.E2BIG))
	}
	req := make([]byte, total)
	iovec.Gather(req, in)
	copy(req, head[:got]) // what was looked at is what is used
	if st := op.check(req); !st.Ok() {
		return refuse(out, h.unique, st)
	}
	if h.node == fuse.FUSE_ROOT_ID && op.names > 0 && bytes.HasPrefix(req[op.size:], pollHack) {
		return refuse(out, h.unique, fuse.ENOENT)
	}
	switch h.opcode {
	case opInit:
		return s.init(h, req, out)
	case opDestroy:
		s.Reset()
		return refuse(out, h.unique, fuse.OK)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	switch {
	case s.ps == nil:
		return refuse(out, h.unique, fuse.EIO)
	case h.opcode == opSyncfs:
		return refuse(out, h.unique, s.fs.Sync())
	}
	return s.pass(h, req, out)
}

// init starts a session.
func (s *Server) init(h header, req []byte, out [][]byte) int {
	major, minor := binary.LittleEndian.Uint32(req[40:]), binary.LittleEndian.Uint32(req[44:])
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ps != nil:
		return refuse(out, h.unique, fuse.EBUSY)
	case major != 7 || minor < minMinor:
		return refuse(out, h.unique, fuse.Status(unix.EPROTO))
	}
	s.ps = fuse.NewProtocolServer(s.fs, s.mountOptions())
	n := s.pass(h, req, out)
	if n <= outHeaderLen { // an error
		s.resetLocked()
	}
	return n
}

// mountOptions says what is offered to the guest's kernel. Without the writeback
// cache each write reaches the host before it returns, so the host's view of
// size and times is the right one and a file open for writing only need not be
// readable; whether it is worth giving that up is to be measured.
func (s *Server) mountOptions() *fuse.MountOptions {
	return &fuse.MountOptions{
		MaxWrite:             s.pages * pageSize,
		Logger:               log.New(io.Discard, "", 0), // it tells of each bad request
		EnableSymlinkCaching: true,
		ExtraCapabilities: fuse.CAP_ATOMIC_O_TRUNC | fuse.CAP_HANDLE_KILLPRIV_V2 |
			fuse.CAP_READDIRPLUS_AUTO | fuse.CAP_ASYNC_DIO,
		DisabledCapabilities: fuse.CAP_PASSTHROUGH | fuse.CAP_NO_OPEN_SUPPORT | fuse.CAP_ALLOW_IDMAP,
		PanicHandler: func(v any) fuse.Status {
			s.panicked.Do(func() { s.logf("vfs: request panicked: %v\n%s", v, debug.Stack()) })
			return fuse.EIO
		},
	}
}

// pass hands a request that was checked to go-fuse, with a private buffer for
// the reply: some of what is written to it is read again.
func (s *Server) pass(h header, req []byte, out [][]byte) int {
	room := maxStruct
	switch h.opcode {
	case opReaddir, opReaddirplus:
		room = int(min(binary.LittleEndian.Uint32(req[56:]), uint32(s.pages*pageSize)))
		binary.LittleEndian.PutUint32(req[56:], uint32(room))
	case opGetxattr, opListxattr:
		size := min(binary.LittleEndian.Uint32(req[40:]), maxXattr)
		binary.LittleEndian.PutUint32(req[40:], size)
		room += int(size)
	case opReadlink:
		room = maxTarget + 1
	}
	reply := make([]byte, min(uint64(outHeaderLen+room), iovec.Len(out)))
	n, st := s.ps.HandleRequest([][]byte{req}, [][]byte{reply})
	switch {
	case n == 0 && st.Ok() && len(out) == 0: // forget
		return 0
	case n < outHeaderLen || uint64(binary.LittleEndian.Uint32(reply)) != uint64(n):
		return refuse(out, h.unique, fuse.EIO) // no room for the reply
	}
	return iovec.Scatter(out, reply[:n])
}

// data carries out READ and WRITE on the guest's memory. head is a private copy
// of the fixed part of the request.
func (s *Server) data(h header, head []byte, in, out [][]byte) int {
	size := uint64(binary.LittleEndian.Uint32(head[56:]))
	st := fuse.OK
	switch {
	case size > uint64(s.pages*pageSize):
		st = fuse.EINVAL
	case h.opcode == opWrite && uint64(h.length) != writeInLen+size:
		st = fuse.EINVAL
	case h.opcode == opRead && iovec.Len(out) < outHeaderLen+size:
		st = fuse.EINVAL
	case h.opcode == opWrite && iovec.Len(out) < outHeaderLen+8:
		st = fuse.EINVAL
	}
	if !st.Ok() {
		return refuse(out, h.unique, st)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.ps == nil {
		return refuse(out, h.unique, fuse.EIO)
	}
	owner := fuse.InHeader{NodeId: h.node}
	fh, off := binary.LittleEndian.Uint64(head[40:]), binary.LittleEndian.Uint64(head[48:])
	if h.opcode == opRead {
		n, st := s.fs.readTo(&fuse.ReadIn{InHeader: owner, Fh: fh, Offset: off}, part(out, outHeaderLen, int(size)))
		if !st.Ok() {
			return refuse(out, h.unique, st)
		}
		iovec.Scatter(out, outHeader(h.unique, fuse.OK, n))
		return outHeaderLen + n
	}
	n, st := s.fs.Writev(nil, &fuse.WriteIn{
		InHeader: owner, Fh: fh, Offset: off, Size: uint32(size),
		WriteFlags: binary.LittleEndian.Uint32(head[60:]),
	}, part(in, writeInLen, int(size)))
	count(&s.fs.io.WriteBytes, &s.fs.io.WriteOps, int(n), st)
	if !st.Ok() {
		return refuse(out, h.unique, st)
	}
	reply := outHeader(h.unique, fuse.OK, 8)
	reply = binary.LittleEndian.AppendUint32(reply, n)
	return iovec.Scatter(out, append(reply, 0, 0, 0, 0))
}

// readTo reads a handle straight into dst.
func (fs *FS) readTo(in *fuse.ReadIn, dst [][]byte) (int, fuse.Status) {
	in.Size = uint32(iovec.Len(dst))
	r, st := fs.startRead(in)
	if !st.Ok() {
		return 0, st
	}
	defer r.Done()
	n, st := r.Readv(dst)
	count(&fs.io.ReadBytes, &fs.io.ReadOps, n, st)
	return n, st
}

// header is struct fuse_in_header without the caller's ids.
type header struct {
	length uint32
	opcode uint32
	unique uint64
	node   uint64
	extLen uint16
}

func parseHeader(b []byte) header {
	return header{
		length: binary.LittleEndian.Uint32(b),
		opcode: binary.LittleEndian.Uint32(b[4:]),
		unique: binary.LittleEndian.Uint64(b[8:]),
		node:   binary.LittleEndian.Uint64(b[16:]),
		extLen: binary.LittleEndian.Uint16(b[36:]),
	}
}

// outHeader returns struct fuse_out_header of a reply with n bytes after it, and
// room for more.
func outHeader(unique uint64, st fuse.Status, n int) []byte {
	b := make([]byte, outHeaderLen, 32)
	binary.LittleEndian.PutUint32(b, uint32(outHeaderLen+n))
	binary.LittleEndian.PutUint32(b[4:], uint32(-int32(st)))
	binary.LittleEndian.PutUint64(b[8:], unique)
	return b
}

// refuse replies with a status and nothing else, if out has room for it.
func refuse(out [][]byte, unique uint64, st fuse.Status) int {
	if iovec.Len(out) < outHeaderLen {
		return 0
	}
	return iovec.Scatter(out, outHeader(unique, st, 0))
}

// part returns the n bytes of bufs from off on, which there are.
func part(bufs [][]byte, off, n int) [][]byte {
	var p [][]byte
	for _, b := range bufs {
		if off >= len(b) {
			off -= len(b)
			continue
		}
		b = b[off:]
		off = 0
		if n < len(b) {
			b = b[:n]
		}
		if len(b) == 0 {
			break
		}
		n -= len(b)
		p = append(p, b)
	}
	return p
}
