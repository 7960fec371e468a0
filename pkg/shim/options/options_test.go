// SPDX-License-Identifier: Apache-2.0

package options

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// message is m as typeurl packs it.
func message(t testing.TB, m proto.Message) *anypb.Any {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return &anypb.Any{TypeUrl: string(m.ProtoReflect().Descriptor().FullName()), Value: b}
}

func TestDecode(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(file, []byte("debug = true\n[guest]\nx = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// A field that is newer than this program.
	unknown := message(t, &options.Options{ShimCgroup: "/shims"})
	unknown.Value = append(unknown.Value, 0xfa, 0x3e, 1, 'x')
	body := func(text string) *anypb.Any {
		return message(t, &runtimeoptions.Options{TypeUrl: "x", ConfigBody: []byte(text)})
	}
	var many, named []string
	for i := range maxIgnored + 4 {
		many = append(many, fmt.Sprintf("o%02d = 1\n", i))
		named = append(named, fmt.Sprintf(`the option "o%02d" of the configuration's body`, i))
	}
	for _, tt := range []struct {
		name string
		a    *anypb.Any
		want Options
		err  string
	}{
		{"nothing", nil, Options{}, ""},
		{"empty", &anypb.Any{}, Options{}, ""},
		{"runc", message(t, &options.Options{ShimCgroup: "/shims", BinaryName: "crun", SystemdCgroup: true, IoUid: 5, NoPivotRoot: true}), Options{
			ShimCgroup: "/shims",
			Ignored:    []string{"runc's option binary_name", "runc's option io_uid", "runc's option no_pivot_root", "runc's option systemd_cgroup"},
		}, ""},
		{"runc with a prefix", &anypb.Any{TypeUrl: "type.googleapis.com/containerd.runc.v1.Options"}, Options{}, ""},
		{"field from the future", unknown, Options{ShimCgroup: "/shims"}, ""},
		{"broken runc", &anypb.Any{TypeUrl: "containerd.runc.v1.Options", Value: []byte{0xff}}, Options{}, "runtime options: containerd.runc.v1.Options: "},
		{"another type", &anypb.Any{TypeUrl: "x.Options", Value: []byte{0xff}}, Options{Ignored: []string{`runtime options of type "x.Options"`}}, ""},
		{"empty config", body(""), Options{}, ""},
		{"body", body("ShimCgroup = '/s'\nBinaryName = 'x'\ndebug = false"), Options{
			ShimCgroup: "/s", Ignored: []string{`the option "BinaryName" of the configuration's body`},
		}, ""},
		{"file wins", message(t, &runtimeoptions.Options{ConfigPath: file, ConfigBody: []byte("ShimCgroup = '/s'")}), Options{
			Debug: true, Ignored: []string{`the option "guest" of ` + file},
		}, ""},
		{"many", body(strings.Join(many, "")), Options{Ignored: append(named[:maxIgnored:maxIgnored], "4 more options of the configuration's body")}, ""},
		{"no TOML", body("{"), Options{}, "runtime options: the configuration's body is not TOML: "},
		{"wrong type", body("ShimCgroup = 7"), Options{}, "runtime options: the configuration's body: ShimCgroup has a value of the wrong type"},
		{"no file", message(t, &runtimeoptions.Options{ConfigPath: dir + "/none"}), Options{}, "runtime options: open " + dir + "/none: no such file or directory"},
		{"a folder", message(t, &runtimeoptions.Options{ConfigPath: dir}), Options{}, dir + " is not a regular file"},
		{"broken config", &anypb.Any{TypeUrl: "runtimeoptions.v1.Options", Value: []byte{0xff}}, Options{}, "runtime options: runtimeoptions.v1.Options: "},
		{"large", body(strings.Repeat("#", maxConfig+1)), Options{}, "the configuration's body is larger than 1 MB"},
	} {
		got, err := Decode(tt.a)
		switch {
		case tt.err == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || !errors.Is(err, ErrInvalid)):
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.err)
		case !reflect.DeepEqual(got, tt.want):
			t.Errorf("%s:\ngot  %+v\nwant %+v", tt.name, got, tt.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range []proto.Message{&options.Options{ShimCgroup: "/x", IoGid: 7}, &runtimeoptions.Options{ConfigBody: []byte("debug=true")}} {
		a := message(f, m)
		f.Add(a.TypeUrl, a.Value)
	}
	f.Fuzz(func(t *testing.T, url string, value []byte) {
		o, err := Decode(&anypb.Any{TypeUrl: url, Value: value})
		if err != nil && !errors.Is(err, ErrInvalid) {
			t.Error(err)
		}
		if len(o.Ignored) > maxIgnored+1 {
			t.Errorf("%d options named", len(o.Ignored))
		}
	})
}
