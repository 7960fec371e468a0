// SPDX-License-Identifier: Apache-2.0

package vfs

import (
	"bytes"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// maxXattr is the longest value, and the longest list of names, in bytes
// (XATTR_SIZE_MAX and XATTR_LIST_MAX of linux/limits.h).
const maxXattr = 64 << 10

const capabilityXattr = "security.capability"

// allowedXattr says whether an attribute is the guest's to see. All others mean
// something to the host or are beyond what a container may set.
func allowedXattr(name string) bool {
	return strings.HasPrefix(name, "user.") && len(name) > len("user.") || name == capabilityXattr
}

// withXattr runs f on the file of u, opened: the calls on a path would follow
// links. Only regular files and directories have attributes of the kinds that
// are allowed; none says what to answer for other types.
func (fs *FS) withXattr(u use, none fuse.Status, f func(fd int) error) fuse.Status {
	if u.n.typ != unix.S_IFREG && u.n.typ != unix.S_IFDIR || u.n.vol == nil {
		return none
	}
	fd, err := fs.reopen(u.fd, unix.O_RDONLY)
	if err != nil {
		return status(err)
	}
	defer unix.Close(fd)
	return status(again(func() error { return f(fd) }))
}

// GetXAttr reads an attribute into dest, or its size if dest is empty.
func (fs *FS) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	if !allowedXattr(attr) {
		return 0, eOpNotSupp
	}
	u, st := fs.begin(h.NodeId)
	if !st.Ok() {
		return 0, st
	}
	defer u.done()
	var n int
	st = fs.withXattr(u, fuse.ENODATA, func(fd int) (err error) {
		n, err = unix.Fgetxattr(fd, attr, dest)
		return err
	})
	return uint32(max(n, 0)), st
}

// ListXAttr lists the names of the attributes that the guest may see.
func (fs *FS) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	u, st := fs.begin(h.NodeId)
	if !st.Ok() {
		return 0, st
	}
	defer u.done()
	if u.n.typ != unix.S_IFREG && u.n.typ != unix.S_IFDIR || u.n.vol == nil {
		return 0, fuse.OK
	}
	var list []byte
	st = fs.withXattr(u, fuse.OK, func(fd int) error {
		n, err := unix.Flistxattr(fd, nil)
		if err != nil || n == 0 {
			return err
		}
		list = make([]byte, n+1024) // some may be added in between
		n, err = unix.Flistxattr(fd, list)
		list = list[:max(n, 0)]
		return err
	})
	if !st.Ok() {
		return 0, st
	}
	var seen []byte
	for name := range bytes.SplitAfterSeq(list, []byte{0}) {
		if allowedXattr(strings.TrimSuffix(string(name), "\x00")) {
			seen = append(seen, name...)
		}
	}
	if len(dest) > 0 && len(seen) > len(dest) {
		return 0, fuse.ERANGE
	}
	copy(dest, seen)
	return uint32(len(seen)), fuse.OK
}

// SetXAttr writes an attribute.
func (fs *FS) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	if !allowedXattr(attr) {
		return eOpNotSupp
	}
	if len(data) != int(in.Size) {
		return fuse.EINVAL
	}
	u, st := fs.beginChange(in.NodeId)
	if !st.Ok() {
		return st
	}
	defer u.done()
	return fs.withXattr(u, fuse.EPERM, func(fd int) error {
		return unix.Fsetxattr(fd, attr, data, int(in.Flags))
	})
}

// RemoveXAttr removes an attribute.
func (fs *FS) RemoveXAttr(_ <-chan struct{}, h *fuse.InHeader, attr string) fuse.Status {
	if !allowedXattr(attr) {
		return eOpNotSupp
	}
	u, st := fs.beginChange(h.NodeId)
	if !st.Ok() {
		return st
	}
	defer u.done()
	return fs.withXattr(u, fuse.EPERM, func(fd int) error { return unix.Fremovexattr(fd, attr) })
}
