// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// Of classic BPF and seccomp(2).
const (
	bpfLoad      = 0x20 // BPF_LD | BPF_W | BPF_ABS: a word of seccomp_data
	bpfEqual     = 0x15 // BPF_JMP | BPF_JEQ | BPF_K
	bpfReturn    = 0x06 // BPF_RET | BPF_K
	seccompAllow = 0x7fff0000
	seccompErrno = 0x00050000
	seccompKill  = 0x80000000
)

func step(code uint16, jt, jf byte, k uint32) []byte {
	b := binary.LittleEndian.AppendUint16(nil, code)
	return binary.LittleEndian.AppendUint32(append(b, jt, jf), k)
}

func allowAll() []byte { return step(bpfReturn, 0, 0, seccompAllow) }

// deny is a filter that answers some calls with action and allows all others.
func deny(action uint32, calls ...uint32) []byte {
	b := step(bpfLoad, 0, 0, 0)
	for _, nr := range calls {
		b = append(b, step(bpfEqual, 0, 1, nr)...)
		b = append(b, step(bpfReturn, 0, 0, action)...)
	}
	return append(b, allowAll()...)
}

// TestSeccomp: a filter holds for the program, with and without privileges to
// gain, for users and root, for init and exec, and a strict one does not hit
// what comes before the program.
func TestSeccomp(t *testing.T) {
	g := newGuest(t)
	mkdir := deny(seccompErrno|uint32(unix.EACCES), unix.SYS_MKDIR, unix.SYS_MKDIRAT)
	const script = "mkdir /tmp/x 2>&1; grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status; touch /tmp/y && echo touched"
	for _, c := range []struct {
		name    string
		uid     uint32
		noNew   bool
		filters string
	}{
		{"user", 1000, true, "1"}, {"root", 0, true, "1"}, {"user who may gain", 1000, false, "0"}, {"root who may gain", 0, false, "0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			spec := g.spec("sh", "-c", script)
			os.Chmod(filepath.Join(g.dir, "exports", spec.Rootfs, "tmp"), 0o777)
			set := func(p *agentapi.Process) {
				p.User, p.NoNewPrivileges, p.Seccomp = &agentapi.User{Uid: c.uid}, c.noNew, mkdir
				p.SeccompFlags = unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_LOG
			}
			set(spec.Process)
			nnp := map[bool]string{true: "1", false: "0"}[c.noNew]
			want := "mkdir: can't create directory '/tmp/x': Permission denied\nNoNewPrivs:\t" + nnp + "\nSeccomp:\t2\ntouched\n"
			if r := g.run(spec, nil); r.out != want || r.err != "" {
				t.Errorf("init: got %q and %q, want %q", r.out, r.err, want)
			}
			id, _ := g.start(g.spec("sleep", "1000"), nil)
			defer g.end(id)
			os.Chmod(filepath.Join(g.dir, "exports", strings.TrimPrefix(id, "id-"), "tmp"), 0o777)
			p := g.process("sh", "-c", script)
			set(p)
			s := g.mustExec(id, "e", p, nil)
			if out := s.out.text(); out != want {
				t.Errorf("exec: got %q, want %q", out, want)
			}
		})
	}
	// With no_new_privs only execve itself is made under the filter.
	t.Run("late", func(t *testing.T) {
		spec := g.spec("echo", "ran")
		spec.Process.Seccomp = deny(seccompKill, unix.SYS_CAPSET, unix.SYS_SETRESUID, unix.SYS_SETGROUPS, unix.SYS_SENDMSG,
			unix.SYS_SENDTO, unix.SYS_READ, unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_CLOSE_RANGE,
			unix.SYS_CLOSE, unix.SYS_FUTEX, unix.SYS_EPOLL_PWAIT, unix.SYS_NANOSLEEP, unix.SYS_CLONE, unix.SYS_MADVISE, unix.SYS_TGKILL)
		if r := g.run(spec, nil); r.status != 0 || r.out != "ran\n" {
			t.Errorf("got %+v", r)
		}
	})
	t.Run("program that is not one", func(t *testing.T) {
		spec := g.spec("/bin/script")
		spec.Process.Seccomp = allowAll()
		os.WriteFile(filepath.Join(g.dir, "exports", spec.Rootfs, "bin/script"), []byte("#!/none\n"), 0o755)
		if err := g.tryCreate(spec); err != nil {
			t.Fatal(err)
		}
		_, err := g.api.StartContainer(g.context(), &agentapi.StartContainerRequest{Id: "id-" + spec.Rootfs})
		if status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), "exec /bin/script: no such file or directory") {
			t.Errorf("start: %v", err)
		}
		g.end("id-" + spec.Rootfs)
	})
	t.Run("kernel refuses", func(t *testing.T) {
		for _, noNew := range []bool{true, false} {
			spec := g.spec("true")
			spec.Process.NoNewPrivileges = noNew
			spec.Process.Seccomp = step(bpfLoad, 0, 0, 0) // does not return
			err := g.tryCreate(spec)
			if noNew && err == nil {
				_, err = g.api.StartContainer(g.context(), &agentapi.StartContainerRequest{Id: "id-" + spec.Rootfs})
				defer g.end("id-" + spec.Rootfs)
			}
			if err == nil || !strings.Contains(err.Error(), "install the seccomp filter of 1 instructions: invalid argument") {
				t.Errorf("no new privileges %v: %v", noNew, err)
			}
		}
	})
}

// settings are process settings by what a script prints.
var settings = []struct {
	name   string
	change func(*agentapi.Process)
	script string
	want   string
}{
	{"nice", func(p *agentapi.Process) { p.Scheduler = &agentapi.Scheduler{Nice: -5} }, "set -- $(cat /proc/self/stat); echo ${19} ${41}", "-5 0"},
	{"batch", func(p *agentapi.Process) { p.Scheduler = &agentapi.Scheduler{Policy: unix.SCHED_BATCH, Nice: 3} }, "set -- $(cat /proc/self/stat); echo ${19} ${41}", "3 3"},
	{"personality", func(p *agentapi.Process) { p.Personality = proto.Uint32(8) }, "cat /proc/self/personality", "00000008"},
	{"affinity", func(p *agentapi.Process) { p.CpuAffinity = "0" }, "grep Cpus_allowed_list /proc/self/status", "Cpus_allowed_list:\t0"},
	{"affinity with CPUs beyond", func(p *agentapi.Process) { p.CpuAffinity = "0,1000-1023" }, "grep Cpus_allowed_list /proc/self/status", "Cpus_allowed_list:\t0"},
	{"groups", func(p *agentapi.Process) { p.User.AdditionalGids = []uint32{5, 6} }, "id -G", "0 5 6"},
	{"umask", func(p *agentapi.Process) { p.User.Umask = proto.Uint32(0o77) }, "umask", "0077"},
	{"oom score", func(p *agentapi.Process) { p.OomScoreAdj = proto.Int32(600) }, "cat /proc/self/oom_score_adj", "600"},
	{"I/O priority", func(p *agentapi.Process) { p.IoPriority = &agentapi.IOPriority{Class: 2, Level: 6} }, "ionice -p $$", "best-effort: prio 6"},
}

// TestSettings tries them for an init and for an exec, as a user without rights.
func TestSettings(t *testing.T) {
	g := newGuest(t)
	for _, c := range settings {
		t.Run(c.name, func(t *testing.T) {
			spec := g.spec("sh", "-c", c.script)
			c.change(spec.Process)
			if r := g.run(spec, nil); r.out != c.want+"\n" || r.err != "" {
				t.Errorf("init: got %q and %q, want %q", r.out, r.err, c.want)
			}
			id, _ := g.start(g.spec("sleep", "1000"), nil)
			defer g.end(id)
			p := g.process("sh", "-c", c.script)
			c.change(p)
			s := g.mustExec(id, "e", p, nil)
			if out := s.out.text(); out != c.want+"\n" {
				t.Errorf("exec: got %q and %q, want %q", out, s.err.text(), c.want)
			}
		})
	}
}

func TestDevices(t *testing.T) {
	g := newGuest(t)
	spec := g.spec("sh", "-c", `for d in /dev/zero2 /dev/deep/er/kmsg /pipe /dev/null /dev/ptmx; do stat -L -c '%n %F %a %u:%g %t:%T' $d; done; head -c 3 /dev/zero2 | wc -c`)
	for _, add := range []func(*agentapi.Container, string){
		device("/dev/zero2", "c", 1, 5), device("/dev/deep/er/kmsg", "u", 1, 11), device("/pipe", "p", 0, 0),
		device("/dev/null", "c", 1, 3), device("/dev/ptmx", "c", 5, 2),
	} {
		add(spec, "")
	}
	want := `/dev/zero2 character special file 640 1000:2000 1:5
/dev/deep/er/kmsg character special file 640 1000:2000 1:b
/pipe fifo 640 1000:2000 0:0
/dev/null character special file 666 0:0 1:3
/dev/ptmx character special file 666 0:0 5:2
3
`
	if r := g.run(spec, nil); r.out != want || r.err != "" {
		t.Errorf("got %q and %q, want %q", r.out, r.err, want)
	}
}

// TestDevicesStayInside: a link of the image does not lead a node out of it.
func TestDevicesStayInside(t *testing.T) {
	g := newGuest(t)
	outside := filepath.Join(g.dir, "outside")
	os.Mkdir(outside, 0o755)
	spec := g.spec("true")
	os.Symlink("../../../../../../.."+outside, filepath.Join(g.dir, "exports", spec.Rootfs, "link"))
	device("/link/node", "c", 1, 3)(spec, "")
	if r := g.run(spec, nil); r.status != 0 {
		t.Errorf("got %+v", r)
	}
	if _, err := os.Stat(filepath.Join(g.dir, "exports", spec.Rootfs, outside, "node")); err != nil {
		t.Errorf("the node is not where the link leads inside: %v", err)
	}
	if left, _ := os.ReadDir(outside); len(left) != 0 {
		t.Errorf("%s was made outside", left[0].Name())
	}
}

func TestSysctl(t *testing.T) {
	g := newGuest(t)
	spec := g.spec("sh", "-c", "cat /proc/sys/kernel/msgmax /proc/sys/kernel/shm_rmid_forced /proc/sys/fs/mqueue/msg_max")
	spec.Sysctl = map[string]string{"kernel.msgmax": "4242", "kernel/shm_rmid_forced": "1", "fs.mqueue.msg_max": "11"}
	if r := g.run(spec, nil); r.out != "4242\n1\n11\n" || r.err != "" {
		t.Errorf("got %q and %q", r.out, r.err)
	}
}

// TestDanglingTargets: what a link of the image names is made inside the image.
func TestDanglingTargets(t *testing.T) {
	g := newGuest(t)
	spec := g.spec("sh", "-c", "grep -E '^[a-z]* /(none|var)' /proc/mounts | cut -d ' ' -f 1,2; ls -d /run/.")
	root := filepath.Join(g.dir, "exports", spec.Rootfs)
	os.Symlink("/none/run", filepath.Join(root, "run"))
	os.Symlink("var/there", filepath.Join(root, "link"))
	mount("tmpfs", "x", "/link/x")(spec, root)
	r := g.run(spec, nil)
	if want := "tmpfs /none/run\nx /var/there/x\n/run/.\n"; r.out != want || r.err != "" {
		t.Errorf("got %q and %q, want %q", r.out, r.err, want)
	}
}

func TestHooks(t *testing.T) {
	g := newGuest(t)
	spec := g.spec("sh", "-c", "cat /tmp/log; echo program")
	os.Chmod(filepath.Join(g.dir, "exports", spec.Rootfs, "tmp"), 0o777)
	spec.Process.User = &agentapi.User{Uid: 1000, Gid: 1000}
	const script = `(echo "$1 $(cat) A=$A HOME=$HOME pid $$ $(id -u) $(hostname)"; env | grep -c GOGC) >>/tmp/log; echo out; echo err >&2; sleep 0.1 &`
	hook := func(name string) *agentapi.Hook {
		return &agentapi.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", script, "hook", name}, Env: []string{"PATH=/bin", "A=b"}, State: []byte(`{"id":"x"}`), Timeout: 30}
	}
	spec.StartHooks = []*agentapi.Hook{hook("one"), hook("two")}
	r := g.run(spec, nil)
	lines := strings.Split(r.out, "\n")
	if len(lines) != 6 || !strings.HasPrefix(lines[0], `one {"id":"x"} A=b HOME= pid `) || !strings.HasSuffix(lines[0], " 1000 guest") ||
		lines[1] != "0" || !strings.HasPrefix(lines[2], "two") || lines[4] != "program" || r.err != "" || strings.Contains(lines[0], "pid 1 ") {
		t.Errorf("got %q and %q", r.out, r.err)
	}
}

func TestHooksFail(t *testing.T) {
	g := newGuest(t)
	for _, c := range []struct {
		hook *agentapi.Hook
		text string
	}{
		{&agentapi.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "echo first >&2; echo the reason >&2; exit 3"}}, "startContainer hook /bin/sh: exit status 3: the reason"},
		{&agentapi.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "kill -9 $$"}}, "startContainer hook /bin/sh: signal: killed"},
		{&agentapi.Hook{Path: "/none"}, "startContainer hook /none: no such file or directory"},
		{&agentapi.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "echo waiting >&2; sleep 1000 & sleep 1000"}, Env: []string{"PATH=/bin"}, Timeout: 1}, "startContainer hook /bin/sh: not done in 1 s: waiting"},
	} {
		spec := g.spec("true")
		spec.StartHooks = []*agentapi.Hook{c.hook}
		if err := g.tryCreate(spec); err != nil {
			t.Fatal(err)
		}
		id := "id-" + spec.Rootfs
		_, err := g.api.StartContainer(g.context(), &agentapi.StartContainerRequest{Id: id})
		if err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("got %v, want %s", err, c.text)
		}
		g.end(id)
	}
}

// TestHookWithoutLimit: a caller that gives up ends the start.
func TestHookWithoutLimit(t *testing.T) {
	g := newGuest(t)
	spec := g.spec("true")
	spec.StartHooks = []*agentapi.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "1000"}}}
	if err := g.tryCreate(spec); err != nil {
		t.Fatal(err)
	}
	id := "id-" + spec.Rootfs
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if _, err := g.api.StartContainer(ctx, &agentapi.StartContainerRequest{Id: id}); err == nil {
		t.Error("started beside its hook")
	}
	g.end(id)
}
