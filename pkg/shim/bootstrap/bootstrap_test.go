// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xcontainer/xcontainer/pkg/shim/record"
)

// TestMain is also the serving process that Start starts: it shows its command
// line and environment to whoever connects.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-namespace" {
		l, err := net.FileListener(os.NewFile(ListenFD, "socket"))
		if err != nil {
			os.Exit(1)
		}
		for {
			c, err := l.Accept()
			if err != nil {
				os.Exit(1)
			}
			wd, _ := os.Getwd()
			json.NewEncoder(c).Encode(served{os.Args[1:], wd, os.Getenv("TTRPC_ADDRESS"), os.Getpid()})
			c.Close()
		}
	}
	os.Exit(m.Run())
}

type served struct {
	Args  []string
	Dir   string
	TTRPC string
	PID   int
}

// runcOptions is the stdin of `start` from containerd 1.6 to 2.2.
func runcOptions(t *testing.T) []byte {
	t.Helper()
	a, err := anypb.New(&options.Options{BinaryName: "/bin/runc", SystemdCgroup: true})
	if err != nil {
		t.Fatal(err)
	}
	a.TypeUrl = "containerd.runc.v1.Options" // as typeurl writes it
	b, err := proto.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// params23 is the stdin of `start` from containerd 2.3.
func params23(t *testing.T, id, ns string) []byte {
	t.Helper()
	dir := "/sock"
	b, err := proto.Marshal(&bootapi.BootstrapParams{
		InstanceID: id, Namespace: ns, LogLevel: bootapi.LogLevel_LOG_LEVEL_DEBUG, ContainerdVersion: "2.3.7",
		ContainerdTtrpcAddress: "/n.ttrpc", ContainerdGrpcAddress: "/n.sock", SocketDir: &dir,
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// decode is both halves of what `start` makes of its input.
func decode(input []byte, f Flags, getenv func(string) string) params {
	return paramsOf(parse(input, f), f, getenv)
}

func TestDecode(t *testing.T) {
	f := Flags{ID: "c", Namespace: "ns", Address: "/old.sock"}
	env := func(k string) string {
		if k == "TTRPC_ADDRESS" {
			return "/old.ttrpc"
		}
		return ""
	}
	old := params{ttrpcAddress: "/old.ttrpc", grpcAddress: "/old.sock", level: "info"}
	wire, err := hex.DecodeString("0a0163" + "12026e73" + "18fcffffffffffffffff01" + "2205322e332e37" +
		"2a082f6e2e7474727063" + "32072f6e2e736f636b" + "4a052f736f636b")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		input []byte
		want  params
	}{
		{"nothing", nil, old},
		{"options", runcOptions(t), old},
		{"noise", []byte{0xff, 0xff}, old},
		{"2.3", params23(t, "c", "ns"), params{"/n.ttrpc", "/n.sock", "/sock", "debug", "", true}},
		{"2.3 in bytes", wire, params{"/n.ttrpc", "/n.sock", "/sock", "debug", "", true}},
		{"another container", params23(t, "d", "ns"), old},
		{"another namespace", params23(t, "c", "os"), old},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := decode(tt.input, f, env); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// daemonParses is what containerd makes of an answer, per release; the rules are
// those of its parseStartResponse.
func daemonParses(t *testing.T, release string, b []byte) (version int32, address string) {
	t.Helper()
	trimmed := bytes.TrimSpace(b)
	switch release {
	case "1.6":
		return 2, string(trimmed)
	case "1.7":
		var p struct{ Version int32 }
		if json.Unmarshal(trimmed, &p) == nil && p.Version >= 2 {
			t.Errorf("JSON for %s", release)
		}
		return 2, string(trimmed)
	case "2.3.0":
		b = trimmed
		fallthrough
	default:
		var r bootapi.BootstrapResult
		if err := proto.Unmarshal(b, &r); err == nil {
			if r.Protocol != "ttrpc" {
				t.Errorf("protocol %q", r.Protocol)
			}
			return r.Version, r.Address
		}
		return 2, string(trimmed)
	}
}

func TestAnswer(t *testing.T) {
	const address = "unix:///run/containerd/s/0123456789abcdef"
	old, err := params{}.answer(address)
	if err != nil || string(old) != address {
		t.Errorf("old: %q, %v", old, err)
	}
	current, err := params{bootstrap: true}.answer(address)
	if err != nil {
		t.Fatal(err)
	}
	want := "\x08\x03\x12" + string(rune(len(address))) + address + "\x1a\x05ttrpc" +
		"\x32\x52\x0a\x50\x0a\x36type.googleapis.com/containerd.types.MountCapabilities\x12\x16" +
		"\x0a\x05erofs\x12\x06format\x12\x05mkdir"
	if string(current) != want {
		t.Errorf("new: %q, want %q", current, want)
	}
	var r bootapi.BootstrapResult
	var caps types.MountCapabilities
	if err := proto.Unmarshal(current, &r); err != nil {
		t.Fatal(err)
	}
	if found, err := r.FindExtension(&caps); !found || err != nil || !proto.Equal(&caps, mountCapabilities()) {
		t.Errorf("mount capabilities %v, %v", &caps, err)
	}
	for _, tt := range []struct {
		release string
		answer  []byte
		version int32
	}{
		{"1.6", old, 2}, {"1.7", old, 2}, {"2.2", old, 2},
		{"2.3.0", current, 3}, {"2.3.7", current, 3}, {"2.4", current, 3},
		{"2.4", old, 2}, // a new daemon with the old handshake
	} {
		if v, a := daemonParses(t, tt.release, tt.answer); v != tt.version || a != address {
			t.Errorf("containerd %s reads version %d, address %q", tt.release, v, a)
		}
	}
}

func TestParseFlags(t *testing.T) {
	f, err := ParseFlags([]string{"-namespace", "ns", "-address", "/a", "-publish-binary", "/b", "-id", "c", "-bundle", "/d", "-debug", "delete"})
	if err != nil {
		t.Fatal(err)
	}
	if f.Namespace != "ns" || f.ID != "c" || f.Address != "/a" || f.Bundle != "/d" || !f.Debug || f.Action != ActionDelete {
		t.Errorf("got %+v", f)
	}
	if err := f.Serving(); err == nil {
		t.Error("an action is not serving")
	}
	if f, err := ParseFlags([]string{"-v"}); err != nil || !f.Version {
		t.Errorf("-v: %+v, %v", f, err)
	}
	if f, err := ParseFlags([]string{"-info"}); err != nil || !f.Info {
		t.Errorf("-info: %+v, %v", f, err)
	}
	if _, err := ParseFlags([]string{"-x"}); err == nil {
		t.Error("-x: no error")
	}
	if err := (&Flags{}).Serving(); err == nil || !strings.Contains(err.Error(), "ctr run --runtime io.containerd.xcontainer.v2") {
		t.Errorf("by hand: %v", err)
	}
}

// visit asks the serving process at an address who it is, and ends it with the
// test.
func visit(t *testing.T, address string) served {
	t.Helper()
	path, ok := strings.CutPrefix(address, "unix://")
	if !ok {
		t.Fatalf("address %q", address)
	}
	c, err := net.DialTimeout("unix", path, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var s served
	if err := json.NewDecoder(c).Decode(&s); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Kill(s.PID, unix.SIGKILL)
		unix.Wait4(s.PID, nil, 0, nil)
	})
	return s
}

func TestStart(t *testing.T) {
	bundle := t.TempDir()
	t.Chdir(bundle)
	t.Setenv("TTRPC_ADDRESS", "/old.ttrpc")
	dir := filepath.Join(t.TempDir(), "s")
	input, err := proto.Marshal(&bootapi.BootstrapParams{
		InstanceID: "c", Namespace: "ns", ContainerdTtrpcAddress: "/n.ttrpc", ContainerdGrpcAddress: "/n.sock", SocketDir: &dir,
	})
	if err != nil {
		t.Fatal(err)
	}
	f := Flags{ID: "c", Namespace: "ns", Address: "/a", Action: ActionStart}
	var out bytes.Buffer
	if err := Start(f, bytes.NewReader(input), &out); err != nil {
		t.Fatal(err)
	}
	var r bootapi.BootstrapResult
	if err := proto.Unmarshal(out.Bytes(), &r); err != nil || r.Version != 3 {
		t.Fatalf("answer %v, %v", &r, err)
	}
	s := visit(t, r.Address)
	if s.Dir != bundle || s.TTRPC != "/n.ttrpc" {
		t.Errorf("serving process %+v", s)
	}
	path := strings.TrimPrefix(r.Address, "unix://")
	want := []string{"-namespace", "ns", "-id", "c", "-address", "/n.sock", "-socket", path}
	if strings.Join(s.Args, " ") != strings.Join(want, " ") {
		t.Errorf("command line %q", s.Args)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("socket %v, %v", fi, err)
	}
	if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("socket directory %v, %v", fi, err)
	}
	if b, err := os.ReadFile("address"); err != nil || string(b) != r.Address {
		t.Errorf("address file %q, %v", b, err)
	}

	// A second start for the same container finds the first.
	first := out.String()
	out.Reset()
	if err := Start(f, bytes.NewReader(input), &out); err != nil || out.String() != first {
		t.Errorf("second: %q, %v", out.String(), err)
	}
	if again := visit(t, r.Address); again.PID != s.PID {
		t.Errorf("a second process %d", again.PID)
	}

	// One that died left its socket: it is replaced.
	unix.Kill(s.PID, unix.SIGKILL)
	unix.Wait4(s.PID, nil, 0, nil)
	out.Reset()
	if err := Start(f, bytes.NewReader(input), &out); err != nil || out.String() != first {
		t.Errorf("after a crash: %q, %v", out.String(), err)
	}
	if again := visit(t, r.Address); again.PID == s.PID {
		t.Error("no new process")
	}
	if err := removeSocket(bundle); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket left: %v", err)
	}
}

func TestStartFailures(t *testing.T) {
	t.Chdir(t.TempDir())
	long := "/" + strings.Repeat("x", 50)
	input, err := proto.Marshal(&bootapi.BootstrapParams{InstanceID: "c", Namespace: "ns", SocketDir: &long})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	notDir, err := proto.Marshal(&bootapi.BootstrapParams{InstanceID: "c", Namespace: "ns", SocketDir: &file})
	if err != nil {
		t.Fatal(err)
	}
	f := Flags{ID: "c", Namespace: "ns"}
	for _, tt := range []struct {
		name  string
		f     Flags
		input []byte
		want  string
	}{
		{"no id", Flags{Namespace: "ns"}, nil, "with -namespace and -id"},
		{"long", f, input, "is too long: a socket's path has at most 106 bytes; set a shorter one"},
		{"no directory", f, notDir, "start shim: make socket directory:"},
	} {
		var out bytes.Buffer
		if err := Start(tt.f, bytes.NewReader(tt.input), &out); err == nil || !strings.Contains(err.Error(), tt.want) || out.Len() != 0 {
			t.Errorf("%s: %v, output %q", tt.name, err, out.String())
		}
	}
}

func TestInfo(t *testing.T) {
	var out bytes.Buffer
	if err := Info(&out); err != nil {
		t.Fatal(err)
	}
	var info types.RuntimeInfo
	if err := proto.Unmarshal(out.Bytes(), &info); err != nil {
		t.Fatal(err)
	}
	if info.Annotations["containerd.io/runtime-allow-mounts"] != "erofs,format/*,mkdir/*" {
		t.Errorf("annotations %v", info.Annotations)
	}
	if info.Name != "io.containerd.xcontainer.v2" || info.Version.GetVersion() == "" {
		t.Errorf("info %v", &info)
	}
	var f features.Features
	if err := json.Unmarshal(info.Features.Value, &f); err != nil || f.OCIVersionMin != "1.0.0" || f.Linux == nil ||
		!slices.Contains(f.MountOptions, "rro") || !*f.Linux.Seccomp.Enabled || len(f.Hooks) != 6 {
		t.Errorf("features %+v, %v", f, err)
	}
	out.Reset()
	if err := Version("shim", &out); err != nil || !strings.HasPrefix(out.String(), "shim:\n  Version:  ") {
		t.Errorf("version %q, %v", out.String(), err)
	}
}

func TestDeleteOfNothing(t *testing.T) {
	dir := t.TempDir()
	none := func(context.Context, [16]byte) error {
		t.Error("destroyed")
		return nil
	}
	for range 2 {
		var out bytes.Buffer
		if err := Delete(t.Context(), Flags{ID: "c", Namespace: "ns", Bundle: dir}, none, &out, io.Discard); err != nil {
			t.Fatal(err)
		}
		var r taskapi.DeleteResponse
		if err := proto.Unmarshal(out.Bytes(), &r); err != nil || r.ExitStatus != 137 || r.ExitedAt == nil {
			t.Errorf("answer %v, %v", &r, err)
		}
	}
}

// sleeper is a process that waits to be killed.
func sleeper(t *testing.T) record.Process {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	p, err := record.Of(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDelete(t *testing.T) {
	dir := t.TempDir()
	rootfs := filepath.Join(dir, "rootfs")
	if err := os.Mkdir(rootfs, 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 { // two mounts, one on the other
		if err := unix.Mount("none", rootfs, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for unix.Unmount(rootfs, unix.MNT_DETACH) == nil {
		}
	})
	socket := filepath.Join(dir, "sock")
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, addressFile), []byte(scheme+socket), 0o600); err != nil {
		t.Fatal(err)
	}
	procs := []record.Process{sleeper(t), sleeper(t), sleeper(t)}
	// A shim that died between creating the domain and writing down its number.
	r := record.Record{ID: "c", UUID: record.UUID{1}, Shim: procs[0], Backend: procs[1], Holder: procs[2]}
	if err := r.Write(dir); err != nil {
		t.Fatal(err)
	}
	var destroyed []string
	fail := errors.New("Xen is not there")
	destroy := func(_ context.Context, uuid [16]byte) error {
		destroyed = append(destroyed, fmt.Sprintf("%x", uuid[:1]))
		return fail
	}
	f := Flags{ID: "c", Namespace: "ns", Bundle: dir}
	var out bytes.Buffer
	err := Delete(t.Context(), f, destroy, &out, io.Discard)
	if !errors.Is(err, fail) || out.Len() != 0 || !strings.HasPrefix(err.Error(), "delete c: ") {
		t.Errorf("got %v, output %q", err, out.String())
	}
	// What could be done is done, and the rest is still known.
	if left, err := record.Read(dir); err != nil || left == nil {
		t.Errorf("record %v, %v", left, err)
	}
	fail = nil
	if err := Delete(t.Context(), f, destroy, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	var resp taskapi.DeleteResponse
	if err := proto.Unmarshal(out.Bytes(), &resp); err != nil || resp.Pid != uint32(procs[2].PID) || resp.ExitStatus != 137 {
		t.Errorf("answer %v, %v", &resp, err)
	}
	if strings.Join(destroyed, ",") != "01,01" {
		t.Errorf("destroyed %q", destroyed)
	}
	for _, p := range procs {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID))
		if err == nil && !strings.Contains(string(stat), ") Z ") {
			t.Errorf("process %d lives", p.PID)
		}
	}
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket: %v", err)
	}
	if err := unix.Unmount(rootfs, 0); !errors.Is(err, unix.EINVAL) {
		t.Errorf("rootfs is still mounted (%v)", err)
	}
	if left, err := record.Read(dir); err != nil || left != nil {
		t.Errorf("record %v, %v", left, err)
	}
}
