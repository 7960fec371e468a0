// SPDX-License-Identifier: Apache-2.0

package hostcgroup

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/xcontainer/xcontainer/pkg/shim/refusal"
)

// ErrInvalid is the identity of the errors for paths that cannot be a
// container's cgroup.
var ErrInvalid = errors.New("invalid cgroupsPath")

// ErrInUse is the identity of the error for a cgroup that has processes already.
var ErrInUse = errors.New("cgroup is in use")

// ErrUnavailable is the identity of the errors for a host that lets no cgroup be
// made.
var ErrUnavailable = errors.New("no cgroups")

func invalid(cgroupsPath, why string) error {
	return refusal.New(ErrInvalid, fmt.Sprintf("config.json: linux.cgroupsPath %q %s", cgroupsPath, why))
}

// maxPath bounds a path, in bytes: a little less than PATH_MAX, since the mount
// point and a file's name come on top.
const maxPath = 3800

// Path is where a container's cgroup is, as an absolute path below the root of
// each hierarchy. cgroupsPath is that of config.json in one of its two forms:
// a path, or "slice:prefix:name", which is the path that systemd would give the
// scope. Empty means a path of our own for the container id of namespace.
func Path(cgroupsPath, namespace, id string) (string, error) {
	p := cgroupsPath
	switch parts := strings.Split(p, ":"); {
	case p == "":
		p = "/xcontainer." + namespace + "." + id
	case len(parts) == 3 && !strings.Contains(p, "/"):
		slice, err := expandSlice(cgroupsPath, parts[0])
		if err != nil {
			return "", err
		}
		p = path.Join(slice, unitName(parts[1], parts[2]))
	}
	// A relative path leaves the parent to the runtime. Ours is the root.
	if !strings.HasPrefix(p, "/") {
		p = "/" + p
	}
	for _, part := range strings.Split(p, "/") {
		if part == ".." {
			return "", invalid(cgroupsPath, `holds ".."`)
		}
	}
	clean := path.Clean(p)
	switch {
	case clean == "/":
		return "", invalid(cgroupsPath, "is the root; give the container a cgroup of its own")
	case strings.ContainsAny(clean, "\x00\n"):
		return "", invalid(cgroupsPath, "holds a NUL or a new line")
	case len(clean) > maxPath:
		return "", invalid(cgroupsPath[:64]+"…", "is too long")
	case strings.HasPrefix(clean, Root):
		return "", invalid(cgroupsPath, "must not begin with the hierarchy's mount point")
	}
	return clean, nil
}

// expandSlice gives the folders of a slice: those of a-b.slice are a.slice and
// a-b.slice in it.
func expandSlice(cgroupsPath, slice string) (string, error) {
	const suffix = ".slice"
	name, ok := strings.CutSuffix(slice, suffix)
	switch {
	case slice == "":
		return "/system.slice", nil
	case name == "-":
		return "/", nil
	case !ok || name == "":
		return "", invalid(cgroupsPath, fmt.Sprintf("names the slice %q, which does not end in .slice", slice))
	}
	p, prefix := "/", ""
	for _, part := range strings.Split(name, "-") {
		if part == "" {
			return "", invalid(cgroupsPath, fmt.Sprintf("names the slice %q, which has an empty part", slice))
		}
		p = path.Join(p, prefix+part+suffix)
		prefix += part + "-"
	}
	return p, nil
}

// unitName is the name of systemd's unit for a container.
func unitName(prefix, name string) string {
	switch {
	case strings.HasSuffix(name, ".slice"):
		return name
	case prefix == "":
		return name + ".scope"
	default:
		return prefix + "-" + name + ".scope"
	}
}
