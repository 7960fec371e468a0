// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

func ptr[T any](v T) *T { return &v }

func TestHost(t *testing.T) {
	s, err := parse(t, func(s *specs.Spec) {
		s.Annotations = map[string]string{"a": "b"}
		s.Process.OOMScoreAdj = ptr(100)
		s.Linux.Namespaces[4].Path = "/run/netns/x"
		s.Hooks = &specs.Hooks{
			CreateRuntime:  []specs.Hook{{Path: "/bin/r"}},
			StartContainer: []specs.Hook{{Path: "/bin/s"}, {Path: "/bin/t", Args: []string{"t", "1"}, Env: []string{"A=1"}, Timeout: ptr(5)}},
			Poststop:       []specs.Hook{{Path: "/bin/p", Timeout: ptr(7)}},
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	h := s.Host
	if h.NetNS != "/run/netns/x" || h.CgroupsPath != "/default/x" || *h.OOMScoreAdj != 100 || h.Annotations["a"] != "b" || len(h.Resources.Devices) != 1 {
		t.Errorf("host %+v", h)
	}
	if len(h.Hooks.CreateRuntime) != 1 || len(h.Hooks.StartContainer) != 0 || *h.Hooks.Poststop[0].Timeout != 7 {
		t.Errorf("hooks %+v", h.Hooks)
	}
	if !s.HostMounts {
		t.Error("the createRuntime hook finds no root file system")
	}
	want := []*agentapi.Hook{
		{Path: "/bin/s", Args: []string{"/bin/s"}},
		{Path: "/bin/t", Args: []string{"t", "1"}, Env: []string{"A=1"}, Timeout: 5},
	}
	for i, got := range s.Container.StartHooks {
		if len(want) != len(s.Container.StartHooks) || !proto.Equal(got, want[i]) {
			t.Errorf("start hook %v", got)
		}
	}
	if len(s.Ignored) != 1 || !strings.Contains(s.Ignored[0], "/run/netns/x") {
		t.Errorf("ignored %q", s.Ignored)
	}
	if s, err := parse(t, nil); err != nil || s.Host.NetNS != "" || s.Host.Hooks == nil || s.Host.OOMScoreAdj != nil {
		t.Errorf("default: %+v, %v", s.Host, err)
	}
}

func TestDevices(t *testing.T) {
	s, err := parse(t, func(s *specs.Spec) {
		s.Linux.Devices = []specs.LinuxDevice{
			{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229},
			{Path: "/dev/x/../zero", Type: "u", Major: 1, Minor: 5, FileMode: ptr(os.FileMode(unix.S_IFCHR | 0o640)), UID: ptr(uint32(7)), GID: ptr(uint32(8))},
			{Path: "/dev/pipe", Type: "p"},
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []*agentapi.Device{
		{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229, Mode: 0o666},
		{Path: "/dev/zero", Type: "c", Major: 1, Minor: 5, Mode: 0o640, Uid: 7, Gid: 8},
		{Path: "/dev/pipe", Type: "p", Mode: 0o666},
	}
	if len(s.Container.Devices) != len(want) {
		t.Fatalf("devices %v", s.Container.Devices)
	}
	for i := range want {
		if !proto.Equal(s.Container.Devices[i], want[i]) {
			t.Errorf("got %v, want %v", s.Container.Devices[i], want[i])
		}
	}
}

func TestProcessSettings(t *testing.T) {
	s, err := parse(t, func(s *specs.Spec) {
		s.Process.User = specs.User{UID: 1, GID: 2, AdditionalGids: []uint32{3, 4}, Umask: ptr(uint32(0o27))}
		s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedRR, Priority: 9, Nice: -3,
			Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork, specs.SchedFlagKeepParams}, Runtime: 1, Deadline: 2, Period: 3}
		s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_IDLE, Priority: 4}
		s.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0", Final: "0-1"}
		s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
		s.Linux.Sysctl = map[string]string{"kernel.pid_max": "4194304"}
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog},
			Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActErrno}}}
	})
	if err != nil {
		t.Fatal(err)
	}
	p := s.Container.Process
	if p.User.Uid != 1 || p.User.Gid != 2 || len(p.User.AdditionalGids) != 2 || *p.User.Umask != 0o27 {
		t.Errorf("user %v", p.User)
	}
	if want := (&agentapi.Scheduler{Policy: 2, Flags: 0x11, Nice: -3, Priority: 9, Runtime: 1, Deadline: 2, Period: 3}); !proto.Equal(p.Scheduler, want) {
		t.Errorf("scheduler %v", p.Scheduler)
	}
	if p.IoPriority.GetClass() != 3 || p.IoPriority.GetLevel() != 4 || p.GetPersonality() != 8 || s.Container.Sysctl["kernel.pid_max"] == "" {
		t.Errorf("process %v", p)
	}
	if len(p.Seccomp) == 0 || len(p.Seccomp)%8 != 0 || p.SeccompFlags != 2 {
		t.Errorf("seccomp %d bytes, flags %d", len(p.Seccomp), p.SeccompFlags)
	}
	if p.CpuAffinity != "" || len(s.Ignored) != 1 {
		t.Errorf("affinity %q, ignored %q", p.CpuAffinity, s.Ignored)
	}

	exec, _, err := ParseProcess([]byte(`{"args":["sh"],"cwd":"/"}`))
	if err != nil {
		t.Fatal(err)
	}
	s.InheritTo(exec)
	if string(exec.Seccomp) != string(p.Seccomp) || exec.SeccompFlags != 2 || exec.GetPersonality() != 8 || exec.CpuAffinity != "0-1" || exec.Scheduler != nil {
		t.Errorf("exec %v", exec)
	}
	exec, _, err = ParseProcess([]byte(`{"args":["sh"],"cwd":"/","execCPUAffinity":{"final":"1"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if s.InheritTo(exec); exec.CpuAffinity != "1" {
		t.Errorf("exec %v", exec)
	}
}
