// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// maxUserFile bounds /etc/passwd and /etc/group of an image, in bytes.
const maxUserFile = 4 << 20

// identity is a process's user as the kernel wants it.
type identity struct {
	uid, gid uint32
	groups   []uint32
	home     string
}

// passwdEntry is a line of passwd(5).
type passwdEntry struct {
	name     string
	uid, gid uint32
	home     string
}

// groupEntry is a line of group(5).
type groupEntry struct {
	name    string
	gid     uint32
	members []string
}

// resolveUser finds a process's identity in the container's own user database.
func resolveUser(u *agentapi.User) (identity, error) {
	passwd, err := readUserFile("/etc/passwd")
	if u.GetName() == "" {
		// Only the home directory hangs on it, and that has a default.
		return lookupUser(u, parsePasswd(passwd), nil)
	}
	if err != nil {
		return identity{}, err
	}
	group, err := readUserFile("/etc/group")
	if err != nil {
		return identity{}, err
	}
	return lookupUser(u, parsePasswd(passwd), parseGroup(group))
}

// readUserFile reads one of the database's files; an image without it has an
// empty one.
func readUserFile(name string) ([]byte, error) {
	b, err := readRegular(name, maxUserFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look up user: %w", err)
	}
	return b, nil
}

// lookupUser applies the rules of a container's user: a name, or a number that
// need not be listed; a group after a colon, in the same two forms; without one
// the user's own groups.
func lookupUser(u *agentapi.User, passwd []passwdEntry, group []groupEntry) (identity, error) {
	id := identity{uid: u.GetUid(), gid: u.GetGid(), groups: slices.Clone(u.GetAdditionalGids()), home: "/"}
	userName, groupName, hasGroup := strings.Cut(u.GetName(), ":")
	named := u.GetName() != ""
	if named {
		id.gid = 0
		if n, ok := parseID(userName); ok {
			id.uid = n
		} else if userName == "" {
			id.uid = 0
		} else if i := slices.IndexFunc(passwd, func(e passwdEntry) bool { return e.name == userName }); i >= 0 {
			id.uid = passwd[i].uid
		} else {
			return identity{}, fmt.Errorf("unable to find user %s: no matching entries in passwd file", userName)
		}
	}
	entry := passwdEntry{home: "/"}
	if i := slices.IndexFunc(passwd, func(e passwdEntry) bool { return e.uid == id.uid && (userName == "" || e.name == userName) }); i >= 0 {
		entry = passwd[i]
	} else if i := slices.IndexFunc(passwd, func(e passwdEntry) bool { return e.uid == id.uid }); i >= 0 {
		entry = passwd[i]
	}
	if entry.home != "" {
		id.home = entry.home
	}
	if !named {
		return id, nil
	}
	id.gid = entry.gid
	if !hasGroup || groupName == "" {
		for _, g := range group {
			if entry.name != "" && slices.Contains(g.members, entry.name) && !slices.Contains(id.groups, g.gid) {
				id.groups = append(id.groups, g.gid)
			}
		}
		return id, nil
	}
	if n, ok := parseID(groupName); ok {
		id.gid = n
	} else if i := slices.IndexFunc(group, func(e groupEntry) bool { return e.name == groupName }); i >= 0 {
		id.gid = group[i].gid
	} else {
		return identity{}, fmt.Errorf("unable to find group %s: no matching entries in group file", groupName)
	}
	return id, nil
}

// parseID reads a user or group number. The largest value stands for "no
// change" in the kernel's calls, so it is no number here.
func parseID(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n != 1<<32-1
}

// parsePasswd reads passwd(5) and leaves out lines that are not of its form.
func parsePasswd(b []byte) []passwdEntry {
	var list []passwdEntry
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < 6 || f[0] == "" || f[0][0] == '#' {
			continue
		}
		uid, ok := parseID(f[2])
		gid, ok2 := parseID(f[3])
		if ok && ok2 {
			list = append(list, passwdEntry{name: f[0], uid: uid, gid: gid, home: f[5]})
		}
	}
	return list
}

// parseGroup reads group(5) in the same way.
func parseGroup(b []byte) []groupEntry {
	var list []groupEntry
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < 3 || f[0] == "" || f[0][0] == '#' {
			continue
		}
		gid, ok := parseID(f[2])
		if !ok {
			continue
		}
		g := groupEntry{name: f[0], gid: gid}
		if len(f) > 3 && f[3] != "" {
			g.members = strings.Split(f[3], ",")
		}
		list = append(list, g)
	}
	return list
}
