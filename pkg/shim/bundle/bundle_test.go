// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
	"github.com/xcontainer/xcontainer/pkg/xen"
)

// defaultSpec has what containerd's clients send for a plain image.
func defaultSpec() *specs.Spec {
	return &specs.Spec{
		Version: "1.2.0",
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Args: []string{"true"},
			Cwd:  "/",
			Env:  []string{"PATH=/bin"},
			Capabilities: &specs.LinuxCapabilities{
				Bounding: []string{"CAP_CHOWN"}, Effective: []string{"CAP_CHOWN"}, Permitted: []string{"CAP_CHOWN"},
			},
			Rlimits:         []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 1024, Soft: 512}},
			NoNewPrivileges: true,
		},
		Hostname: "h",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "gid=5"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"size=65536k"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue"},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro"}},
			{Destination: "/run", Type: "tmpfs", Source: "tmpfs"},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro"}},
		},
		Linux: &specs.Linux{
			MaskedPaths:   []string{"/proc/kcore"},
			ReadonlyPaths: []string{"/proc/sys"},
			CgroupsPath:   "/default/x",
			Resources:     &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}}},
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
				{Type: specs.MountNamespace}, {Type: specs.NetworkNamespace},
			},
		},
	}
}

func parse(t *testing.T, change func(*specs.Spec)) (*Settings, error) {
	t.Helper()
	spec := defaultSpec()
	if change != nil {
		change(spec)
	}
	data, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	return Parse(data, "/b", 8)
}

func TestDefaultSpec(t *testing.T) {
	s, err := parse(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	if s.Root != "/b/rootfs" || s.MemoryBytes != DefaultMemoryBytes || s.VCPUs != MaxVCPUs || s.Weight != 0 || s.Cap != 0 {
		t.Errorf("got %+v", s)
	}
	if len(s.Ignored) != 0 {
		t.Errorf("ignored %q", s.Ignored)
	}
	c := s.Container
	if c.Hostname != "h" || len(c.Mounts) != 8 || c.MaskedPaths[0] != "/proc/kcore" || c.ReadonlyPaths[0] != "/proc/sys" {
		t.Errorf("container %v", c)
	}
	if got, want := c.Mounts[7], (&agentapi.Mount{Type: "cgroup", Source: "cgroup", Destination: "/sys/fs/cgroup", Options: []string{"ro"}}); !proto.Equal(got, want) {
		t.Errorf("mount %v, want %v", got, want)
	}
	p := c.Process
	if p.Args[0] != "true" || p.Capabilities.Bounding[0] != "CAP_CHOWN" || p.Rlimits[0].Hard != 1024 || !p.NoNewPrivileges {
		t.Errorf("process %v", p)
	}
}

func TestXLibOS(t *testing.T) {
	for v, want := range map[string]XLibOS{"": XLibOSFull, "full": XLibOSFull, "entry": XLibOSEntry, "off": XLibOSOff} {
		s, err := parse(t, func(s *specs.Spec) {
			if v != "" {
				s.Annotations = map[string]string{AnnotationXLibOS: v}
			}
		})
		if err != nil || s.XLibOS != want {
			t.Errorf("%q: %+v, %v", v, s, err)
		}
	}
}

// TestRefusals pins the words of every refusal: one sentence that names the
// object and, where there is one, the remedy.
func TestRefusals(t *testing.T) {
	mount := func(m specs.Mount) func(*specs.Spec) {
		return func(s *specs.Spec) { s.Mounts = append(s.Mounts, m) }
	}
	ns := func(n specs.LinuxNamespace) func(*specs.Spec) {
		return func(s *specs.Spec) {
			for i := range s.Linux.Namespaces {
				if s.Linux.Namespaces[i].Type == n.Type {
					s.Linux.Namespaces[i] = n
					return
				}
			}
			s.Linux.Namespaces = append(s.Linux.Namespaces, n)
		}
	}
	annotate := func(k, v string) func(*specs.Spec) {
		return func(s *specs.Spec) { s.Annotations = map[string]string{k: v} }
	}
	tests := []struct {
		name   string
		change func(*specs.Spec)
		kind   error
		want   string
	}{
		{"mount type", mount(specs.Mount{Type: "nfs", Destination: "/x"}), ErrUnsupported,
			`mount type "nfs" (at /x) is not supported by X-Containers: use a bind mount or one of proc, sysfs, tmpfs, devpts, mqueue, cgroup, cgroup2`},
		{"relative destination", mount(specs.Mount{Type: "tmpfs", Destination: "x"}), ErrInvalid,
			`config.json: mount destination "x" is not an absolute path`},
		{"relative source", mount(specs.Mount{Type: "bind", Source: "y", Destination: "/x"}), ErrInvalid,
			`config.json: source "y" of the bind mount at /x is not an absolute path`},
		{"shared", mount(specs.Mount{Type: "bind", Source: "/y", Destination: "/x", Options: []string{"rbind", "rshared"}}), ErrUnsupported,
			`propagation "rshared" (of the mount at /x) is not supported by X-Containers: use rprivate`},
		{"idmap", mount(specs.Mount{Type: "bind", Source: "/y", Destination: "/x", UIDMappings: []specs.LinuxIDMapping{{Size: 1}}}), ErrUnsupported,
			`an id-mapped mount (at /x) is not supported by X-Containers`},
		{"namespace path", ns(specs.LinuxNamespace{Type: specs.IPCNamespace, Path: "/proc/1/ns/ipc"}), ErrUnsupported,
			`the ipc namespace /proc/1/ns/ipc is not supported by X-Containers: let the container have one of its own`},
		{"relative network namespace", ns(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: "x"}), ErrInvalid,
			`config.json: the path "x" of the network namespace is not absolute`},
		{"user namespace", ns(specs.LinuxNamespace{Type: specs.UserNamespace}), ErrUnsupported,
			`a user namespace is not supported by X-Containers: create the container without it`},
		{"host network", func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[:4] }, ErrUnsupported,
			`sharing the host's network namespace is not supported by X-Containers: let the container have one of its own`},
		{"block device", func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/sda", Type: "b", Major: 8}} }, ErrUnsupported,
			`the host's device /dev/sda (b 8:0) is not supported by X-Containers: create the container without devices of the host (ctr: --privileged-without-host-devices)`},
		{"device", func(s *specs.Spec) {
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/null", Type: "c", Major: 1, Minor: 3}, {Path: "/dev/dri/card0", Type: "c", Major: 226}}
		}, ErrUnsupported,
			`the host's device /dev/dri/card0 (c 226:0) is not supported by X-Containers: create the container without devices of the host (ctr: --privileged-without-host-devices)`},
		{"device type", func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "q"}} }, ErrInvalid,
			`config.json: the device /dev/x is of the type "q"; the types are c, b, u and p`},
		{"device path", func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "x", Type: "p"}} }, ErrInvalid,
			`config.json: the path of the device "x" is not absolute`},
		{"seccomp", func(s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"x"}, Action: specs.ActNotify}}}
		}, ErrUnsupported, `seccomp profile: the action SCMP_ACT_NOTIFY is not supported by X-Containers`},
		{"corrupt seccomp", func(s *specs.Spec) { s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: "x"} }, ErrInvalid,
			`config.json: seccomp profile: action "x" is unknown`},
		{"hook", func(s *specs.Spec) { s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "h"}}} }, ErrInvalid,
			`config.json: the path of the createRuntime hook "h" is not absolute`},
		{"hook's timeout", func(s *specs.Spec) { s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/h", Timeout: new(int)}}} }, ErrInvalid,
			`config.json: the timeout 0 of the poststop hook "/h" is not between 1 and 86400 seconds`},
		{"hook's environment", func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/h", Env: []string{"\x00"}}}}
		}, ErrInvalid,
			`config.json: the poststop hook "/h" has "\x00", which holds a NUL byte`},
		{"windows", func(s *specs.Spec) { s.Windows = &specs.Windows{} }, ErrUnsupported,
			`the section "windows" of config.json is not supported by X-Containers: use a Linux image`},
		{"personality", func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: "BSD"} }, ErrInvalid,
			`config.json: linux.personality.domain "BSD" is neither LINUX nor LINUX32`},
		{"shared root", func(s *specs.Spec) { s.Linux.RootfsPropagation = "shared" }, ErrUnsupported,
			`rootfsPropagation "shared" is not supported by X-Containers: use rprivate`},
		{"propagation of the root", func(s *specs.Spec) { s.Linux.RootfsPropagation = "odd" }, ErrInvalid,
			`config.json: rootfsPropagation "odd" is unknown`},
		{"personality flag", func(s *specs.Spec) {
			s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux, Flags: []specs.LinuxPersonalityFlag{"X"}}
		}, ErrUnsupported, `the personality flag "X" is not supported by X-Containers: leave linux.personality.flags out`},
		{"version", func(s *specs.Spec) { s.Version = "2.0.0" }, ErrUnsupported,
			`OCI runtime version "2.0.0" is not supported by X-Containers: use version 1`},
		{"no root", func(s *specs.Spec) { s.Root = nil }, ErrInvalid, `config.json: root.path is missing`},
		{"no process", func(s *specs.Spec) { s.Process = nil }, ErrInvalid, `config.json: process is missing`},
		{"no args", func(s *specs.Spec) { s.Process.Args = nil }, ErrInvalid, `config.json: process.args is empty; give a command`},
		{"cwd", func(s *specs.Spec) { s.Process.Cwd = "x" }, ErrInvalid, `config.json: process.cwd "x" is not an absolute path`},
		{"nul", func(s *specs.Spec) { s.Process.Args = []string{"a\x00b"} }, ErrInvalid, `config.json: "a\x00b" holds a NUL byte`},
		{"scheduler", func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{} }, ErrInvalid,
			`config.json: process.scheduler.policy "" is unknown`},
		{"scheduler flag", func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Flags: []specs.LinuxSchedulerFlag{"X"}}
		}, ErrInvalid, `config.json: process.scheduler has the unknown flag "X"`},
		{"nice", func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Nice: 20} }, ErrInvalid,
			`config.json: process.scheduler.nice 20 is not between -20 and 19`},
		{"io priority", func(s *specs.Spec) {
			s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 8}
		}, ErrInvalid, `config.json: process.ioPriority.priority 8 is not between 0 and 7`},
		{"io class", func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{Class: "X"} }, ErrInvalid,
			`config.json: process.ioPriority.class "X" is unknown`},
		{"affinity", func(s *specs.Spec) { s.Process.ExecCPUAffinity = &specs.CPUAffinity{Final: "a"} }, ErrInvalid,
			`config.json: process.execCPUAffinity "a" is not a list of CPUs like 0-2,4`},
		{"memory", annotate(AnnotationMemory, "1M"), ErrInvalid,
			`config.json: annotation io.xcontainer.memory="1M" is not a size between 48M and 512G`},
		{"vcpus", annotate(AnnotationVCPUs, "0"), ErrInvalid,
			`config.json: annotation io.xcontainer.vcpus="0" is not a number between 1 and 32`},
		{"xlibos", annotate(AnnotationXLibOS, "fast"), ErrInvalid,
			`config.json: annotation io.xcontainer.xlibos="fast" is neither full, entry nor off`},
		{"xlibos with more", annotate(AnnotationXLibOS, "off,bounce"), ErrInvalid,
			`config.json: annotation io.xcontainer.xlibos="off,bounce" is neither full, entry nor off`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parse(t, tt.change)
			if !errors.Is(err, tt.kind) {
				t.Fatalf("got %v, want %v", err, tt.kind)
			}
			if err.Error() != tt.want {
				t.Errorf("got  %s\nwant %s", err, tt.want)
			}
		})
	}
}

func TestBinds(t *testing.T) {
	s, err := parse(t, func(s *specs.Spec) {
		s.Mounts = append(s.Mounts,
			specs.Mount{Type: "bind", Source: "/a/../b", Destination: "/x", Options: []string{"rbind", "ro", "rprivate"}},
			specs.Mount{Type: "none", Source: "/c", Destination: "/y/", Options: []string{"bind", "rslave", "noexec"}})
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Binds) != 2 || s.Binds[0] != (Bind{8, "/b", true}) || s.Binds[1] != (Bind{9, "/c", false}) {
		t.Errorf("binds %+v", s.Binds)
	}
	want := &agentapi.Mount{Type: "bind", Destination: "/y", Options: []string{"noexec"}}
	if got := s.Container.Mounts[9]; !proto.Equal(got, want) {
		t.Errorf("mount %v, want %v", got, want)
	}
	if len(s.Ignored) != 1 || !strings.Contains(s.Ignored[0], "rslave") {
		t.Errorf("ignored %q", s.Ignored)
	}
}

func TestSize(t *testing.T) {
	type res = specs.LinuxResources
	cpu := func(shares uint64, quota int64, period uint64) res {
		return res{CPU: &specs.LinuxCPU{Shares: &shares, Quota: &quota, Period: &period}}
	}
	mem := func(limit int64) res { return res{Memory: &specs.LinuxMemory{Limit: &limit}} }
	tests := []struct {
		name        string
		r           res
		annotations map[string]string
		memory      uint64
		limit       uint64
		vcpus       uint32
		weight, cap uint16
	}{
		{"none", res{}, nil, DefaultMemoryBytes, 0, 4, 0, 0},
		{"limit", mem(64 << 20), nil, 64<<20 + OverheadBytes, 64 << 20, 4, 0, 0},
		{"odd limit", mem(64<<20 + 1), nil, 64<<20 + OverheadBytes + 4096, 64<<20 + 1, 4, 0, 0},
		{"small limit", mem(4 << 20), nil, 48 << 20, 4 << 20, 4, 0, 0},
		{"no limit in numbers", mem(9223372036854771712), nil, DefaultMemoryBytes, 0, 4, 0, 0},
		{"unlimited", mem(-1), nil, DefaultMemoryBytes, 0, 4, 0, 0},
		{"half a CPU", cpu(1024, 50000, 100000), nil, DefaultMemoryBytes, 0, 1, 0, 50},
		{"hardly any", cpu(0, 1000, 100000), nil, DefaultMemoryBytes, 0, 1, 0, minCap},
		{"one and a half", cpu(512, 150000, 100000), nil, DefaultMemoryBytes, 0, 2, 128, 150},
		{"two", cpu(2, 200000, 100000), nil, DefaultMemoryBytes, 0, 2, 1, 0},
		{"many", cpu(1<<62, 1<<43, 1000), nil, DefaultMemoryBytes, 0, 4, 65535, 0},
		{"default period", cpu(0, 50000, 0), nil, DefaultMemoryBytes, 0, 1, 0, 50},
		{"annotations", mem(64 << 20), map[string]string{AnnotationMemory: "512M", AnnotationVCPUs: "6"}, 512 << 20, 64 << 20, 6, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := parse(t, func(s *specs.Spec) {
				s.Linux.Resources = &tt.r
				s.Annotations = tt.annotations
			})
			if err != nil {
				t.Fatal(err)
			}
			if s.MemoryBytes != tt.memory || uint64(s.Container.GetResources().GetMemoryMax()) != tt.limit || s.VCPUs != tt.vcpus || s.Weight != tt.weight || s.Cap != tt.cap {
				t.Errorf("memory %d limit %d vcpus %d weight %d cap %d; want %+v",
					s.MemoryBytes, s.Container.GetResources().GetMemoryMax(), s.VCPUs, s.Weight, s.Cap, tt)
			}
		})
	}
}

func TestIgnored(t *testing.T) {
	s, err := parse(t, func(s *specs.Spec) {
		s.Process.ApparmorProfile = "p"
		s.Process.SelinuxLabel = "l"
		s.Linux.MountLabel = "m"
		s.Linux.Resources = &specs.LinuxResources{CPU: &specs.LinuxCPU{Mems: "0"}, BlockIO: &specs.LinuxBlockIO{}}
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Ignored) != 4 || s.Container.GuestPids {
		t.Errorf("ignored %q, guest pids %t", s.Ignored, s.Container.GuestPids)
	}
}

func TestHostPids(t *testing.T) {
	s, err := parse(t, func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[1:] })
	if err != nil {
		t.Fatal(err)
	}
	if !s.Container.GuestPids || len(s.Ignored) != 1 || !strings.HasPrefix(s.Ignored[0], "the host's pid namespace") {
		t.Errorf("guest pids %t, ignored %q", s.Container.GuestPids, s.Ignored)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(dir, 1); !errors.Is(err, ErrNotFound) || err.Error() != "bundle "+dir+" has no config.json; create the container again" {
		t.Errorf("no file: %v", err)
	}
	name := filepath.Join(dir, "config.json")
	if err := os.WriteFile(name, []byte(`{"ociVersion`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(dir, 1)
	if !errors.Is(err, ErrInvalid) || !strings.HasPrefix(err.Error(), name+" is corrupt (") || !strings.HasSuffix(err.Error(), "; create the container again") {
		t.Errorf("corrupt: %v", err)
	}
	if err := os.Truncate(name, MaxConfigBytes+1); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir, 1); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "larger than 16 MB") {
		t.Errorf("large: %v", err)
	}
}

func TestParseProcess(t *testing.T) {
	p, ignored, err := ParseProcess([]byte(`{"args":["sh"],"cwd":"/","terminal":true,"consoleSize":{"height":24,"width":80},"apparmorProfile":"x"}`))
	if err != nil || !p.Terminal || p.Rows != 24 || p.Columns != 80 || len(ignored) != 1 {
		t.Errorf("got %v, %q, %v", p, ignored, err)
	}
	if _, _, err := ParseProcess([]byte(`{"args":[],"cwd":"/"}`)); !errors.Is(err, ErrInvalid) {
		t.Errorf("got %v", err)
	}
	if _, _, err := ParseProcess([]byte(`x`)); !errors.Is(err, ErrInvalid) {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	data, err := json.Marshal(defaultSpec())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"root":{"path":"x"},"process":{"args":["a"],"cwd":"/","scheduler":{"policy":"SCHED_RR"},"ioPriority":{"class":"IOPRIO_CLASS_BE"},"execCPUAffinity":{"final":"0-3"}},"hooks":{"poststop":[{"path":"/h","timeout":1}],"startContainer":[{"path":"/h"}]}}`))
	f.Add([]byte(`{"root":{"path":"x"},"process":{"args":["a"],"cwd":"/"},"linux":{"devices":[{"path":"/dev/x","type":"c","major":1,"minor":3}],"personality":{"domain":"LINUX32"},"seccomp":{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86"],"syscalls":[{"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":40,"op":"SCMP_CMP_NE"}]}]}}}`))
	f.Add([]byte(`{"root":{"path":"x"},"process":{"args":["a"],"cwd":"/"},"linux":{"resources":{"cpu":{"quota":1,"period":18446744073709551615}}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Parse(data, "/b", 2)
		if err != nil {
			return
		}
		if s.VCPUs < 1 || s.MemoryBytes < minMemoryBytes || s.MemoryBytes%4096 != 0 {
			t.Errorf("%+v", s)
		}
		for _, b := range s.Binds {
			if !filepath.IsAbs(b.Source) || s.Container.Mounts[b.Mount].Type != "bind" {
				t.Errorf("bind %+v", b)
			}
		}
	})
}

// TestLargestDomain: what is accepted here is what can be built.
func TestLargestDomain(t *testing.T) {
	if maxVCPUs != xen.MaxVCPUs {
		t.Errorf("%d virtual CPUs at most, package xen builds %d", maxVCPUs, xen.MaxVCPUs)
	}
	if maxMemoryBytes != xen.MaxMemoryKiB<<10 {
		t.Errorf("%d bytes at most, package xen builds %d KiB", maxMemoryBytes, xen.MaxMemoryKiB)
	}
}
