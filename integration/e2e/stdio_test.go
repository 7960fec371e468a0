// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"crypto/md5"
	"fmt"
	"sync"
	"testing"
)

// loggerScript is a logger as users write one. Its arguments are its mode and the
// folder where it writes.
const loggerScript = `#!/bin/sh
mode=$1 dir=$2
echo "$CONTAINER_NAMESPACE $CONTAINER_ID $#" >"$dir/env"
case $mode in
copy) ;;
ready) echo >&5 ;;
fail) echo "no space for logs" >&2; exit 3 ;;
die) exec 5>&-; head -c 5 <&3 >"$dir/out"; exit 4 ;;
stuck) exec 5>&-; until [ -e "$dir/go" ]; do sleep 0.2; done; exit 0 ;;
esac
cat <&4 >"$dir/err" 5>&- &
exec 5>&-
cat <&3 >"$dir/out"
wait
echo end >"$dir/end"
`

const logger = programs + "/logger"

// megabyte prints a million bytes that show what is missing.
const megabyte = "seq 1 170000 | head -c 1000000"

// megabyteSum is what md5sum says of it.
var megabyteSum = sync.OnceValue(func() string {
	var b bytes.Buffer
	for i := 1; b.Len() < 1000000; i++ {
		fmt.Fprintln(&b, i)
	}
	return fmt.Sprintf("%x  -\n", md5.Sum(b.Bytes()[:1000000]))
})

// logFolder is a new folder on the host.
func (s *story) logFolder() (dir string) {
	s.Helper()
	dir = fmt.Sprintf("%s/log-%s", programs, s.id())
	if err := must(nil, "mkdir", dir); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		r := s.sh(fmt.Sprintf(`rm -rf %s
for i in $(seq 20); do grep -lsa "[x]c-e2e/logger" /proc/[0-9]*/cmdline || exit 0; sleep 0.5; done
exit 1`, dir))
		if r.code != 0 {
			s.Errorf("loggers left behind: %v", r)
		}
	})
	return dir
}

// logTo is the URL of a logger.
func logTo(scheme, mode, dir string) string {
	return fmt.Sprintf("'%s://%s?%s=%s'", scheme, logger, mode, dir)
}

// wantFile checks a file of the host.
func (s *story) wantFile(name, want string) {
	s.Helper()
	if r := s.sh("cat " + name); r.code != 0 || r.stdout != want {
		s.Errorf("%s: want %q, got %v", name, want, r)
	}
}

func (s *story) wantMegabyte(name string) {
	s.Helper()
	if r := s.sh("md5sum <" + name); r.stdout != megabyteSum() {
		s.Errorf("%s is not the megabyte: %v", name, s.sh("wc -c "+name))
	}
}

func TestLogFile(t *testing.T) {
	s := begin(t)
	dir := s.logFolder()
	log := dir + "/new/log"
	s.wantCode(s.run("--log-uri file://"+log, busybox, "sh", "-c", megabyte+"; exit 3"), 3)
	s.wantMegabyte(log)
	s.wantCode(s.run("--log-uri file://"+log, busybox, "sh", "-c", "echo out; echo err >&2"), 0)
	if r := s.sh(fmt.Sprintf("stat -c %%a %[1]s %s/new; tail -c +1000001 %[1]s | sort", log, dir)); r.stdout != "644\n755\nerr\nout\n" {
		s.Errorf("after the second container: %v", r)
	}

	id := s.start("", busybox, "sleep", "1000")
	s.wantCode(s.exec("--log-uri file://"+dir+"/exec", id, "sh", "-c", megabyte+"; exit 4"), 4)
	s.wantMegabyte(dir + "/exec")
	if xen() { // runc's shim knows no file for a terminal
		s.wantCode(s.sh(fmt.Sprintf("%s -t %s tty file://%s/tty sh -c 'test -t 1 && echo screen; exit 5'", taskio, id, dir)), 5)
		s.wantFile(dir+"/tty", "screen\r\n")
	}
	// What is no file is refused, and nothing happens to it.
	s.wantError(s.exec("--log-uri file://"+dir, id, "true"), dir)
	s.wantError(s.exec("--log-uri npipe://"+dir, id, "true"), "npipe")
}

func TestLogger(t *testing.T) {
	if !xen() {
		t.Skip("runc's shim ends a logger before it has read everything")
	}
	s := begin(t)
	for _, kind := range []struct{ scheme, mode string }{{"binary", "copy"}, {"binary-v2", "ready"}} {
		dir, id := s.logFolder(), s.id()
		r := s.sh(fmt.Sprintf("exec $RUN --rm --log-uri %s $B %s sh -c %s", logTo(kind.scheme, kind.mode, dir), id,
			quote("echo err >&2; "+megabyte+"; exit 3")))
		s.wantCode(r, 3)
		// All of it is there when ctr returns.
		s.wantMegabyte(dir + "/out")
		s.wantFile(dir+"/err", "err\n")
		s.wantFile(dir+"/env", "default "+id+" 2\n")
		s.wantFile(dir+"/end", "end\n")
	}

	dir := s.logFolder()
	id := s.start("--log-uri "+logTo("binary", "copy", dir), busybox, "sh", "-c", "echo early; exec sleep 1000")
	exec := s.logFolder()
	s.wantCode(s.exec("--log-uri "+logTo("binary", "copy", exec), id, "sh", "-c", megabyte+"; exit 4"), 4)
	s.wantMegabyte(exec + "/out")
	tty := s.logFolder()
	s.wantCode(s.sh(fmt.Sprintf("%s -t %s tty %s sh -c 'test -t 1 && echo screen; %s; exit 5'", taskio, id, logTo("binary-v2", "ready", tty), megabyte)), 5)
	if r := s.sh(fmt.Sprintf("head -c 8 %s/out; tr -d '\\r' <%[1]s/out | tail -c +8 | md5sum", tty)); r.stdout != "screen\r\n"+megabyteSum() {
		s.Errorf("terminal: %v", r)
	}
	s.wantFile(tty+"/err", "")
	s.wantFile(tty+"/env", "default tty 2\n")
	s.wantFile(dir+"/out", "early\n") // while the container runs
	s.remove(id)
	s.wantFile(dir+"/end", "end\n")
}

func TestLoggerThatFails(t *testing.T) {
	s := begin(t)
	dir := s.logFolder()
	if xen() {
		s.wantError(s.run("--log-uri "+logTo("binary-v2", "fail", dir), busybox, "true"),
			"start logger "+logger+": it ended (exit status 3) before it was ready: no space for logs")
		s.wantError(s.run("--log-uri binary:///no/such/logger", busybox, "true"), "start logger /no/such/logger: no such file or directory")
	}

	// One that dies takes nobody along, and stops nothing.
	s.wantCode(s.run("--log-uri "+logTo("binary", "die", dir), busybox, "sh", "-c", "trap '' PIPE; echo some; sleep 1; "+megabyte+" || true; exit 6"), 6)
	s.wantFile(dir+"/out", "some\n")
}

// TestSlowReaders: readers that take nothing hold up neither other streams nor
// the shim.
func TestSlowReaders(t *testing.T) {
	s := begin(t)
	dir, fast := s.logFolder(), s.logFolder()
	id := s.start("", busybox, "sleep", "1000")
	// A logger and a client that do not read, with processes that print for ever.
	r := s.sh(fmt.Sprintf(`
ctr task exec -d --exec-id stuck --log-uri %s %s yes logger || exit 1
setsid sh -c 'ctr task exec --exec-id pipe-%[2]s %[2]s yes client | (until [ -e %[3]s/go ]; do sleep 0.2; done; cat)' </dev/null >/dev/null 2>&1 &
for i in $(seq 60); do
	[ "$(ctr task exec --exec-id look %[2]s sh -c 'ps | grep -c "[y]es "')" = 2 ] && exit 0
	sleep 0.5
done
exit 1`, logTo("binary", "stuck", dir), id, dir))
	s.wantCode(r, 0)
	for i := range 2 {
		s.wantCode(s.exec("--log-uri file://"+fast+"/"+fmt.Sprint(i), id, "sh", "-c", megabyte+"; exit 3"), 3)
		s.wantMegabyte(fmt.Sprintf("%s/%d", fast, i))
		if got := s.exec("", id, "sh", "-c", megabyte+"; exit 4"); got.code != 4 || len(got.stdout) != 1000000 {
			s.Errorf("exec beside slow readers: code %d, %d bytes", got.code, len(got.stdout))
		}
	}
	if r := s.sh("timeout 20 ctr task ls | grep -c " + id); r.stdout != "1\n" {
		s.Errorf("the shim does not answer: %v", r)
	}
	// Their end comes, too: SIGKILL, and the readers still take nothing.
	s.wantCode(s.sh(fmt.Sprintf("timeout 60 ctr task kill --exec-id stuck -s KILL %s && timeout 60 ctr task kill --exec-id pipe-%[1]s -s KILL %[1]s", id)), 0)
	s.wantCode(s.sh(fmt.Sprintf(`
touch %s/go
for i in $(seq 60); do
	timeout 60 ctr task delete --exec-id stuck %s
	[ $? = 137 ] && break
	sleep 1
done
while ls /run/containerd/fifo/*/pipe-%[2]s-stdout >/dev/null 2>&1; do sleep 1; done # until its client has gone
ctr task exec --exec-id look %[2]s sh -c '! ps | grep "[y]es "'`, dir, id)), 0)
}

// TestDetach: readers and writers of a container come and go, and nothing is lost.
func TestDetach(t *testing.T) {
	s := begin(t)
	id := s.start("", busybox, "sh", "-c", "read x; seq 1 50000; read x; seq 50001 100000; read x; echo $x; exit 7")
	r := s.sh(fmt.Sprintf(`
set -e
dir=$(dirname $(ls /run/containerd/fifo/*/%[1]s-stdout))
in=$dir/%[1]s-stdin out=$dir/%[1]s-stdout
echo first >$in                       # a writer that leaves
sleep 3                               # nobody reads
timeout 60 head -c 100000 $out        # a reader that leaves
timeout 60 head -c 188894 $out
echo second >$in
timeout 60 head -c 150000 $out
sleep 1
timeout 60 head -c 150001 $out
ctr task ls | grep %[1]s | grep -q RUNNING
{ sleep 2; echo third >$in; } &        # what it says last needs a reader
timeout 60 cat $out
`, id))
	if want := s.sh("seq 1 100000; echo third").stdout; r.code != 0 || r.stdout != want {
		s.Errorf("want %d bytes, got %d: %v", len(want), len(r.stdout), r)
	}
	s.wantCode(s.sh(fmt.Sprintf("n=0; until ctr task ls | grep %s | grep -q STOPPED; do n=$((n+1)); [ $n -lt 60 ] || exit 1; sleep 0.5; done", id)), 0)
}

// TestExecsLeaveNothing: descriptors, threads and children of the shim after
// execs of every kind.
func TestExecsLeaveNothing(t *testing.T) {
	if !xen() {
		t.Skip("the shim of the container is looked for as the parent of its task")
	}
	s := begin(t)
	s.limit = longLimit
	dir := s.logFolder()
	id := s.start("", busybox, "sleep", "1000")
	round := fmt.Sprintf(`
ctr task exec --exec-id e %s true </dev/null >/dev/null || exit 1
ctr task exec --exec-id e --log-uri file://%s/file %[1]s echo x || exit 1
ctr task exec --exec-id e --log-uri %[3]s %[1]s echo x || exit 1
%[4]s -t %[1]s e %[3]s echo x || exit 1
if ctr task exec --exec-id e --log-uri %[5]s %[1]s echo x; then exit 1; fi
`, id, dir, logTo("binary", "copy", dir), taskio, logTo("binary-v2", "fail", dir))
	count := fmt.Sprintf(`
shim=$(awk '/^PPid/ {print $2}' /proc/$(ctr task ls | awk '$1 == "%s" {print $2}')/status)
last=; for i in $(seq 30); do
	now="$(ls /proc/$shim/fd | wc -l) descriptors, $(cat /proc/$shim/task/*/children | wc -w) children"
	[ "$now" = "$last" ] && break; last=$now; sleep 1
done
echo "$now"`, id)
	s.wantCode(s.sh(round), 0)
	before := s.sh(count)
	s.wantCode(s.sh("for n in 1 2 3; do "+round+" done"), 0)
	if after := s.sh(count); after.stdout != before.stdout || after.code != 0 {
		s.Errorf("before: %v\nafter: %v", before, after)
	}
}
