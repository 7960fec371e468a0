// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestDefaultMounts: all that containerd's default spec mounts is there.
func TestDefaultMounts(t *testing.T) {
	s := begin(t)
	// ctr leaves out the cgroup mount that other clients ask for.
	r := s.run("--mount type=cgroup,src=cgroup,dst=/sys/fs/cgroup,options=nosuid:noexec:nodev:relatime:ro", busybox, "sh", "-c", `
awk '{for (i = 7; $i != "-"; i++); print $5, $(i+1), $6 "," $(i+3)}' /proc/self/mountinfo`)
	s.wantCode(r, 0)
	type mount struct{ fstype, options string }
	mounts := map[string]mount{}
	for line := range strings.Lines(r.stdout) {
		if f := strings.Fields(line); len(f) == 3 {
			mounts[f[0]] = mount{f[1], f[2]}
		}
	}
	for _, c := range []struct{ path, fstype, options string }{
		{"/proc", "proc", "nosuid noexec nodev"},
		{"/sys", "sysfs", "nosuid noexec nodev ro"},
		{"/dev", "tmpfs", "nosuid mode=755"},
		{"/dev/pts", "devpts", "nosuid noexec ptmxmode=666"},
		{"/dev/shm", "tmpfs", "nosuid noexec nodev"},
		{"/dev/mqueue", "mqueue", "nosuid noexec nodev"},
		{"/run", "tmpfs", "nosuid mode=755"},
	} {
		m, ok := mounts[c.path]
		if !ok || m.fstype != c.fstype {
			s.Errorf("%s: want %s, got %+v of %v", c.path, c.fstype, m, mounts)
			continue
		}
		have := strings.Split(m.options, ",")
		for _, o := range strings.Fields(c.options) {
			if !slices.Contains(have, o) {
				s.Errorf("%s: no option %s in %q", c.path, o, m.options)
			}
		}
	}
	// runc's depends on the host.
	if m := mounts["/sys/fs/cgroup"]; xen() && (m.fstype != "cgroup2" || !strings.HasPrefix(m.options, "ro,")) {
		s.Errorf("/sys/fs/cgroup: want cgroup2, read-only, got %+v", m)
	}
}

// TestDevices: the nodes and links of every container, and what they do.
func TestDevices(t *testing.T) {
	s := begin(t)
	r := s.run("", busybox, "sh", "-c", `
for n in null zero full random urandom tty; do [ -c /dev/$n ] && [ -w /dev/$n ] || echo "no $n"; done
for l in fd stdin stdout stderr ptmx; do [ -L /dev/$l ] || echo "no link $l"; done
head -c 4 /dev/zero | od -An -tx1
head -c 16 /dev/urandom | wc -c
echo lost >/dev/null
{ echo x >/dev/full; } 2>/dev/null && echo "full is not full"
echo shm >/dev/shm/f && cat /dev/shm/f`)
	s.want(r, 0, " 00 00 00 00\n16\nshm\n")
}

// TestMaskedPaths: what containerd's default spec hides or protects.
func TestMaskedPaths(t *testing.T) {
	s := begin(t)
	r := s.run("", busybox, "sh", "-c", `
for f in /proc/kcore /proc/keys /proc/timer_list; do
	[ ! -e $f ] || [ -z "$(head -c 1 $f 2>/dev/null | od -An -tx1)" ] || echo "readable: $f"
done
for d in /proc/acpi /proc/scsi /sys/firmware; do
	[ ! -d $d ] || [ -z "$(ls -A $d)" ] || echo "not empty: $d"
done
for f in /proc/sys/kernel/hostname /proc/sysrq-trigger; do
	{ [ -e $f ] && echo x >$f; } 2>/dev/null && echo "writable: $f"
done
echo end`)
	s.want(r, 0, "end\n")
}

// TestReadOnly: a read-only root can be read; what is mounted stays writable.
func TestReadOnly(t *testing.T) {
	s := begin(t)
	r := s.run("--read-only", busybox, "sh", "-c",
		`touch /f 2>&1 | grep -o "Read-only file system"; touch /dev/shm/f /run/f && echo mounts; cat /etc/passwd >/dev/null && echo read`)
	s.want(r, 0, "Read-only file system\nmounts\nread\n")
}

// TestProcessSettings: environment, directory, host name, limits, capabilities.
// Settings that do not touch each other share a container.
func TestProcessSettings(t *testing.T) {
	s := begin(t)
	const status = `; sed -n "s/^\(CapEff\|NoNewPrivs\):\t//p" /proc/self/status`
	for _, c := range []struct{ name, flags, script, stdout string }{
		{"defaults", "", `pwd; ulimit -n; echo $$; ls /sys/class/net` + status,
			"/\n1024\n1\nlo\n00000000a80425fb\n1\n"},
		{"all set", "--env A='one two' --env PATH=/usr/bin:/bin --cwd /made/here --hostname some-name --rlimit-nofile 123:456 " +
			"--cap-add CAP_SYS_TIME --cap-drop CAP_KILL --allow-new-privs",
			`echo "$A" $PATH; pwd; hostname; ulimit -n; ulimit -Hn` + status,
			"one two /usr/bin:/bin\n/made/here\nsome-name\n123\n456\n00000000aa0425db\n0\n"},
		{"as a user", "--user 33 --cwd /tmp", `pwd; id -u` + status, "/tmp\n33\n0000000000000000\n1\n"},
		{"hardly any CPU", "--cpu-quota 15000 --cpu-period 100000", "echo here", "here\n"},
		{"capability missing", "--cap-drop CAP_CHOWN", `chown 33 /tmp 2>&1 | grep -o "not permitted"`, "not permitted\n"},
	} {
		s.sub(c.name, func(s *story) { s.want(s.run(c.flags, busybox, "sh", "-c", c.script), 0, c.stdout) })
	}
}

// TestBindMounts: directories and files, read-write and read-only.
func TestBindMounts(t *testing.T) {
	s := begin(t)
	s.sh("rm -rf /var/tmp/e2e-bind; mkdir -p /var/tmp/e2e-bind/dir/sub && cd /var/tmp/e2e-bind && echo one >dir/f && echo two >file")
	s.Cleanup(func() { s.sh("rm -rf /var/tmp/e2e-bind") })
	bind := func(src, dst, options string) string {
		return fmt.Sprintf("--mount type=bind,src=/var/tmp/e2e-bind/%s,dst=%s,options=%s", src, dst, options)
	}
	for _, c := range []struct {
		name, flags, script, stdout, host string
	}{
		{"directory", bind("dir", "/mnt", "rbind:rw"),
			"cat /mnt/f; echo new >/mnt/g; mkdir /mnt/sub/d; mv /mnt/f /mnt/sub/f", "one\n", "cat dir/g dir/sub/f; ls -d dir/sub/d"},
		{"directory, read-only", bind("dir", "/mnt", "rbind:ro"),
			`cat /mnt/sub/f; { echo no >/mnt/no; } 2>&1 | grep -o "Read-only file system"`, "one\nRead-only file system\n", "ls dir/no 2>/dev/null"},
		{"file", bind("file", "/etc/some/file", "bind:rw"),
			"cat /etc/some/file; echo more >>/etc/some/file", "two\n", "tail -n 1 file"},
		{"file, read-only", bind("file", "/etc/hosts", "bind:ro"),
			`tail -n 1 /etc/hosts; { echo no >>/etc/hosts; } 2>&1 | grep -o "Read-only file system"`, "more\nRead-only file system\n", "tail -n 1 file"},
		{"tmpfs", "--mount type=tmpfs,src=tmpfs,dst=/scratch,options=size=1m",
			"echo x >/scratch/f && cat /scratch/f; dd if=/dev/zero of=/scratch/g bs=1k count=2000 2>&1 | grep -o 'No space'", "x\nNo space\n", ""},
	} {
		s.sub(c.name, func(s *story) {
			hosts := map[string]string{
				"directory": "new\none\ndir/sub/d\n", "file": "more\n", "file, read-only": "more\n",
			}
			s.want(s.run(c.flags, busybox, "sh", "-c", c.script), 0, c.stdout)
			if r := s.sh("cd /var/tmp/e2e-bind && { " + c.host + "\n}"); r.stdout != hosts[c.name] {
				s.Errorf("on the host: want %q, got %v", hosts[c.name], r)
			}
		})
	}
	s.sub("missing source", func(s *story) {
		s.wantError(s.run(bind("absent", "/mnt", "rbind:rw"), busybox, "true"), "/var/tmp/e2e-bind/absent")
	})
}

// TestSharedChanges: the host sees what the container writes while it runs,
// and the container what the host writes.
func TestSharedChanges(t *testing.T) {
	s := begin(t)
	s.sh("rm -rf /var/tmp/e2e-share; mkdir /var/tmp/e2e-share")
	s.Cleanup(func() { s.sh("rm -rf /var/tmp/e2e-share") })
	id := s.start("--mount type=bind,src=/var/tmp/e2e-share,dst=/mnt,options=rbind:rw", busybox, "sleep", "1000")
	s.want(s.exec("", id, "sh", "-c", "echo from inside >/mnt/in; ls /mnt"), 0, "in\n")
	s.want(s.sh("cat /var/tmp/e2e-share/in; echo from outside >/var/tmp/e2e-share/out"), 0, "from inside\n")
	// Attributes and names may be remembered for a second.
	s.want(s.exec("", id, "sh", "-c", "sleep 2; cat /mnt/out"), 0, "from outside\n")
}
