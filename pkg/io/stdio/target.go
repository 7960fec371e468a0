// SPDX-License-Identifier: Apache-2.0

package stdio

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// ErrUnsupported is the identity of the error for a kind of stdio that cannot be
// had.
var ErrUnsupported = errors.New("unsupported kind of stdio")

// refusal is ErrUnsupported in words for the user.
type refusal struct{ text string }

func (r *refusal) Error() string { return r.text }

// Unwrap gives the identity.
func (r *refusal) Unwrap() error { return ErrUnsupported }

func refuse(format string, args ...any) error { return &refusal{fmt.Sprintf(format, args...)} }

// kind of stdio.
type kind int

const (
	null kind = iota
	fifo
	file
	binary
)

// target is where a stream goes to or comes from.
type target struct {
	kind kind
	path string   // absolute; empty for null
	args []string // of a logger
	// strict: the logger is ready only when it says so (binary-v2).
	strict bool
}

// parse understands what containerd's clients name: an absolute path is a named
// pipe, as ever; everything else is a URL.
func parse(name string) (target, error) {
	scheme, _, isURL := strings.Cut(name, "://")
	switch {
	case name == "":
		return target{}, nil
	case name[0] == '/':
		return target{kind: fifo, path: name}, nil
	case !isURL:
		return target{}, refuse("stdio name %q is neither an absolute path nor a URL", name)
	}
	t := target{}
	switch scheme {
	case "fifo":
		t.kind = fifo
	case "file":
		t.kind = file
	case "binary":
		t.kind = binary
	case "binary-v2":
		t.kind, t.strict = binary, true
	default:
		return target{}, refuse("stdio through %s: is not supported (%s); use a named pipe, file:, binary: or binary-v2:", scheme, name)
	}
	u, err := url.Parse(name)
	if err != nil {
		return target{}, refuse("stdio name %q is not a URL: %v", name, errors.Unwrap(err))
	}
	if u.Host != "" || u.User != nil || u.Path == "" {
		return target{}, refuse("stdio name %q has no absolute path after %s://", name, scheme)
	}
	if strings.ContainsRune(u.Path, 0) {
		return target{}, refuse("stdio name %q has a zero byte in its path", name)
	}
	t.path = u.Path
	if t.kind == binary {
		t.args, err = arguments(u.RawQuery)
		if err != nil {
			return target{}, refuse("stdio name %q: %v", name, err)
		}
	}
	return t, nil
}

// arguments makes a logger's arguments of a query: a key and its value are one
// each, in the order of the query. Of a key that comes twice the first counts.
func arguments(query string) ([]string, error) {
	var args []string
	seen := make(map[string]bool)
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		if pair == "" {
			continue
		}
		k, v, _ := strings.Cut(pair, "=")
		key, err := url.QueryUnescape(k)
		if err != nil {
			return nil, err
		}
		value, err := url.QueryUnescape(v)
		if err != nil {
			return nil, err
		}
		if strings.ContainsRune(key+value, 0) {
			return nil, errors.New("a zero byte cannot be in an argument")
		}
		if !seen[key] {
			seen[key] = true
			args = append(args, key, value)
		}
	}
	return args, nil
}

// targets are those of a process's three streams.
type targets struct {
	in, out, err target
}

// resolve checks a Config without touching what it names.
func resolve(c Config) (t targets, err error) {
	if t.in, err = parse(c.Stdin); err != nil {
		return t, err
	}
	if t.in.kind != null && t.in.kind != fifo {
		return t, refuse("stdin comes from a named pipe or from nowhere, not from %s", c.Stdin)
	}
	if t.out, err = parse(c.Stdout); err != nil {
		return t, err
	}
	if c.Terminal {
		return t, nil
	}
	if t.err, err = parse(c.Stderr); err != nil {
		return t, err
	}
	switch {
	case t.out.kind == binary:
		// A logger always has both: stderr goes to the logger of stdout.
		if c.Stderr != "" && c.Stderr != c.Stdout {
			return t, refuse("the logger %s takes stdout and stderr; stderr cannot go to %s", t.out.path, c.Stderr)
		}
	case t.err.kind == binary:
		return t, refuse("a logger takes stdout and stderr; stdout cannot go elsewhere when stderr is %s", c.Stderr)
	}
	return t, nil
}
