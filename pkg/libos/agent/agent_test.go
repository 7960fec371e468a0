// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

func TestExitStatus(t *testing.T) {
	g := newGuest(t)
	for _, c := range []struct {
		name   string
		args   []string
		status uint32
	}{
		{"true", []string{"true"}, 0},
		{"false", []string{"false"}, 1},
		{"42", []string{"sh", "-c", "exit 42"}, 42},
		{"child killed", []string{"sh", "-c", `sh -c "kill -9 \$\$" 2>/dev/null; exit $?`}, 137},
		{"PID 1 cannot kill itself", []string{"sh", "-c", "kill -9 $$; exit 7"}, 7},
		{"PID 1 ignores SIGTERM by default", []string{"sh", "-c", "kill -TERM $$; exit 8"}, 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			if r := g.run(g.spec(c.args...), nil); r.status != c.status || r.out != "" || r.err != "" {
				t.Errorf("got %+v, want status %d and no output", r, c.status)
			}
		})
	}
}

// surroundings are what a program finds, by the output of a script in a
// container that a function has changed.
var surroundings = []struct {
	name   string
	change func(*agentapi.Container)
	script string
	want   string
}{
	{"pid", nil, "echo $$", "1"},
	{"hostname", nil, "hostname", "guest"},
	{"domain name", func(s *agentapi.Container) { s.Domainname = "example.org" }, "cat /proc/sys/kernel/domainname", "example.org"},
	{"cgroup namespace", nil, "grep 0:: /proc/self/cgroup", "0::/"},
	{"cgroup is read-only", nil, "mkdir /sys/fs/cgroup/x 2>&1", "mkdir: can't create directory '/sys/fs/cgroup/x': Read-only file system"},
	{"cgroup holds the process", nil, "cat /sys/fs/cgroup/cgroup.procs | head -n 1", "1"},
	{"own processes only", nil, "echo /proc/[0-9]*", "/proc/1"},
	{"HOME of root", nil, "echo $HOME", "/root"},
	{"HOME of the image", func(s *agentapi.Container) { s.Process.Env = append(s.Process.Env, "HOME=/x") }, "echo $HOME", "/x"},
	{"cwd is made", func(s *agentapi.Container) { s.Process.Cwd = "/srv/a/b" }, "pwd; stat -c %a .", "/srv/a/b\n755"},
	{"device nodes", nil, "for d in null zero full random urandom tty; do stat -c '%n %a %t:%T' /dev/$d; done",
		"/dev/null 666 1:3\n/dev/zero 666 1:5\n/dev/full 666 1:7\n/dev/random 666 1:8\n/dev/urandom 666 1:9\n/dev/tty 666 5:0"},
	{"device links", nil, "for d in fd stdin stdout stderr ptmx; do readlink /dev/$d; done",
		"/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx"},
	{"stdout by name", nil, "echo hi >/dev/stdout", "hi"},
	{"null works", nil, "echo gone >/dev/null; head -c 3 /dev/zero | wc -c", "3"},
	{"proc is proc", nil, "grep ' /proc ' /proc/mounts | head -n 1", "proc /proc proc rw,nosuid,nodev,noexec,relatime 0 0"},
	{"dev options", nil, "grep ' /dev ' /proc/mounts | sed s/,inode64//", "tmpfs /dev tmpfs rw,nosuid,size=65536k,mode=755 0 0"},
	{"devpts options", nil, "grep ' /dev/pts ' /proc/mounts", "devpts /dev/pts devpts rw,nosuid,noexec,relatime,gid=5,mode=620,ptmxmode=666 0 0"},
	{"sysfs is read-only", nil, "grep ' /sys ' /proc/mounts", "sysfs /sys sysfs ro,nosuid,nodev,noexec,relatime 0 0"},
	{"mounts of the agent are gone", nil, "grep -c exports /proc/mounts", "0"},
	{"masked file", func(s *agentapi.Container) { s.MaskedPaths = []string{"/etc/group", "/none"} }, "wc -c </etc/group", "0"},
	{"masked directory", func(s *agentapi.Container) { s.MaskedPaths = []string{"/etc"} },
		"ls /etc; touch /etc/x 2>&1", "touch: /etc/x: Read-only file system"},
	{"read-only path", nil, "echo 1 2>&1 >/proc/sys/kernel/domainname", "sh: can't create /proc/sys/kernel/domainname: Read-only file system"},
	{"writable root", nil, "echo x >/f && cat /f", "x"},
	{"read-only root", func(s *agentapi.Container) { s.ReadonlyRootfs = true }, "touch /f 2>&1; touch /dev/shm/f /run/f && echo run", "touch: /f: Read-only file system\nrun"},
	{"sysctl", func(s *agentapi.Container) { s.Sysctl = map[string]string{"kernel.msgmax": "4242"} }, "cat /proc/sys/kernel/msgmax", "4242"},
	{"umask by default", nil, "umask", "0022"},
	{"umask", func(s *agentapi.Container) { s.Process.User.Umask = proto.Uint32(0o27) }, "umask", "0027"},
	{"rlimit", nil, "ulimit -n; ulimit -Hn", "1024\n1024"},
	{"rlimit of another kind", func(s *agentapi.Container) {
		s.Process.Rlimits = []*agentapi.Rlimit{{Type: "RLIMIT_CORE", Soft: 0, Hard: 4096}}
	}, "ulimit -c; ulimit -Hc; ulimit -n", "0\n8\n1024"},
	{"no new privileges", nil, "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1"},
	{"new privileges", func(s *agentapi.Container) { s.Process.NoNewPrivileges = false }, "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t0"},
	{"oom score", func(s *agentapi.Container) { s.Process.OomScoreAdj = proto.Int32(500) }, "cat /proc/self/oom_score_adj", "500"},
	{"no signal ignored or blocked", func(s *agentapi.Container) {
		s.Process.Args = []string{"grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"}
	}, "", "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000"},
	{"no descriptor is left", nil, "ls /proc/1/fd; true", "0\n1\n2"},
	{"no variable of the agent", nil, "env | grep -v -E '^(PATH|HOME|SHLVL|PWD|_)='", ""},
	{"session of its own", nil, "set -- $(cat /proc/1/stat); echo $6", "1"},
}

func TestSurroundings(t *testing.T) {
	g := newGuest(t)
	for _, c := range surroundings {
		t.Run(c.name, func(t *testing.T) {
			spec := g.spec("sh", "-c", c.script)
			if c.change != nil {
				c.change(spec)
			}
			r := g.run(spec, nil)
			if strings.TrimRight(r.out, "\n") != c.want || r.err != "" {
				t.Errorf("got %q and stderr %q, want %q", r.out, r.err, c.want)
			}
		})
	}
}

func TestUsers(t *testing.T) {
	g := newGuest(t)
	for _, c := range []struct {
		user *agentapi.User
		want string
		home string
	}{
		{&agentapi.User{}, "uid=0(root) gid=0(root)", "/root"},
		{&agentapi.User{Uid: 1000, Gid: 1000}, "uid=1000(app) gid=1000(app)", "/home/app"},
		{&agentapi.User{Uid: 7, Gid: 8, AdditionalGids: []uint32{9}}, "uid=7 gid=8 groups=9", "/"},
		{&agentapi.User{Name: "app"}, "uid=1000(app) gid=1000(app) groups=2000(data),2001(logs)", "/home/app"},
		{&agentapi.User{Name: "app:data"}, "uid=1000(app) gid=2000(data)", "/home/app"},
		{&agentapi.User{Name: "1000"}, "uid=1000(app) gid=1000(app) groups=2000(data),2001(logs)", "/home/app"},
		{&agentapi.User{Name: "4242:77"}, "uid=4242 gid=77", "/"},
		{&agentapi.User{Name: "nobody"}, "uid=65534(nobody) gid=65534 groups=2001(logs)", "/"},
	} {
		spec := g.spec("sh", "-c", "id; echo $HOME; echo by name >/dev/stderr")
		spec.Process.User = c.user
		r := g.run(spec, nil)
		if want := c.want + "\n" + c.home + "\n"; r.out != want || r.err != "by name\n" {
			t.Errorf("%v: got %q and %q, want %q", c.user, r.out, r.err, want)
		}
	}
}

func TestCapabilities(t *testing.T) {
	g := newGuest(t)
	net := []string{"CAP_NET_BIND_SERVICE"}
	for _, c := range []struct {
		name string
		user uint32
		caps *agentapi.Capabilities
		want string // inheritable, permitted, effective, bounding, ambient
	}{
		{"none", 0, nil, "0 0 0 0 0"},
		{"root", 0, &agentapi.Capabilities{Bounding: net, Effective: net, Permitted: net}, "0 400 400 400 0"},
		{"user", 1000, &agentapi.Capabilities{Bounding: net, Effective: net, Permitted: net}, "0 0 0 400 0"},
		{"ambient", 1000, &agentapi.Capabilities{Bounding: net, Effective: net, Permitted: net, Inheritable: net, Ambient: net}, "400 400 400 400 400"},
		{"high", 0, &agentapi.Capabilities{Bounding: []string{"CAP_BPF"}, Permitted: []string{"CAP_BPF"}}, "0 8000000000 8000000000 8000000000 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			spec := g.spec("sh", "-c", "grep Cap /proc/1/status")
			spec.Process.User.Uid = c.user
			spec.Process.Capabilities = c.caps
			r := g.run(spec, nil)
			var got []string
			for line := range strings.Lines(r.out) {
				_, v, _ := strings.Cut(strings.TrimSpace(line), "\t")
				got = append(got, strings.TrimLeft(v[:len(v)-1], "0")+v[len(v)-1:])
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("got %v (%s), want %s", got, r.err, c.want)
			}
		})
	}
}

// foreignELF is the header of an executable for arm64.
func foreignELF() []byte {
	b := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 57)...)
	b[16], b[18] = 2, 183
	return b
}

// refused are containers that cannot be, with the code and the words that a
// user needs.
var refused = []struct {
	name   string
	change func(s *agentapi.Container, root string)
	code   codes.Code
	text   string
}{
	{"not in PATH", args("nope"), codes.NotFound, `exec: "nope": executable file not found in $PATH`},
	{"no such file", args("/nope"), codes.NotFound, `exec: "/nope": stat /nope: no such file or directory`},
	{"not executable", args("/etc/passwd"), codes.InvalidArgument, `exec: "/etc/passwd": permission denied`},
	{"directory", args("/etc"), codes.InvalidArgument, `exec: "/etc": is a directory`},
	{"other architecture", func(s *agentapi.Container, root string) {
		os.WriteFile(filepath.Join(root, "bin/foreign"), foreignELF(), 0o755)
		s.Process.Args = []string{"foreign"}
	}, codes.InvalidArgument, "exec /bin/foreign: exec format error: the file is for arm64, the container runs amd64"},
	{"no command", args(), codes.InvalidArgument, "no command"},
	{"unknown user", func(s *agentapi.Container, _ string) { s.Process.User.Name = "who" }, codes.InvalidArgument, "unable to find user who: no matching entries in passwd file"},
	{"unknown group", func(s *agentapi.Container, _ string) { s.Process.User.Name = "app:what" }, codes.InvalidArgument, "unable to find group what: no matching entries in group file"},
	{"fifo for passwd", func(s *agentapi.Container, root string) {
		s.Process.User.Name = "app"
		os.Remove(filepath.Join(root, "etc/passwd"))
		unix.Mkfifo(filepath.Join(root, "etc/passwd"), 0o644)
	}, codes.InvalidArgument, "not a regular file"},
	{"unknown capability", func(s *agentapi.Container, _ string) {
		s.Process.Capabilities.Bounding = []string{"CAP_FLY"}
	}, codes.InvalidArgument, `unknown capability "CAP_FLY"`},
	{"unknown rlimit", func(s *agentapi.Container, _ string) {
		s.Process.Rlimits = []*agentapi.Rlimit{{Type: "RLIMIT_LUCK"}}
	}, codes.InvalidArgument, `unknown rlimit "RLIMIT_LUCK"`},
	{"unknown mount type", mount("xfs", "x", "/x"), codes.InvalidArgument, `unsupported type "xfs"`},
	{"unknown mount option", mount("tmpfs", "x", "/x", "nosuid", "tmpcopyup"), codes.InvalidArgument, `mount /x: unknown option "tmpcopyup" for a mount of type tmpfs`},
	{"bad option value", mount("tmpfs", "x", "/x", "size=lots"), codes.Internal, `mount tmpfs at /x: option "size=lots": invalid argument`},
	{"mount on the root", mount("tmpfs", "x", "/a/.."), codes.InvalidArgument, "the root itself"},
	{"no such export", mount("bind", "none", "/x"), codes.Internal, `export "none": no such file or directory`},
	{"export outside", mount("bind", "../root", "/x"), codes.Internal, `export "../root": invalid cross-device link`},
	{"no rootfs", func(s *agentapi.Container, _ string) { s.Rootfs = "none" }, codes.Internal, `root file system: export "none": no such file or directory`},
	{"sysctl that climbs", func(s *agentapi.Container, _ string) {
		s.Sysctl = map[string]string{"../self/oom_score_adj": "1"}
	}, codes.InvalidArgument, "not a parameter's name"},
	{"limit without a controller", func(s *agentapi.Container, _ string) {
		s.Resources = &agentapi.Resources{MemoryMax: proto.Int64(1 << 20)}
	}, codes.InvalidArgument, "limit memory.max to 1048576: no such controller"},
	{"cwd is a file", func(s *agentapi.Container, _ string) { s.Process.Cwd = "/etc/passwd" }, codes.Internal, "working directory: make directory /etc/passwd: not a directory"},
	{"unknown sysctl", func(s *agentapi.Container, _ string) {
		s.Sysctl = map[string]string{"net.ipv4.flying": "1"}
	}, codes.InvalidArgument, `sysctl "net.ipv4.flying": the guest's kernel has no such parameter`},
	{"sysctl with a bad value", func(s *agentapi.Container, _ string) {
		s.Sysctl = map[string]string{"kernel.msgmax": "many"}
	}, codes.InvalidArgument, `sysctl "kernel.msgmax": set to "many": invalid argument`},
	{"device that is not there", device("/dev/kvmx", "c", 4000, 1), codes.InvalidArgument, "device /dev/kvmx (c 4000:1): the guest's kernel has no such device"},
	{"block device that is not there", device("/dev/x", "b", 1, 3), codes.InvalidArgument, "device /dev/x (b 1:3): the guest's kernel has no such device"},
	{"device with a bad number", device("/dev/x", "c", -1, 3), codes.InvalidArgument, "no device has such a number"},
	{"device of another type", device("/dev/x", "s", 1, 3), codes.InvalidArgument, `device /dev/x: unknown type "s"`},
	{"device without a path", device("dev/x", "c", 1, 3), codes.InvalidArgument, `device "dev/x": its path is not absolute`},
	{"device over a file", device("/etc/passwd", "c", 1, 3), codes.InvalidArgument, "device /etc/passwd: another file of that name exists"},
	{"seccomp filter in pieces", func(s *agentapi.Container, _ string) { s.Process.Seccomp = make([]byte, 12) }, codes.InvalidArgument, "12 bytes are no whole number of instructions"},
	{"seccomp filter too long", func(s *agentapi.Container, _ string) { s.Process.Seccomp = make([]byte, 8*4097) }, codes.InvalidArgument, "4097 instructions are more than the 4096"},
	{"seccomp with a listener", func(s *agentapi.Container, _ string) {
		s.Process.Seccomp, s.Process.SeccompFlags = allowAll(), 8
	}, codes.InvalidArgument, "unknown flags 0x8"},
	{"CPUs that are no list", func(s *agentapi.Container, _ string) { s.Process.CpuAffinity = "0-x" }, codes.InvalidArgument, `CPU affinity "0-x" is not a list of CPUs`},
	{"CPUs that are not there", func(s *agentapi.Container, _ string) { s.Process.CpuAffinity = "1023" }, codes.InvalidArgument, `set CPU affinity "1023": invalid argument`},
	{"unknown scheduling policy", func(s *agentapi.Container, _ string) { s.Process.Scheduler = &agentapi.Scheduler{Policy: 77} }, codes.InvalidArgument, "set scheduling policy 77: invalid argument"},
	{"unknown I/O priority", func(s *agentapi.Container, _ string) { s.Process.IoPriority = &agentapi.IOPriority{Class: 9} }, codes.InvalidArgument, "no class 9 with level 0"},
	{"zero byte in an argument", args("echo", "a\x00b"), codes.InvalidArgument, "zero byte"},
	{"hook without a path", func(s *agentapi.Container, _ string) { s.StartHooks = []*agentapi.Hook{{Path: "true"}} }, codes.InvalidArgument, `startContainer hook "true": its path is not absolute`},
}

// TestRefused checks also that a refused container leaves nothing.
func TestRefused(t *testing.T) {
	g := newGuest(t)
	for _, c := range refused {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "limit without a controller" && haveControllers(g.cgroup) != nil {
				t.Skip("there are controllers")
			}
			spec := g.spec("true")
			c.change(spec, filepath.Join(g.dir, "exports", spec.Rootfs))
			err := g.tryCreate(spec)
			if status.Code(err) != c.code || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %v: %s", err, c.code, c.text)
			}
		})
	}
	if dirs, _ := filepath.Glob(filepath.Join(g.cgroup, containersDir, "id-*")); len(dirs) != 0 {
		t.Errorf("cgroups are left: %v", dirs)
	}
}

func args(a ...string) func(*agentapi.Container, string) {
	return func(s *agentapi.Container, _ string) { s.Process.Args = a }
}

func device(path, kind string, major, minor int64) func(*agentapi.Container, string) {
	return func(s *agentapi.Container, _ string) {
		s.Devices = append(s.Devices, &agentapi.Device{Path: path, Type: kind, Major: major, Minor: minor, Mode: 0o640, Uid: 1000, Gid: 2000})
	}
}

func mount(fstype, source, dest string, options ...string) func(*agentapi.Container, string) {
	return func(s *agentapi.Container, _ string) {
		s.Mounts = append(s.Mounts, &agentapi.Mount{Type: fstype, Source: source, Destination: dest, Options: options})
	}
}

// TestStartRefused covers what only the exec itself can find.
func TestStartRefused(t *testing.T) {
	g := newGuest(t)
	spec := g.spec("/bin/script")
	os.WriteFile(filepath.Join(g.dir, "exports", spec.Rootfs, "bin/script"), []byte("#!/none\n"), 0o755)
	if err := g.tryCreate(spec); err != nil {
		t.Fatal(err)
	}
	id := "id-" + spec.Rootfs
	_, err := g.api.StartContainer(g.context(), &agentapi.StartContainerRequest{Id: id})
	if status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), "exec /bin/script: no such file or directory") {
		t.Errorf("start: %v", err)
	}
	g.wait(id, "")
	if _, err := g.api.Remove(g.context(), &agentapi.RemoveRequest{Id: id}); err != nil {
		t.Error(err)
	}
}

func TestBindMounts(t *testing.T) {
	g := newGuest(t)
	exports := filepath.Join(g.dir, "exports")
	os.MkdirAll(filepath.Join(exports, "vol/sub"), 0o755)
	os.WriteFile(filepath.Join(exports, "vol/f"), []byte("in volume\n"), 0o644)
	os.WriteFile(filepath.Join(exports, "file"), []byte("one file\n"), 0o644)
	spec := g.spec("sh", "-c", `cat /data/f /ro/f /etc/one
echo new >/data/new
touch /ro/x 2>&1
echo more >>/etc/one
/data/sh -c 'echo ran' 2>&1
grep -E ' /(data|ro) ' /proc/mounts | sed 's/.* \(\/[a-z]*\) [a-z0-9]* \(r[ow],nosuid,nodev,noexec\|r[ow]\),.*/\1 \2/'`)
	b, _ := os.ReadFile("/bin/busybox")
	os.WriteFile(filepath.Join(exports, "vol/sh"), b, 0o755)
	mount("bind", "vol", "/data", "rbind", "nosuid", "nodev", "noexec")(spec, "")
	mount("bind", "vol", "/ro", "bind", "ro", "rprivate")(spec, "")
	mount("bind", "file", "/etc/one", "bind", "rw")(spec, "")
	r := g.run(spec, nil)
	want := "in volume\nin volume\none file\ntouch: /ro/x: Read-only file system\nsh: /data/sh: Permission denied\n/data rw,nosuid,nodev,noexec\n/ro ro\n"
	if r.out != want || r.err != "" {
		t.Errorf("got %q and %q, want %q", r.out, r.err, want)
	}
	for name, want := range map[string]string{"vol/new": "new\n", "file": "one file\nmore\n"} {
		if b, _ := os.ReadFile(filepath.Join(exports, name)); string(b) != want {
			t.Errorf("%s holds %q, want %q", name, b, want)
		}
	}
}

// TestMountTargetsStayInside gives an image links that would lead mounts out of
// it if they were followed from the agent's root.
func TestMountTargetsStayInside(t *testing.T) {
	g := newGuest(t)
	outside := filepath.Join(g.dir, "outside")
	os.Mkdir(outside, 0o755)
	os.WriteFile(filepath.Join(g.dir, "exports", "file"), []byte("bound\n"), 0o644)
	for _, c := range []struct{ link, dest string }{
		{outside, "/link/made"},
		{"../../../../../.." + outside, "/link/made"},
		{"/proc/1/root" + outside, "/link/made"},
		{outside, "/link"},
	} {
		spec := g.spec("sh", "-c", "cat "+c.dest)
		root := filepath.Join(g.dir, "exports", spec.Rootfs)
		os.Symlink(c.link, filepath.Join(root, "link"))
		os.MkdirAll(filepath.Join(root, outside), 0o755) // where the link leads inside
		mount("bind", "file", c.dest, "bind")(spec, "")
		if err := g.tryCreate(spec); err == nil {
			g.api.Signal(g.context(), &agentapi.SignalRequest{Id: "id-" + spec.Rootfs, Signal: 9})
			g.api.Remove(g.context(), &agentapi.RemoveRequest{Id: "id-" + spec.Rootfs})
		}
		if entries, _ := os.ReadDir(outside); len(entries) != 0 {
			t.Errorf("link to %s: %s was made outside", c.link, entries[0].Name())
		}
	}
}

func TestStdin(t *testing.T) {
	g := newGuest(t)
	data := make([]byte, 20<<20)
	for i := range data {
		data[i] = byte(i>>16 ^ i>>8 ^ i)
	}
	r := g.run(g.spec("cat"), bytes.NewReader(data))
	if r.status != 0 || r.out != string(data) || r.outN != uint64(len(data)) {
		t.Errorf("status %d, %d bytes of %d, counted %d, equal: %v", r.status, len(r.out), len(data), r.outN, r.out == string(data))
	}
}

func TestOutputOfQuickExit(t *testing.T) {
	g := newGuest(t)
	spec := g.spec("sh", "-c", "cat /big; cat /big >&2")
	data := bytes.Repeat([]byte("0123456789abcdef"), 8<<20/16)
	os.WriteFile(filepath.Join(g.dir, "exports", spec.Rootfs, "big"), data, 0o644)
	r := g.run(spec, nil)
	n := uint64(len(data))
	if r.out != string(data) || r.err != string(data) || r.outN != n || r.errN != n {
		t.Errorf("got %d and %d bytes, counted %d and %d, want %d each", len(r.out), len(r.err), r.outN, r.errN, n)
	}
}
