// SPDX-License-Identifier: Apache-2.0

package hypercall

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/xen/abi"
)

// Device nodes of a dom0 kernel.
const (
	privcmdPath = "/dev/xen/privcmd"
	bufferPath  = "/dev/xen/hypercall"
	sysTypePath = "/sys/hypervisor/type"
)

// Version is what Open found.
type Version struct {
	Major, Minor uint32
	Extra        string // ".5" or similar, "" if unknown
	Domctl       uint32 // interface version of struct xen_domctl
}

func (v Version) String() string { return fmt.Sprintf("Xen %d.%d%s", v.Major, v.Minor, v.Extra) }

// Door makes hypercalls. Its methods may be used from several goroutines; after
// Close they fail with ErrClosed.
type Door struct {
	privcmd *os.File
	bufs    *arena
	version Version
	// raw makes a hypercall: viaPrivcmd, or a test's own.
	raw func(*privcmdCall) (uint64, error)
}

// Open opens Xen's devices and finds out its version. The error is ErrNoXen if
// this is no dom0, ErrVersion if Xen is of another release than 4.17 to 4.20.
func Open() (*Door, error) {
	d, err := open()
	if err != nil {
		return nil, fmt.Errorf("xen: open: %w", err)
	}
	return d, nil
}

func open() (*Door, error) {
	privcmd, err := openDevice(privcmdPath)
	if err != nil {
		return nil, err
	}
	buf, err := openDevice(bufferPath)
	if err != nil {
		return nil, errors.Join(err, privcmd.Close())
	}
	bufs, err := newArena(int(buf.Fd()))
	// The mapping outlives its descriptor.
	if err = errors.Join(err, buf.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", bufferPath, err), privcmd.Close())
	}
	d := &Door{privcmd: privcmd, bufs: bufs}
	d.raw = d.viaPrivcmd
	if d.version, err = d.probe(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// openDevice opens one of Xen's nodes; a missing one is explained.
func openDevice(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	kind, readErr := os.ReadFile(sysTypePath)
	if readErr == nil && strings.TrimSpace(string(kind)) == "xen" {
		return nil, fmt.Errorf("%w: %s is missing; load the kernel module with `modprobe xen-privcmd`", ErrNoXen, path)
	}
	return nil, fmt.Errorf("%w: this kernel does not run under Xen; boot the machine with Xen 4.17 to 4.20 (Debian: xen-hypervisor-4.17-amd64)", ErrNoXen)
}

// Close waits for running calls and releases everything. It may be called twice.
func (d *Door) Close() error {
	err := d.bufs.close()
	if cerr := d.privcmd.Close(); !errors.Is(cerr, os.ErrClosed) {
		err = errors.Join(err, cerr)
	}
	return err
}

// Version is what Open found.
func (d *Door) Version() Version { return d.version }

// call makes one hypercall.
func (d *Door) call(op uint64, args ...uint64) (uint64, error) {
	c := privcmdCall{op: op}
	copy(c.arg[:], args)
	return d.raw(&c)
}

func (d *Door) viaPrivcmd(c *privcmdCall) (uint64, error) {
	conn, err := d.privcmd.SyscallConn()
	if err != nil {
		return 0, err
	}
	var ret uint64
	ctlErr := conn.Control(func(fd uintptr) { ret, err = ioctlCall(fd, c) })
	if ctlErr != nil {
		return 0, fmt.Errorf("%w: %w", ErrClosed, ctlErr)
	}
	return ret, err
}

// probe asks for Xen's version, then for the domctl interface: a wrong number is
// refused with EACCES before anything else is looked at.
func (d *Door) probe() (Version, error) {
	v, err := d.xenVersion()
	if err != nil {
		return v, err
	}
	for _, n := range abi.DomctlVersions {
		ok, err := d.speaks(n)
		if err != nil {
			return v, err
		}
		if ok {
			v.Domctl = n
			return v, nil
		}
	}
	return v, fmt.Errorf("%w: found %s with domctl interface %s; this program knows Xen 4.17 to 4.20 (%#x to %#x)",
		ErrVersion, v, d.foreignDomctl(), abi.DomctlVersions[0], abi.DomctlVersions[len(abi.DomctlVersions)-1])
}

func (d *Door) xenVersion() (Version, error) {
	var v Version
	buf, err := d.bufs.get()
	if err != nil {
		return v, err
	}
	defer d.bufs.put(buf)
	r, err := d.call(abi.HypercallXenVersion, abi.XenVerVersion, 0)
	if err != nil {
		return v, fmt.Errorf("ask for the version: %w", err)
	}
	v.Major, v.Minor = uint32(r>>16), uint32(r&0xffff)
	clear(buf[:abi.ExtraVersionLen])
	// Xen may hide it; the number is for people only.
	if _, err := d.call(abi.HypercallXenVersion, abi.XenVerExtraVersion, addrOf(buf)); err == nil {
		text, _, _ := bytes.Cut(buf[:abi.ExtraVersionLen], []byte{0})
		v.Extra = strings.ToValidUTF8(string(text), "?")
	}
	return v, nil
}

// speaks tells whether Xen takes domctl interface version n.
func (d *Door) speaks(n uint32) (bool, error) {
	buf, err := d.bufs.get()
	if err != nil {
		return false, err
	}
	defer d.bufs.put(buf)
	abi.PutDomctl(buf, abi.DomctlGetDomainInfo, n, 0)
	_, err = d.call(abi.HypercallDomctl, addrOf(buf))
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EACCES):
		return false, nil
	case errors.Is(err, unix.EPERM):
		return false, fmt.Errorf("%w: this domain may not create others; run in dom0: %w", ErrNoXen, err)
	}
	return false, fmt.Errorf("probe domctl interface %#x: %w", n, err)
}

// foreignDomctl names the interface version of a Xen that speaks none of ours.
func (d *Door) foreignDomctl() string {
	for n := uint32(0x0c); n < 0x30; n++ {
		if ok, err := d.speaks(n); err == nil && ok {
			return fmt.Sprintf("%#x", n)
		}
	}
	return "unknown"
}
