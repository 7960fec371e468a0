// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xcontainer/xcontainer/pkg/shim/hostcgroup"
)

// startInput is the stdin of `start` of both handshakes with one options message.
func startInput(t *testing.T, bootstrap bool, dir string, m proto.Message) []byte {
	t.Helper()
	value, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	a := &anypb.Any{TypeUrl: string(m.ProtoReflect().Descriptor().FullName()), Value: value}
	var input proto.Message = a
	if bootstrap {
		p := &bootapi.BootstrapParams{InstanceID: "c", Namespace: "ns", SocketDir: &dir, ContainerdGrpcAddress: "/a"}
		// Something else comes first.
		if err := p.AddExtension(&types.MountCapabilities{Types: []string{"x"}}); err != nil {
			t.Fatal(err)
		}
		p.Extensions = append(p.Extensions, &bootapi.Extension{Value: a})
		input = p
	}
	b, err := proto.Marshal(input)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// shimCgroup is a cgroup as a client makes it.
func shimCgroup(t *testing.T) string {
	t.Helper()
	path := fmt.Sprintf("/xcontainer-shim-test-%d", os.Getpid())
	g, err := hostcgroup.At(path)
	if err == nil {
		err = g.Make()
	}
	if errors.Is(err, hostcgroup.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Delete(); err != nil {
			t.Error(err)
		}
	})
	return path
}

func TestShimCgroup(t *testing.T) {
	group := shimCgroup(t)
	// containerd's score and one more.
	want := min(oomScore(t, os.Getppid())+1, 1000)
	for _, tt := range []struct {
		name string
		m    proto.Message
		args []string // more of the serving process's
	}{
		{"runc", &options.Options{ShimCgroup: group, BinaryName: "crun"}, nil},
		{"generic", &runtimeoptions.Options{ConfigBody: []byte("ShimCgroup = '" + group + "'\nDebug = true\nOther = 1")}, []string{"-debug"}},
	} {
		for _, current := range []bool{false, true} {
			t.Run(fmt.Sprint(tt.name, current), func(t *testing.T) {
				t.Chdir(t.TempDir())
				t.Setenv("TTRPC_ADDRESS", "")
				// The legacy handshake has no folder of its own for sockets.
				f := Flags{ID: "c", Namespace: "ns", Address: "/a" + t.TempDir(), Action: ActionStart}
				var out bytes.Buffer
				if err := Start(f, bytes.NewReader(startInput(t, current, shortDir(t), tt.m)), &out); err != nil {
					t.Fatal(err)
				}
				address := out.String()
				if current {
					var r bootapi.BootstrapResult
					if err := proto.Unmarshal(out.Bytes(), &r); err != nil {
						t.Fatal(err)
					}
					address = r.Address
				}
				t.Cleanup(func() { removeSocket(".") })
				s := visit(t, address)
				data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", s.PID))
				if err != nil || !strings.Contains(string(data), ":"+group+"\n") {
					t.Errorf("%v, the shim is in\n%s", err, data)
				}
				if got := oomScore(t, s.PID); got != want {
					t.Errorf("OOM score %d, want %d", got, want)
				}
				if i := slices.Index(s.Args, "-socket"); !slices.Equal(s.Args[i+2:], tt.args) {
					t.Errorf("command line %q", s.Args)
				}
			})
		}
	}
}

func oomScore(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// shortDir is a folder whose sockets have short paths.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// TestStartWithBadOptions: one sentence, and neither a process nor a socket.
func TestStartWithBadOptions(t *testing.T) {
	for _, tt := range []struct {
		name string
		m    proto.Message
		want string
	}{
		{"no cgroup", &options.Options{ShimCgroup: "/xcontainer-none"},
			"start shim: the runtime's option ShimCgroup: the cgroup /xcontainer-none does not exist; make it first"},
		{"no file", &runtimeoptions.Options{ConfigPath: "/none.toml"},
			"start shim: runtime options: open /none.toml: no such file or directory"},
		{"no TOML", &runtimeoptions.Options{ConfigBody: []byte("{")},
			"start shim: runtime options: the configuration's body is not TOML: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			dir := shortDir(t)
			var out bytes.Buffer
			err := Start(Flags{ID: "c", Namespace: "ns"}, bytes.NewReader(startInput(t, true, dir, tt.m)), &out)
			if err == nil || !strings.Contains(err.Error(), tt.want) || out.Len() != 0 {
				t.Errorf("got %v, output %q; want %q", err, out.String(), tt.want)
			}
			if left, err := filepath.Glob(dir + "/*"); err != nil || len(left) != 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

func TestLevels(t *testing.T) {
	for _, tt := range []struct {
		level bootapi.LogLevel
		want  string
	}{
		{bootapi.LogLevel_LOG_LEVEL_TRACE, "trace"}, {bootapi.LogLevel_LOG_LEVEL_DEBUG, "debug"},
		{bootapi.LogLevel_LOG_LEVEL_INFO, "info"}, {bootapi.LogLevel_LOG_LEVEL_WARN, "warn"},
		{bootapi.LogLevel_LOG_LEVEL_ERROR, "error"}, {bootapi.LogLevel_LOG_LEVEL_FATAL, "fatal"},
		{bootapi.LogLevel_LOG_LEVEL_PANIC, "panic"}, {99, "panic"}, {-99, "trace"}, {-1, "info"},
	} {
		if got := level(tt.level); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.level, got, tt.want)
		}
	}
	for _, tt := range []struct {
		f    Flags
		want string
	}{
		{Flags{}, "info"}, {Flags{Debug: true}, "debug"}, {Flags{LogLevel: "warn"}, "warn"}, {Flags{Debug: true, LogLevel: "trace"}, "trace"},
	} {
		if got := tt.f.Level(); got != tt.want {
			t.Errorf("%+v: %s", tt.f, got)
		}
	}
}
