// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/xcontainer/xcontainer/pkg/shim/hooks"
)

// mountOptions are those that a mount of a container may have. A read-only bind
// is so with all that is mounted below it, by its source's clone, so "ro" and
// "rro" of one are the same.
var mountOptions = []string{
	"async", "atime", "bind", "defaults", "dev", "diratime", "dirsync", "exec", "lazytime", "noatime", "nodev",
	"nodiratime", "noexec", "norelatime", "nostrictatime", "nosuid", "nosymfollow", "private", "ratime", "rbind",
	"rdev", "rdiratime", "relatime", "rexec", "rnoatime", "rnodev", "rnodiratime", "rnoexec", "rnorelatime",
	"rnostrictatime", "rnosuid", "rnosymfollow", "ro", "rprivate", "rrelatime", "rro", "rrw", "rslave", "rstrictatime",
	"rsuid", "rsymfollow", "runbindable", "rw", "slave", "strictatime", "suid", "symfollow", "sync", "unbindable",
}

// seccompFlags are known and supported alike.
var seccompFlags = []string{"SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"}

// offered says what of the OCI specification holds here (features.md of the
// specification): no user namespaces, no id-mapped mounts, no security modules.
func offered() *features.Features {
	on, off := true, false
	return &features.Features{
		OCIVersionMin: "1.0.0",
		OCIVersionMax: specs.Version,
		Hooks:         []string{hooks.Prestart, hooks.CreateRuntime, hooks.CreateContainer, hooks.StartContainer, hooks.Poststart, hooks.Poststop},
		MountOptions:  mountOptions,
		Linux: &features.Linux{
			Namespaces: []string{"cgroup", "ipc", "mount", "network", "pid", "uts"},
			Cgroup:     &features.Cgroup{V1: &on, V2: &on, Systemd: &off, SystemdUser: &off, Rdma: &off},
			Seccomp: &features.Seccomp{
				Enabled: &on,
				Actions: []string{
					string(specs.ActAllow), string(specs.ActErrno), string(specs.ActKill), string(specs.ActKillProcess),
					string(specs.ActKillThread), string(specs.ActLog), string(specs.ActTrace), string(specs.ActTrap),
				},
				Operators: []string{
					string(specs.OpEqualTo), string(specs.OpGreaterEqual), string(specs.OpGreaterThan), string(specs.OpLessEqual),
					string(specs.OpLessThan), string(specs.OpMaskedEqual), string(specs.OpNotEqual),
				},
				Archs:          []string{string(specs.ArchX86), string(specs.ArchX86_64), string(specs.ArchX32)},
				KnownFlags:     seccompFlags,
				SupportedFlags: seccompFlags,
			},
			Apparmor:        &features.Apparmor{Enabled: &off},
			Selinux:         &features.Selinux{Enabled: &off},
			MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: &off}},
		},
	}
}
