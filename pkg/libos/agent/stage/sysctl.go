// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
)

// writeSysctl sets kernel parameters through the agent's /proc, in which the
// parameters of namespaces are this process's own. The kernel is the
// container's own too, so there is none that it may not set.
func writeSysctl(values map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(values)) {
		rel := sysctlPath(key)
		if rel == "" || path.Clean("/"+rel) != "/"+rel {
			return failf(codes.InvalidArgument, "sysctl %q: not a parameter's name", key)
		}
		err := WriteFile("/proc/sys/"+rel, values[key])
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return failf(codes.InvalidArgument, "sysctl %q: the guest's kernel has no such parameter", key)
		case err != nil:
			return failf(codes.InvalidArgument, "sysctl %q: set to %q: %v", key, values[key], Reason(err))
		}
	}
	return nil
}

// sysctlPath is a parameter's file below /proc/sys. As with sysctl(8), the first
// separator decides: in "net/ipv4/conf/eth0.1/forwarding" a dot is a dot, in
// "net.ipv4.conf.eth0/1.forwarding" a slash stands for one.
func sysctlPath(key string) string {
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '/' {
		return key
	}
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, key)
}

// WriteFile writes a file of the kernel's, which must exist, in one piece.
func WriteFile(name, value string) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(value)
	return err
}

// Reason is what lies under an error that names a file, for a text that names it
// already.
func Reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
