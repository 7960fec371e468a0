// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// TestSmokeExitCodes is the heart of the matrix: what ends how.
func TestSmokeExitCodes(t *testing.T) {
	s := begin(t)
	for _, c := range []struct {
		name   string
		argv   []string
		code   int
		stdout string
	}{
		{"true", []string{"true"}, 0, ""},
		{"false", []string{"false"}, 1, ""},
		{"exit code", []string{"sh", "-c", "exit 42"}, 42, ""},
		{"killed child", []string{"sh", "-c", `sh -c "kill -9 \$\$"; exit $?`}, 137, ""},
		{"PID 1 cannot kill itself", []string{"sh", "-c", "kill -9 $$; exit 7"}, 7, ""},
		{"output", []string{"sh", "-c", "echo out; echo err >&2"}, 0, "out\n"},
	} {
		s.sub(c.name, func(s *story) {
			r := s.run("", busybox, c.argv...)
			s.want(r, c.code, c.stdout)
			if c.name == "output" && !strings.Contains(r.stderr, "err\n") {
				s.Errorf("standard error is not separate: %v", r)
			}
		})
	}
}

// TestSmokeKernel: our containers have a kernel of their own, runc's have not.
func TestSmokeKernel(t *testing.T) {
	s := begin(t)
	host := s.sh("uname -r")
	s.wantCode(host, 0)
	r := s.run("", busybox, "uname", "-r")
	s.wantCode(r, 0)
	if own := r.stdout != host.stdout; own != xen() {
		s.Errorf("kernel in the container %q, in dom0 %q", r.stdout, host.stdout)
	}
}

// TestSmokeSignals: what is sent with ctr task kill arrives.
func TestSmokeSignals(t *testing.T) {
	s := begin(t)
	s.sub("KILL", func(s *story) { s.killed("KILL", "sleep 1000", 137) })
	s.sub("TERM handled", func(s *story) {
		s.killed("TERM", `trap "exit 9" TERM; while :; do sleep 1; done`, 9)
	})
	s.sub("TERM not handled by PID 1", func(s *story) {
		// The kernel does not deliver to PID 1 what it has no handler for.
		s.survives("TERM", "trap - TERM; while :; do sleep 1; done")
	})
}

// killed starts script in the foreground, says when it runs, sends sig, and
// wants it to end with code.
func (s *story) killed(sig, script string, code int) {
	s.Helper()
	id := s.id()
	s.Cleanup(func() { s.remove(id) })
	r := s.sh(fmt.Sprintf(`
out=$(mktemp)
$RUN --rm $B %[1]s sh -c %[2]s >$out &
n=0
until grep -q ready $out; do sleep 0.2; n=$((n+1)); [ $n -lt 400 ] || exit 99; done
ctr task kill -s %[3]s %[1]s || exit 98
wait $!; code=$?
rm -f $out
exit $code`, id, quote("echo ready; "+script), sig))
	s.wantCode(r, code)
}

// survives starts script, sends sig, and wants it to go on.
func (s *story) survives(sig, script string) {
	s.Helper()
	id := s.start("", busybox, "sh", "-c", script)
	s.wantCode(s.sh("ctr task kill -s "+sig+" "+id+" && sleep 2"), 0)
	s.want(s.exec("", id, "echo", "still here"), 0, "still here\n")
}

// TestSmokeCat: bytes go in and come out as they were.
func TestSmokeCat(t *testing.T) {
	s := begin(t)
	s.limit = longLimit
	s.want(s.sh(fmt.Sprintf(`
in=$(mktemp)
head -c 20971520 /dev/urandom >$in
want=$(sha256sum <$in)
got=$({ $RUN --rm $B %s cat <$in; echo $? >$in.code; } | sha256sum)
code=$(cat $in.code)
rm -f $in $in.code
echo "$code"
[ "$want" = "$got" ] || echo "want $want got $got"`, s.id())), 0, "0\n")
}

// TestSmokeLastBytes: what a process prints before it exits at once arrives.
// With runc the last 64 KiB get lost now and then: ctr closes its end when it
// hears of the end, and runc's shim tells of that before the bytes are read.
func TestSmokeLastBytes(t *testing.T) {
	onXen(t)
	s := begin(t)
	s.limit = longLimit
	const bytes = 8 << 20
	// Without fullblock a signal that the runtime left pending cuts dd's read short.
	script := fmt.Sprintf("head -c %d /dev/zero | tr '\\0' x", bytes)
	want := s.sh(script + " | sha256sum").stdout
	for i := range 3 {
		r := s.sh(fmt.Sprintf("$RUN --rm $B %s dd if=/dev/zero bs=%d count=1 iflag=fullblock 2>/dev/null | tr '\\0' x | sha256sum", s.id(), bytes))
		s.want(r, 0, want)
		if t.Failed() {
			t.Fatalf("at try %d", i+1)
		}
	}
}

// TestSmokeHeldOutput: a child that keeps the container's stdout open does not
// keep the container.
func TestSmokeHeldOutput(t *testing.T) {
	s := begin(t)
	r := s.sh(fmt.Sprintf("timeout 100 $RUN --rm $B %s sh -c 'sleep 1000 & echo done'", s.id()))
	s.want(r, 0, "done\n")
}

// TestSmokeExec is ctr task exec.
func TestSmokeExec(t *testing.T) {
	s := begin(t)
	id := s.start("--env FROM=spec", busybox, "sleep", "1000")
	s.sub("output and code", func(s *story) {
		s.want(s.exec("", id, "sh", "-c", "echo $FROM; exit 5"), 5, "spec\n")
	})
	s.sub("leaves a child", func(s *story) {
		s.want(s.exec("", id, "sh", "-c", "sleep 1000 & echo back"), 0, "back\n")
	})
	s.sub("input", func(s *story) {
		// ctr forgets to pass on an end of input that comes before the start;
		// this much it cannot have read by then.
		s.want(s.sh("head -c 3000000 /dev/zero | ctr task exec --exec-id in "+id+" wc -c"), 0, "3000000\n")
	})
	s.sub("user and directory", func(s *story) {
		s.want(s.exec("--user 33:33 --cwd /tmp", id, "sh", "-c", "id -u; id -g; pwd"), 0, "33\n33\n/tmp\n")
	})
	s.sub("same namespaces", func(s *story) {
		s.want(s.exec("", id, "sh", "-c", `tr "\0" " " </proc/1/cmdline`), 0, "sleep 1000 ")
	})
	s.sub("killed", func(s *story) {
		s.wantCode(s.exec("", id, "sh", "-c", "kill -9 $$"), 137)
	})
	s.sub("missing command", func(s *story) {
		s.wantError(s.exec("", id, "no-such-command"), "no-such-command", "executable file not found in $PATH")
	})
	s.sub("container goes on", func(s *story) {
		s.want(s.sh("ctr task ls | awk -v id="+id+" '$1 == id {print $3}'"), 0, "RUNNING\n")
	})
}

// TestSmokeTerminal is a shell on a terminal.
func TestSmokeTerminal(t *testing.T) {
	s := begin(t)
	s.sub("run", func(s *story) {
		// The terminal echoes what is typed; $((...)) tells an answer from it.
		// ctr tells the size, and hears of a new one, only some time after the start.
		r := s.sh(fmt.Sprintf(`%s 90x33 \
'expect:# ' 'send:until stty size | grep -x "33 9[0]"; do sleep 1; done; echo a$((40+2))b\r' 'expect:33 90' 'expect:a42b' \
'expect:# ' 'pause:1s' 'size:60x15' 'pause:2s' 'size:71x19' \
'send:until stty size | grep -x "19 71"; do sleep 1; done; tty\r' 'expect:/dev/' \
'expect:# ' 'send:sh -c "echo s\\$((40+4))t; exec sleep 100"\r' 'expect:s44t' 'send:\x03' \
'expect:# ' 'send:echo c$((20+3))d\r' 'expect:c23d' 'expect:# ' 'send:exit 6\r' \
-- $RUN --rm -t $B %s sh`, ptyrun, s.id()))
		s.wantCode(r, 6)
	})
	s.sub("exec", func(s *story) {
		id := s.start("", busybox, "sleep", "1000")
		r := s.sh(fmt.Sprintf(`%s 61x17 'expect:# ' 'send:until stty size | grep -x "17 6[1]"; do sleep 1; done; exit 3\r' 'expect:17 61' \
-- ctr task exec -t --exec-id tty %s sh`, ptyrun, id))
		s.wantCode(r, 3)
	})
}

// TestSmokeUsers: processes run as who the image or the user says.
func TestSmokeUsers(t *testing.T) {
	s := begin(t)
	who := []string{"sh", "-c", "id -u; id -g; id -G"}
	s.sub("of the image", func(s *story) {
		s.want(s.run("", appUserImage, who...), 0, "1234\n2345\n2345 3456\n")
	})
	s.sub("by name", func(s *story) {
		s.want(s.run("--user root", appUserImage, "id", "-u"), 0, "0\n")
	})
	s.sub("by number", func(s *story) {
		s.want(s.run("--user 77:88", appUserImage, "sh", "-c", "id -u; id -g"), 0, "77\n88\n")
	})
	s.sub("exec as the image's user", func(s *story) {
		id := s.start("", appUserImage, "sleep", "1000")
		s.want(s.exec("", id, "id", "-u"), 0, "1234\n")
		s.want(s.exec("--user root", id, "id", "-u"), 0, "0\n")
	})
	s.sub("no such user", func(s *story) {
		s.wantError(s.run("--user nobody-of-that-name", appUserImage, "true"), "no users found")
	})
}

// TestSmokeCannotRun: commands that cannot be run, in runc's words.
func TestSmokeCannotRun(t *testing.T) {
	s := begin(t)
	for _, c := range []struct {
		name, flags, image string
		argv               []string
		parts              []string
	}{
		{"missing command", "", busybox, []string{"no-such-command"},
			[]string{`exec: "no-such-command": executable file not found in $PATH`}},
		{"missing path", "", busybox, []string{"/no/such/path"},
			[]string{"/no/such/path", "no such file or directory"}},
		{"a directory", "", busybox, []string{"/etc"}, []string{`exec: "/etc": `}},
		{"not executable", "", busybox, []string{"/etc/passwd"}, []string{"/etc/passwd", "permission denied"}},
		{"missing working directory", "--cwd /etc/passwd", busybox, []string{"true"}, []string{"/etc/passwd", "not a directory"}},
		{"another architecture", "--platform linux/arm64", armImage, []string{"/bin/true"}, []string{"exec format error"}},
		{"another architecture, undeclared", "", foreignImage, []string{"/bin/true"}, []string{"exec format error"}},
	} {
		s.sub(c.name, func(s *story) {
			s.wantError(s.run(c.flags, c.image, c.argv...), c.parts...)
		})
	}
}
