// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// The largest device numbers (include/linux/kdev_t.h).
const (
	maxMajor = 1<<12 - 1
	maxMinor = 1<<20 - 1
)

// nodeTypes are the kinds of node, by their letters in the OCI specification.
var nodeTypes = map[string]struct {
	mode   uint32
	class  string // folder of /sys/dev; "" for what is no device
	letter string
}{
	"c": {unix.S_IFCHR, "char", "c"},
	"u": {unix.S_IFCHR, "char", "c"},
	"b": {unix.S_IFBLK, "block", "b"},
	"p": {unix.S_IFIFO, "", "p"},
}

// makeDevices makes the container's nodes below root; the process's umask must
// be 0.
func makeDevices(root int, list []*agentapi.Device) error {
	for _, d := range list {
		if err := makeDevice(root, d); err != nil {
			return err
		}
	}
	return nil
}

func makeDevice(root int, d *agentapi.Device) error {
	t, ok := nodeTypes[d.GetType()]
	name := path.Clean(d.GetPath())
	switch {
	case !ok:
		return failf(codes.InvalidArgument, "device %s: unknown type %q", d.GetPath(), d.GetType())
	case !path.IsAbs(name) || name == "/":
		return failf(codes.InvalidArgument, "device %q: its path is not absolute", d.GetPath())
	}
	mode, rdev := t.mode|d.GetMode()&0o7777, uint64(0)
	if t.class != "" {
		if err := haveDevice(t.class, d.GetMajor(), d.GetMinor()); err != nil {
			return failf(codes.InvalidArgument, "device %s (%s %d:%d): %v", name, t.letter, d.GetMajor(), d.GetMinor(), err)
		}
		rdev = unix.Mkdev(uint32(d.GetMajor()), uint32(d.GetMinor()))
	}
	parent, err := mkdirAllIn(root, path.Dir(name), 0o755)
	if err != nil {
		return fmt.Errorf("device %s: %w", name, err)
	}
	defer unix.Close(parent)
	base := path.Base(name)
	err = unix.Mknodat(parent, base, mode, int(rdev))
	if errors.Is(err, unix.EEXIST) {
		return sameNode(root, name, t.mode, rdev)
	}
	if err == nil {
		err = unix.Fchownat(parent, base, int(d.GetUid()), int(d.GetGid()), unix.AT_SYMLINK_NOFOLLOW)
	}
	if err == nil && mode&0o6000 != 0 {
		// A change of owner clears these bits.
		err = unix.Fchmodat(parent, base, mode&0o7777, 0)
	}
	if err != nil {
		return fmt.Errorf("make device %s: %w", name, err)
	}
	return nil
}

// haveDevice reports why the guest's kernel has no such device.
func haveDevice(class string, major, minor int64) error {
	if major < 0 || major > maxMajor || minor < 0 || minor > maxMinor {
		return errors.New("no device has such a number")
	}
	// The agent's /sys, since this runs before pivot.
	if _, err := os.Lstat(fmt.Sprintf("/sys/dev/%s/%d:%d", class, major, minor)); err != nil {
		return errors.New("the guest's kernel has no such device")
	}
	return nil
}

// sameNode accepts a node that is there already and is the one that is wanted,
// also by a link like that of /dev/ptmx.
func sameNode(root int, name string, mode uint32, rdev uint64) error {
	var st unix.Stat_t
	if fd, err := openIn(root, name, unix.O_PATH); err == nil {
		err = unix.Fstat(fd, &st)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("device %s: %w", name, err)
		}
	}
	if st.Mode&unix.S_IFMT != mode || st.Rdev != rdev {
		return failf(codes.InvalidArgument, "device %s: another file of that name exists", name)
	}
	return nil
}
