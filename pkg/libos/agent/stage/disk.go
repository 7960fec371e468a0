// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// sysBlock lists the guest's disks.
const sysBlock = "/sys/block"

// maxRootMounts bounds what a root file system is made of.
const maxRootMounts = 32

// rootTypes are the file systems of which a root can be made: from a disk, or
// of other mounts.
var rootTypes = map[string]struct{ disk bool }{
	"ext4":    {disk: true},
	"xfs":     {disk: true},
	"erofs":   {disk: true},
	"overlay": {},
	"tmpfs":   {},
	"bind":    {},
}

// rootMounts makes the mounts of a root file system one after the other, and
// keeps the directory of each for those that name it. All but the last are
// attached at one point of the agent's tree, which goes when the container's
// root has replaced it: overlay takes nothing that is not attached.
type rootMounts struct {
	exports int
	point   string
	trees   []int // one for each mount so far
	dirs    []int // what else is open until all is mounted

	disks *guestDisks // what diskPath has seen
}

// guestDisks are the disks of the guest.
type guestDisks struct {
	names map[string]string // of block devices, by serial number
	count int               // of all, those without a serial number too
}

// mountAll returns the last of list, which is attached nowhere and is the
// caller's.
func (r *rootMounts) mountAll(list []*agentapi.Mount) (root int, err error) {
	if len(list) > maxRootMounts {
		return -1, failf(codes.InvalidArgument, "root file system of %d mounts, at most %d", len(list), maxRootMounts)
	}
	defer func() {
		for _, fd := range slices.Concat(r.trees, r.dirs) {
			unix.Close(fd)
		}
	}()
	for i, m := range list {
		tree, err := r.mount(m)
		if err != nil {
			return -1, fmt.Errorf("root file system, mount %d (%s): %w", i, m.GetType(), err)
		}
		if i == len(list)-1 {
			return tree, nil
		}
		r.trees = append(r.trees, tree)
		if err := attachAt(r.point, tree); err != nil {
			return -1, fmt.Errorf("root file system, mount %d (%s): attach: %w", i, m.GetType(), err)
		}
	}
	return -1, failf(codes.InvalidArgument, "root file system of no mounts")
}

// attachAt puts a detached mount on top of all that is mounted at a path.
func attachAt(point string, tree int) error {
	at, err := unix.Open(point, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", point, err)
	}
	defer unix.Close(at)
	return moveMount(tree, at)
}

// rootOption is what is left of an option for the file system itself; without a
// value it is a flag.
type rootOption struct {
	key, value string
	flag       bool
}

// mount makes one mount, attached nowhere.
func (r *rootMounts) mount(m *agentapi.Mount) (int, error) {
	kind, ok := rootTypes[m.GetType()]
	if !ok {
		return -1, failf(codes.InvalidArgument, "a root file system cannot be made of type %q", m.GetType())
	}
	attr, opts, err := r.options(m)
	if err != nil {
		return -1, err
	}
	if m.GetType() == "bind" {
		return r.bind(m, attr)
	}
	source := m.GetSource()
	if kind.disk {
		if source, err = r.diskPath(source); err != nil {
			return -1, err
		}
	}
	return r.newSuper(m.GetType(), source, attr, opts)
}

// options takes a mount's options apart and makes the directories that they ask
// for. The kernel judges those that are not known here.
func (r *rootMounts) options(m *agentapi.Mount) (attr mountOptions, opts []rootOption, err error) {
	for _, o := range m.GetOptions() {
		key, value, hasValue := strings.Cut(o, "=")
		switch a, isAttr := attributes[o]; {
		case o == "ro":
			opts = append(opts, rootOption{key: "ro", flag: true}) // the superblock too
			attr.set |= unix.MOUNT_ATTR_RDONLY
		case isAttr:
			attr.set = attr.set&^a.clear | a.set
		case slices.Contains(defaults, o):
		case m.GetType() == "bind" && (o == "bind" || o == "rbind"):
			attr.recursive = attr.recursive || o == "rbind"
		case key == "mkdir" && hasValue:
			err = r.mkdir(value)
		case m.GetType() == "overlay" && slices.Contains(overlayDirs, key):
			opts, err = r.overlayDir(opts, key, value)
		case m.GetType() == "erofs" && key == "device":
			if value, err = r.diskPath(value); err == nil {
				opts = append(opts, rootOption{key: key, value: value})
			}
		case m.GetType() == "bind":
			err = failf(codes.InvalidArgument, "unknown option %q", o)
		default:
			opts = append(opts, rootOption{key, value, !hasValue})
		}
		if err != nil {
			return attr, nil, fmt.Errorf("option %q: %w", o, err)
		}
	}
	return attr, opts, nil
}

// overlayDirs are the options of overlay that name directories of other mounts.
var overlayDirs = []string{"lowerdir", "upperdir", "workdir"}

// overlayDir appends the option for each directory in value. The names that the
// kernel gets are of descriptors: what they mean cannot change any more, and
// needs no escape.
func (r *rootMounts) overlayDir(opts []rootOption, key, value string) ([]rootOption, error) {
	for place := range strings.SplitSeq(value, ":") {
		fd, err := r.open(place)
		if err != nil {
			return nil, err
		}
		r.dirs = append(r.dirs, fd)
		name := key
		if key == "lowerdir" {
			name = "lowerdir+" // one layer at a time
		}
		opts = append(opts, rootOption{key: name, value: "/proc/self/fd/" + strconv.Itoa(fd)})
	}
	return opts, nil
}

// newSuper makes a file system's superblock and a mount of it.
func (r *rootMounts) newSuper(fstype, source string, attr mountOptions, opts []rootOption) (int, error) {
	ctx, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENODEV) {
		return -1, failf(codes.InvalidArgument, "the guest's kernel has no file system %s", fstype)
	}
	if err != nil {
		return -1, err
	}
	defer unix.Close(ctx)
	if err := unix.FsconfigSetString(ctx, "source", source); err != nil {
		return -1, fmt.Errorf("source %q: %w", source, err)
	}
	for _, o := range opts {
		if o.flag {
			err = unix.FsconfigSetFlag(ctx, o.key)
		} else {
			err = unix.FsconfigSetString(ctx, o.key, o.value)
		}
		if err != nil {
			return -1, withLog(ctx, fmt.Errorf("option %q: %w", o.key, err))
		}
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return -1, withLog(ctx, err)
	}
	return unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, int(attr.set))
}

// withLog adds what the kernel has to say about a file system's configuration.
func withLog(ctx int, err error) error {
	buf := make([]byte, 512)
	for range 8 {
		n, rerr := unix.Read(ctx, buf)
		if rerr != nil || n <= 0 {
			break
		}
		// A line is "e ", "w " or "i " and a text.
		if line := strings.TrimSpace(string(buf[:n])); strings.HasPrefix(line, "e ") {
			err = fmt.Errorf("%w (%s)", err, line[2:])
		}
	}
	return err
}

// bind makes a mount of a directory of an earlier mount or of an export.
func (r *rootMounts) bind(m *agentapi.Mount, attr mountOptions) (int, error) {
	if !strings.HasPrefix(m.GetSource(), "@") {
		return cloneExportDir(r.exports, m.GetSource(), &attr)
	}
	src, err := r.open(m.GetSource())
	if err != nil {
		return -1, err
	}
	defer unix.Close(src)
	tree, err := cloneTree(src, attr.recursive)
	if err != nil {
		return -1, err
	}
	if err := changeTree(tree, &attr); err != nil {
		unix.Close(tree)
		return -1, err
	}
	return tree, nil
}

// split takes "@N" or "@N/path" apart: a mount made before, and a path in it.
func (r *rootMounts) split(place string) (tree int, name string, err error) {
	num, name, _ := strings.Cut(strings.TrimPrefix(place, "@"), "/")
	n, err := strconv.ParseUint(num, 10, 16)
	if err != nil || !strings.HasPrefix(place, "@") || n >= uint64(len(r.trees)) {
		return -1, "", failf(codes.InvalidArgument, "%q names no directory of an earlier mount", place)
	}
	if name == "" {
		name = "."
	}
	return r.trees[n], name, nil
}

// open opens a directory of an earlier mount, which the image may have filled
// with links: none is followed.
func (r *rootMounts) open(place string) (int, error) {
	tree, name, err := r.split(place)
	if err != nil {
		return -1, err
	}
	fd, err := openBeneath(tree, name, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", place, err)
	}
	return fd, nil
}

// mkdir makes a directory of an earlier mount: "@N/path", "@N/path:mode" or
// "@N/path:mode:uid:gid", mode octal. One that exists stays as it is.
func (r *rootMounts) mkdir(value string) error {
	parts := strings.Split(value, ":")
	nums := []uint64{0o700, 0, 0}
	if len(parts) == 3 || len(parts) > 4 {
		return failf(codes.InvalidArgument, "want PATH[:MODE[:UID:GID]]")
	}
	for i, p := range parts[1:] {
		base := 10
		if i == 0 {
			base = 8
		}
		n, err := strconv.ParseUint(p, base, 31)
		if err != nil || i == 0 && n&^0o777 != 0 {
			return failf(codes.InvalidArgument, "%q is no mode or id", p)
		}
		nums[i] = n
	}
	tree, name, err := r.split(parts[0])
	if err != nil {
		return err
	}
	dir, base := filepath.Split(filepath.Clean(name))
	parent, err := openBeneath(tree, filepath.Join(".", dir), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	if err := unix.Mkdirat(parent, base, uint32(nums[0])); err != nil {
		if errors.Is(err, unix.EEXIST) {
			return nil
		}
		return err
	}
	return unix.Fchownat(parent, base, int(nums[1]), int(nums[2]), unix.AT_SYMLINK_NOFOLLOW)
}

// diskPath finds the device of "disk:N": the disk's serial number is diskN.
func (r *rootMounts) diskPath(source string) (string, error) {
	num, ok := strings.CutPrefix(source, "disk:")
	if _, err := strconv.ParseUint(num, 10, 8); !ok || err != nil {
		return "", failf(codes.InvalidArgument, "source %q is no disk", source)
	}
	if r.disks == nil {
		disks, err := findDisks(sysBlock)
		if err != nil {
			return "", err
		}
		r.disks = disks
	}
	name, ok := r.disks.names["disk"+num]
	if !ok {
		return "", failf(codes.NotFound, "the guest has no disk %s (of %d)", num, r.disks.count)
	}
	return "/dev/" + name, nil
}

// findDisks reads the serial number of each disk once: the driver asks the
// back-end for it every time. Of disks with the same one, the first counts.
func findDisks(dir string) (*guestDisks, error) {
	files, err := filepath.Glob(dir + "/vd*/serial")
	if err != nil {
		return nil, err
	}
	d := &guestDisks{names: make(map[string]string), count: len(files)}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		serial := strings.TrimRight(string(b), "\x00\n")
		if _, ok := d.names[serial]; !ok {
			d.names[serial] = filepath.Base(filepath.Dir(file))
		}
	}
	return d, nil
}
