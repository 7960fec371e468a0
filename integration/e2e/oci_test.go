// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// object is a part of a config.json.
type object = map[string]any

// config writes a config.json for a container on a busybox of its own, and
// returns the file's name. It is containerd's default one after change.
func (s *story) config(change func(spec object), args ...string) string {
	s.Helper()
	name := "/var/tmp/" + s.id()
	root := name + "-root"
	s.Cleanup(func() {
		s.must("rm -f " + name + "*.json; ctr images unmount --rm " + root + " >/dev/null && rmdir " + root)
	})
	r := s.must("mkdir " + root + " && ctr images mount --rw $B " + root + " >/dev/null && ctr oci spec")
	var spec object
	if err := json.Unmarshal([]byte(r.stdout), &spec); err != nil {
		s.Fatalf("default spec: %v in %v", err, r)
	}
	spec["root"] = object{"path": root}
	process := spec["process"].(object)
	process["args"], process["terminal"] = args, false
	process["env"] = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	// The default one is where other containers' cgroups are.
	spec["linux"].(object)["cgroupsPath"] = "/default/" + s.id()
	change(spec)
	s.write(name+".json", spec)
	return name + ".json"
}

// write writes v as JSON to a file of the host.
func (s *story) write(name string, v any) {
	s.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		s.Fatal(err)
	}
	s.wantCode(s.shInput(strings.NewReader(string(data)), "cat >"+name), 0)
}

// startConfig starts a container that goes on from a config.json.
func (s *story) startConfig(file string) (id string) {
	s.Helper()
	id = s.id()
	s.Cleanup(func() { s.remove(id) })
	if r := s.sh("exec $RUN -d --null-io --config " + file + " " + id); r.code != 0 {
		s.Fatalf("start %s: %v", id, r)
	}
	return id
}

// pid is a task's.
func (s *story) pid(id string) string {
	s.Helper()
	return strings.TrimSpace(s.must(`ctr task ls | awk '$1 == "` + id + `" {print $2}'`).stdout)
}

// hooks are a hook of each kind that writes its state and its network namespace
// to dir; the one in the container writes to /.
func hooks(dir string) object {
	out := object{}
	for _, kind := range []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"} {
		to := dir
		if kind == "startContainer" {
			to = ""
		}
		script := fmt.Sprintf(`cat >%[1]s/%[2]s.json; readlink /proc/self/ns/net >%[1]s/%[2]s.net; env | sort >%[1]s/%[2]s.env`, to, kind)
		out[kind] = []object{{"path": "/bin/sh", "args": []string{"sh", "-c", script, "name"}, "env": []string{"PATH=/usr/bin:/bin", "A=b c"}}}
	}
	return out
}

type hookState struct {
	ID, Status, Bundle string
	Pid                int
	Annotations        map[string]string
}

// hookState reads what a hook has written.
func (s *story) hookState(id, dir, kind string) (state hookState, net string) {
	s.Helper()
	cat := "cat "
	if kind == "startContainer" {
		cat, dir = "ctr task exec --exec-id h"+s.id()+" "+id+" cat ", ""
	}
	// After the state, which has no end of line.
	r := s.must(fmt.Sprintf("%[1]s %[2]s/%[3]s.json; echo; %[1]s %[2]s/%[3]s.net", cat+" ", dir, kind))
	first, net, _ := strings.Cut(strings.TrimSpace(r.stdout), "\n")
	if err := json.Unmarshal([]byte(first), &state); err != nil {
		s.Errorf("%s: %v in %v", kind, err, r)
	}
	return state, strings.TrimSpace(net)
}

// TestHooks: each hook runs at its time and place, and is told what it should be.
func TestHooks(t *testing.T) {
	s := begin(t)
	dir := "/var/tmp/" + s.id()
	s.must("mkdir " + dir)
	s.Cleanup(func() { s.must("rm -r " + dir) })
	id := s.startConfig(s.config(func(spec object) {
		spec["hooks"] = hooks(dir)
		spec["annotations"] = object{"story": "hooks"}
	}, "sleep", "1000"))
	pid := s.pid(id)
	host := strings.TrimSpace(s.must("readlink /proc/self/ns/net").stdout)
	own := strings.TrimSpace(s.must("readlink /proc/" + pid + "/ns/net").stdout)
	if host == own {
		t.Errorf("the task has the host's network")
	}
	for _, h := range []struct{ kind, status, net string }{
		{"prestart", "creating", host}, {"createRuntime", "creating", host}, {"createContainer", "creating", own},
		{"startContainer", "created", ""}, {"poststart", "running", host},
	} {
		state, net := s.hookState(id, dir, h.kind)
		want := pid
		if h.kind == "startContainer" {
			want = "1"
		}
		if state.ID != id || state.Status != h.status || fmt.Sprint(state.Pid) != want || !strings.HasSuffix(state.Bundle, "/"+id) || state.Annotations["story"] != "hooks" {
			t.Errorf("%s: state %+v, want %s of %s and pid %s", h.kind, state, h.status, id, want)
		}
		if h.net != "" && net != h.net {
			t.Errorf("%s: in the network %s, want %s", h.kind, net, h.net)
		}
	}
	// A shell adds what it needs.
	env := s.must("grep -v -e ^PWD= -e ^_= -e ^SHLVL= -e ^OLDPWD= " + dir + "/createRuntime.env").stdout
	if env != "A=b c\nPATH=/usr/bin:/bin\n" {
		t.Errorf("environment %q", env)
	}
	s.want(s.sh("ls "+dir+" | grep -c poststop"), 1, "0\n")
	s.must("ctr task kill -s KILL " + id + "; ctr task rm " + id + " 2>/dev/null || ctr task rm -f " + id + " 2>/dev/null || true")
	if state, net := s.hookState(id, dir, "poststop"); state.ID != id || state.Status != "stopped" || net != host {
		t.Errorf("poststop: state %+v in %s", state, net)
	}
}

// TestHookFails: Create fails in the hook's own words, and poststop hooks run.
func TestHookFails(t *testing.T) {
	s := begin(t)
	file := "/var/tmp/" + s.id()
	s.Cleanup(func() { s.must("rm -f " + file) })
	config := s.config(func(spec object) {
		spec["hooks"] = object{
			"createRuntime": []object{{"path": "/bin/sh", "args": []string{"sh", "-c", "echo the bridge is closed >&2; exit 1"}}},
			"poststop":      []object{{"path": "/bin/sh", "args": []string{"sh", "-c", "/bin/cat >" + file}}},
		}
	}, "true")
	r := s.sh("exec $RUN --rm --config " + config + " " + s.id())
	s.wantError(r, "the bridge is closed")
	if xen() {
		s.oneSentence(r, "the createRuntime hook /bin/sh failed (exit status 1): the bridge is closed")
	}
	s.wantCode(s.sh("grep -q stopped "+file), 0)
}

// TestPoststopAfterShimKilled: also somebody else than the shim runs the hooks.
func TestPoststopAfterShimKilled(t *testing.T) {
	onXen(t)
	s := begin(t)
	file := "/var/tmp/" + s.id()
	s.Cleanup(func() { s.must("rm -f " + file) })
	id := s.startConfig(s.config(func(spec object) {
		spec["hooks"] = object{"poststop": []object{{"path": "/bin/sh", "args": []string{"sh", "-c", "/bin/cat >>" + file + "; echo >>" + file}}}}
	}, "sleep", "1000"))
	s.ends(id, `kill -KILL $(`+shimPids(id)+` | head -n 1)`, 137)
	r := s.must("cat " + file)
	if lines := strings.Split(strings.TrimSpace(r.stdout), "\n"); len(lines) != 1 || !strings.Contains(lines[0], `"status":"stopped"`) || !strings.Contains(lines[0], id) {
		t.Errorf("poststop: %v", r)
	}
}

// TestNetworkNamespace: the task's pid is in the namespace that the client names.
func TestNetworkNamespace(t *testing.T) {
	s := begin(t)
	ns := s.id()
	s.must("ip netns add " + ns)
	s.Cleanup(func() { s.must("ip netns del " + ns) })
	id := s.start("--with-ns network:/run/netns/"+ns, busybox, "sleep", "1000")
	r := s.must("stat -L -c %i /run/netns/" + ns + " /proc/" + s.pid(id) + "/ns/net")
	if f := strings.Fields(r.stdout); len(f) != 2 || f[0] != f[1] {
		t.Errorf("the namespace and the task's: %v", r)
	}
	if xen() {
		s.oneSentence(s.run("--with-ns network:/run/netns/no-such", busybox, "true"), "/run/netns/no-such", "does not exist", "make it first")
		s.oneSentence(s.run("--with-ns network:/etc/passwd", busybox, "true"), "/etc/passwd", "is not a network namespace")
	}
}

// TestHostCgroup: the task's pid is in the container's cgroup, which has its limits
// and goes with it.
func TestHostCgroup(t *testing.T) {
	s := begin(t)
	id := s.start("--memory-limit 67108864 --cpu-shares 512", busybox, "sleep", "1000")
	dir := "/sys/fs/cgroup" + strings.TrimSpace(s.must("cut -d : -f 3 /proc/"+s.pid(id)+"/cgroup").stdout)
	if dir != "/sys/fs/cgroup/default/"+id {
		t.Fatalf("the task is in %s", dir)
	}
	s.want(s.sh("cat "+dir+"/memory.max "+dir+"/cgroup.procs"), 0, "67108864\n"+s.pid(id)+"\n")
	s.wantCode(s.sh(taskupdate+" "+id+` '{"memory": {"limit": 100663296}, "pids": {"limit": 100}}'`), 0)
	s.want(s.sh("cat "+dir+"/memory.max "+dir+"/pids.max"), 0, "100663296\n100\n")
	s.remove(id)
	s.want(s.sh("[ ! -e "+dir+" ] && echo gone"), 0, "gone\n")
}

// TestLimitsBelowTheHolder: limits too small for the process that stands for a
// container on the host do not end the container.
func TestLimitsBelowTheHolder(t *testing.T) {
	onXen(t)
	s := begin(t)
	config := s.config(func(spec object) {
		spec["linux"].(object)["resources"] = object{"memory": object{"limit": 8 << 20}, "pids": object{"limit": 8}}
	}, "sh", "-c", "sleep 5; exit 7")
	s.wantCode(s.sh("exec $RUN --rm --config "+config+" "+s.id()), 7)
}

// TestSeccomp: profiles hold for a container's processes and for execs.
func TestSeccomp(t *testing.T) {
	s := begin(t)
	if !xen() && s.sh("runc features | grep -q SCMP_ACT").code != 0 {
		t.Skip("this runc is built without seccomp")
	}
	s.sub("default profile", func(s *story) {
		id := s.start("--seccomp", debian, "sleep", "1000")
		for _, c := range [][]string{{"cat", "/proc/1/status"}, {"cat", "/proc/self/status"}} {
			if r := s.exec("", id, c...); !strings.Contains(r.stdout, "Seccomp:\t2\n") {
				s.Errorf("%s: %v", c[1], r)
			}
		}
		// add_key(2) is not in the profile, and it wants no capability.
		s.want(s.exec("", id, "perl", "-e", `my ($t, $d, $p) = ("user", "x", "y"); syscall(248, $t, $d, $p, 1, -3); print $!+0, "\n"`), 0, "1\n")
		s.want(s.exec("", id, "bash", "-c", `mkdir /d && ls -l / | grep -c " d$" && (sleep 0.1 & wait) && echo fine`), 0, "1\nfine\n")
	})
	profile := "/var/tmp/" + s.id() + ".json"
	s.Cleanup(func() { s.must("rm -f " + profile) })
	denies := func(action string, more object) object {
		rule := object{"names": []string{"mkdir", "mkdirat", "no_such_call"}, "action": action}
		for k, v := range more {
			rule[k] = v
		}
		return object{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []object{rule}}
	}
	flags := "--seccomp --seccomp-profile " + profile
	s.sub("an error of the profile's choice", func(s *story) {
		s.write(profile, denies("SCMP_ACT_ERRNO", object{"errnoRet": 28}))
		r := s.run(flags, busybox, "sh", "-c", "mkdir /x; echo $?; touch /y && echo fine")
		s.want(r, 0, "1\nfine\n")
		if !strings.Contains(r.stderr, "No space left on device") {
			s.Errorf("mkdir says %v", r)
		}
	})
	s.sub("an argument", func(s *story) {
		// A mode of 0700 and no other.
		s.write(profile, denies("SCMP_ACT_ERRNO", object{"args": []object{{"index": 1, "value": 0o700, "op": "SCMP_CMP_EQ"}}}))
		s.want(s.run(flags, debian, "perl", "-e", `umask 0; print mkdir("/a", 0755) ? 1 : 0, mkdir("/b", 0700) ? 1 : 0, "\n"`), 0, "10\n")
	})
	s.sub("the end of the process", func(s *story) {
		s.write(profile, denies("SCMP_ACT_KILL_PROCESS", nil))
		s.wantCode(s.run(flags, busybox, "sh", "-c", "mkdir /x; echo $?"), 0)
		s.wantCode(s.run(flags, busybox, "mkdir", "/x"), 128+31)
	})
	if xen() {
		s.sub("what cannot be had", func(s *story) {
			s.write(profile, denies("SCMP_ACT_NOTIFY", nil))
			s.oneSentence(s.run(flags, busybox, "true"), "SCMP_ACT_NOTIFY", "not supported by X-Containers")
		})
	}
}

// TestMoreProcessSettings: what a configuration can say of its process, and ctr cannot.
func TestMoreProcessSettings(t *testing.T) {
	s := begin(t)
	id := s.startConfig(s.config(func(spec object) {
		p := spec["process"].(object)
		p["user"] = object{"uid": 1000, "gid": 1001, "additionalGids": []int{2000, 3000}, "umask": 0o27}
		p["oomScoreAdj"] = 321
		p["scheduler"] = object{"policy": "SCHED_BATCH", "nice": 5}
		p["ioPriority"] = object{"class": "IOPRIO_CLASS_IDLE"}
		p["execCPUAffinity"] = object{"final": "0"}
		linux := spec["linux"].(object)
		linux["personality"] = object{"domain": "LINUX32"}
		linux["sysctl"] = object{"kernel.shm_rmid_forced": "1", "net.ipv4.ip_default_ttl": "55"}
		if xen() {
			// Of no namespace: runc refuses it.
			linux["sysctl"].(object)["kernel.pid_max"] = "12345"
		}
	}, "sleep", "1000"))
	for _, c := range []struct{ script, want string }{
		{"grep -E '^(Uid|Groups):' /proc/1/status | tr -s '\\t ' ' '", "Uid: 1000 1000 1000 1000\nGroups: 2000 3000 \n"},
		{"grep -E '^Umask:' /proc/1/status", "Umask:\t0027\n"},
		{"cat /proc/1/oom_score_adj", "321\n"},
		{"awk '{print $19, $41}' /proc/1/stat", "5 3\n"},
		{"cat /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_default_ttl", "1\n55\n"},
	} {
		s.want(s.exec("", id, "sh", "-c", c.script), 0, c.want)
	}
	// Of execs, too.
	s.want(s.exec("", id, "uname", "-m"), 0, "i686\n")
	if xen() {
		s.want(s.exec("", id, "grep", "Cpus_allowed_list", "/proc/self/status"), 0, "Cpus_allowed_list:\t0\n")
		s.want(s.exec("", id, "cat", "/proc/sys/kernel/pid_max"), 0, "12345\n")
		s.want(s.sh("cat /proc/"+s.pid(id)+"/oom_score_adj"), 0, "321\n")
	}
	s.sub("unknown sysctl", func(s *story) {
		onXen(s.T)
		config := s.config(func(spec object) { spec["linux"].(object)["sysctl"] = object{"kernel.no_such_thing": "1"} }, "true")
		s.oneSentence(s.sh("exec $RUN --rm --config "+config+" "+s.id()), "kernel.no_such_thing")
	})
}

// TestGuestDevices: a container may have the devices of its own guest.
func TestGuestDevices(t *testing.T) {
	s := begin(t)
	r := s.run("--device /dev/fuse", busybox, "stat", "-c", "%F %t:%T", "/dev/fuse")
	s.want(r, 0, "character special file a:e5\n")
	if xen() {
		s.oneSentence(s.run("--device /dev/vda", busybox, "true"), "the host's device /dev/vda", "not supported by X-Containers", "--privileged-without-host-devices")
		s.oneSentence(s.run("--device /dev/hpet", busybox, "true"), "/dev/hpet", "10:228", "the guest's kernel has no such device")
		s.oneSentence(s.run("--privileged", busybox, "true"), "the host's device", "--privileged-without-host-devices")
	}
	s.want(s.run("--privileged --privileged-without-host-devices", busybox, "echo", "runs"), 0, "runs\n")
}
