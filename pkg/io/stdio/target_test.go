// SPDX-License-Identifier: Apache-2.0

package stdio

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name string
		want target
		err  string // words of the refusal; empty: none
	}{
		{"", target{}, ""},
		{"/run/x%20y", target{kind: fifo, path: "/run/x%20y"}, ""},
		{"fifo:///run/x", target{kind: fifo, path: "/run/x"}, ""},
		{"file:///var/log/x", target{kind: file, path: "/var/log/x"}, ""},
		{"file:///var/log/x%20y", target{kind: file, path: "/var/log/x y"}, ""},
		{"binary:///bin/l", target{kind: binary, path: "/bin/l"}, ""},
		{"binary:///bin/l?b=2&a=1&b=3&flag&e=&s=a+b%26c", target{kind: binary, path: "/bin/l",
			args: []string{"b", "2", "a", "1", "flag", "", "e", "", "s", "a b&c"}}, ""},
		{"binary-v2:///bin/l?a=1", target{kind: binary, path: "/bin/l", args: []string{"a", "1"}, strict: true}, ""},
		{"x", target{}, "neither an absolute path nor a URL"},
		{"://x", target{}, "stdio through : is not supported"},
		{"npipe:////./pipe/x", target{}, "stdio through npipe: is not supported"},
		{"ttrpc+unix:///s?streaming_id=x-stdout", target{}, "stdio through ttrpc+unix: is not supported"},
		{"FILE:///x", target{}, "stdio through FILE: is not supported"},
		{"file://var/log/x", target{}, "no absolute path after file://"},
		{"file://", target{}, "no absolute path after file://"},
		{"file:///a%zz", target{}, `is not a URL: invalid URL escape "%zz"`},
		{"file:///a%00b", target{}, "has a zero byte in its path"},
		{"binary://user@/bin/l", target{}, "no absolute path after binary://"},
		{"binary:///bin/l?a=%zz", target{}, `invalid URL escape "%zz"`},
		{"binary:///bin/l?%zz=a", target{}, `invalid URL escape "%zz"`},
		{"binary:///bin/l?a=%00", target{}, "zero byte"},
	} {
		got, err := parse(tt.name)
		switch {
		case tt.err == "" && err != nil:
			t.Errorf("%q: %v", tt.name, err)
		case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || !errors.Is(err, ErrUnsupported)):
			t.Errorf("%q: got %v, want %q", tt.name, err, tt.err)
		case !reflect.DeepEqual(got, tt.want):
			t.Errorf("%q: got %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

func TestResolve(t *testing.T) {
	for _, tt := range []struct {
		c        Config
		out, err kind
		refusal  string
	}{
		{Config{}, null, null, ""},
		{Config{Stdout: "/a", Stderr: "file:///b"}, fifo, file, ""},
		{Config{Stdout: "file:///a", Stderr: "file:///a"}, file, file, ""},
		{Config{Stdout: "binary:///l", Stderr: "binary:///l"}, binary, binary, ""},
		{Config{Stdout: "binary:///l"}, binary, null, ""},
		{Config{Stdout: "binary:///l", Stderr: "/a"}, 0, 0, "the logger /l takes stdout and stderr; stderr cannot go to /a"},
		{Config{Stdout: "binary:///l", Stderr: "binary:///m"}, 0, 0, "stderr cannot go to binary:///m"},
		{Config{Stdout: "/a", Stderr: "binary:///l"}, 0, 0, "stdout cannot go elsewhere when stderr is binary:///l"},
		{Config{Stderr: "binary:///l"}, 0, 0, "stdout cannot go elsewhere"},
		{Config{Stdout: "binary:///l", Stderr: "nonsense", Terminal: true}, binary, null, ""},
		{Config{Stdin: "binary:///l"}, 0, 0, "stdin comes from a named pipe or from nowhere, not from binary:///l"},
	} {
		got, err := resolve(tt.c)
		switch {
		case tt.refusal == "" && err != nil:
			t.Errorf("%+v: %v", tt.c, err)
		case tt.refusal != "" && (err == nil || !strings.Contains(err.Error(), tt.refusal) || !errors.Is(err, ErrUnsupported)):
			t.Errorf("%+v: got %v, want %q", tt.c, err, tt.refusal)
		case tt.refusal == "" && (got.out.kind != tt.out || got.err.kind != tt.err):
			t.Errorf("%+v: got %+v", tt.c, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "/x", "file:///x", "binary:///x?a=b&c", "binary-v2:///%41?%41=%42", "npipe://x", "://", "file://%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got, err := parse(name)
		if err != nil {
			if !errors.Is(err, ErrUnsupported) {
				t.Errorf("%q: %v", name, err)
			}
			return
		}
		if got.kind != null && (got.path == "" || got.path[0] != '/') {
			t.Errorf("%q: path %q", name, got.path)
		}
		if got.kind == fifo && name[0] == '/' {
			return // a path in its own words; open(2) judges it
		}
		for _, s := range append(got.args, got.path) {
			if strings.ContainsRune(s, 0) {
				t.Errorf("%q: zero byte in %q", name, s)
			}
		}
	})
}
