// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// mountOptions is a mount's option list, taken apart for the calls of the mount
// API: attributes belong to a mount, flags and data to a superblock.
type mountOptions struct {
	set, clear   uint64 // MOUNT_ATTR_* of the mount
	rset, rclear uint64 // the same for the mount and all below it
	propagation  []propagation
	flags        []string // superblock flags without a value: sync, dirsync …
	data         [][2]string
	bind         bool
	recursive    bool // rbind
}

// propagation is one change of a mount's propagation type.
type propagation struct {
	kind      uint64 // MS_PRIVATE …
	recursive bool
}

// attribute is what an option does to the attributes of a mount.
type attribute struct{ set, clear uint64 }

// attributes are the options of mount(8) that are attributes of one mount.
// Setting any kind of access time clears the field first: the kernel refuses
// the one without the other (mount_setattr(2)).
var attributes = map[string]attribute{
	"ro":            {set: unix.MOUNT_ATTR_RDONLY},
	"rw":            {clear: unix.MOUNT_ATTR_RDONLY},
	"nosuid":        {set: unix.MOUNT_ATTR_NOSUID},
	"suid":          {clear: unix.MOUNT_ATTR_NOSUID},
	"nodev":         {set: unix.MOUNT_ATTR_NODEV},
	"dev":           {clear: unix.MOUNT_ATTR_NODEV},
	"noexec":        {set: unix.MOUNT_ATTR_NOEXEC},
	"exec":          {clear: unix.MOUNT_ATTR_NOEXEC},
	"nodiratime":    {set: unix.MOUNT_ATTR_NODIRATIME},
	"diratime":      {clear: unix.MOUNT_ATTR_NODIRATIME},
	"nosymfollow":   {set: unix.MOUNT_ATTR_NOSYMFOLLOW},
	"symfollow":     {clear: unix.MOUNT_ATTR_NOSYMFOLLOW},
	"noatime":       {set: unix.MOUNT_ATTR_NOATIME, clear: unix.MOUNT_ATTR__ATIME},
	"atime":         {set: unix.MOUNT_ATTR_RELATIME, clear: unix.MOUNT_ATTR__ATIME},
	"relatime":      {set: unix.MOUNT_ATTR_RELATIME, clear: unix.MOUNT_ATTR__ATIME},
	"norelatime":    {set: unix.MOUNT_ATTR_STRICTATIME, clear: unix.MOUNT_ATTR__ATIME},
	"strictatime":   {set: unix.MOUNT_ATTR_STRICTATIME, clear: unix.MOUNT_ATTR__ATIME},
	"nostrictatime": {set: unix.MOUNT_ATTR_RELATIME, clear: unix.MOUNT_ATTR__ATIME},
}

// propagations are the options that say how mounts spread between namespaces.
var propagations = map[string]propagation{
	"private":     {kind: unix.MS_PRIVATE},
	"rprivate":    {kind: unix.MS_PRIVATE, recursive: true},
	"slave":       {kind: unix.MS_SLAVE},
	"rslave":      {kind: unix.MS_SLAVE, recursive: true},
	"shared":      {kind: unix.MS_SHARED},
	"rshared":     {kind: unix.MS_SHARED, recursive: true},
	"unbindable":  {kind: unix.MS_UNBINDABLE},
	"runbindable": {kind: unix.MS_UNBINDABLE, recursive: true},
}

// superblockFlags are options of a superblock that take no value. A bind mount
// has no superblock of its own, so there they change nothing, as in mount(2).
var superblockFlags = []string{"sync", "dirsync", "lazytime", "mand", "iversion"}

// defaults are options that name what holds anyway.
var defaults = []string{"defaults", "async", "nolazytime", "nomand", "noiversion", "loud", "silent"}

// dataKeys are the options with a value, by type of file system.
var dataKeys = map[string][]string{
	"proc":   {"hidepid", "gid", "subset"},
	"tmpfs":  {"mode", "size", "uid", "gid", "nr_inodes", "nr_blocks", "huge", "mpol"},
	"devpts": {"mode", "uid", "gid", "ptmxmode", "max"},
}

// parseOptions reads the options of a mount of the given type. It names the
// first one that it does not know.
func parseOptions(fstype string, list []string) (*mountOptions, error) {
	o := &mountOptions{bind: fstype == "bind"}
	for _, opt := range list {
		if err := o.add(fstype, opt); err != nil {
			return nil, err
		}
	}
	return o, nil
}

func (o *mountOptions) add(fstype, opt string) error {
	if a, ok := attributes[opt]; ok {
		o.set = o.set&^a.clear | a.set
		o.clear = o.clear&^a.set | a.clear
		return nil
	}
	if a, ok := attributes[strings.TrimPrefix(opt, "r")]; ok && opt[0] == 'r' {
		o.rset = o.rset&^a.clear | a.set
		o.rclear = o.rclear&^a.set | a.clear
		return nil
	}
	if p, ok := propagations[opt]; ok {
		o.propagation = append(o.propagation, p)
		return nil
	}
	switch {
	case opt == "bind" && o.bind, slices.Contains(defaults, opt):
		return nil
	case opt == "rbind" && o.bind:
		o.recursive = true
		return nil
	case slices.Contains(superblockFlags, opt):
		o.flags = append(o.flags, opt)
		return nil
	case opt == "newinstance" && fstype == "devpts":
		return nil // every mount of devpts has been one since Linux 4.7
	}
	key, value, ok := strings.Cut(opt, "=")
	if ok && slices.Contains(dataKeys[fstype], key) {
		o.data = append(o.data, [2]string{key, value})
		return nil
	}
	return fmt.Errorf("unknown option %q for a mount of type %s", opt, fstype)
}

// attr is the change of the mount itself in the form of mount_setattr(2). An
// attribute that is set must not be cleared in the same call, but for the
// access time field, which must.
func (o *mountOptions) attr() unix.MountAttr {
	return unix.MountAttr{Attr_set: o.set, Attr_clr: o.clear}
}
