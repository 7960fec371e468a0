// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// record is what the shim notes in the bundle.
type record struct {
	DomID                 uint32
	Shim, Backend, Holder struct{ PID int }
}

// record reads the note of a running container.
func (s *story) record(id string) record {
	s.Helper()
	r := s.sh("cat $STATE/io.containerd.runtime.v2.task/default/" + id + "/xcontainer.json")
	var rec record
	if err := json.Unmarshal([]byte(r.stdout), &rec); err != nil {
		s.Fatalf("record of %s: %v, %v", id, err, r)
	}
	return rec
}

// The containers below have no stdio: whoever made named pipes removes them
// when it deletes the task, and these tasks end without anybody's doing so.

// within runs try, which measures something, until it took at most limit, at
// most three times: a busy machine may be late once, ours may not always be.
func (s *story) within(limit time.Duration, try func() time.Duration) {
	s.Helper()
	var took []time.Duration
	for range 3 {
		d := try()
		if took = append(took, d); d <= limit || s.Failed() {
			s.Logf("took %v, allowed are %v", took, limit)
			return
		}
	}
	s.Errorf("took %v, want at most %v", took, limit)
}

// ends does what harm says to a running container, wants containerd to tell of
// its end with the given exit status, and returns how long that took. The clock
// starts when harm is done, and stops when the exit event is seen in dom0.
func (s *story) ends(id, harm string, status int) time.Duration {
	s.Helper()
	r := s.sh(fmt.Sprintf(`
out=$(mktemp)
ctr events >$out 2>&1 &
watcher=$!
n=0
until grep -q e2e-mark $out; do
	ctr ns create e2e-mark-$n >/dev/null; ctr ns rm e2e-mark-$n >/dev/null
	n=$((n+1)); [ $n -lt 60 ] || break
done
{ %[2]s
} >&2
uptime=$(cut -d' ' -f1 /proc/uptime)
n=0
until grep -F '"%[1]s"' $out | grep -q /tasks/exit; do sleep 0.1; n=$((n+1)); [ $n -lt 600 ] || break; done
now=$(cut -d' ' -f1 /proc/uptime)
echo "$uptime $now" | awk '{printf "%%d ms\n", ($2-$1)*1000}'
sleep 1
kill $watcher; wait $watcher 2>/dev/null
grep -F '"%[1]s"' $out
rm -f $out`, id, harm))
	first, events, _ := strings.Cut(r.stdout, "\n")
	var ms int64
	if _, err := fmt.Sscanf(first, "%d ms", &ms); err != nil {
		s.Fatalf("no time in %v", r)
	}
	exit := ""
	for line := range strings.Lines(events) {
		if strings.Contains(line, "/tasks/exit") {
			exit = line
		}
	}
	if want := fmt.Sprintf(`"exit_status":%d,`, status); !strings.Contains(exit, want) {
		s.Errorf("want an exit event with %s, got %q of %v", want, exit, r)
	}
	return time.Duration(ms) * time.Millisecond
}

// gone wants no domain of id to be there.
func (s *story) gone(id string) {
	s.Helper()
	doms, err := domains(s.m)
	if err != nil {
		s.Fatal(err)
	}
	for _, d := range doms {
		if d.Container == id {
			s.Errorf("the domain of %s is still there: %+v", id, d)
		}
	}
}

// TestShimKilled: containerd reports the end of a container whose shim was
// killed, and its domain goes.
func TestShimKilled(t *testing.T) {
	s := begin(t)
	const sockets = "ls /run/containerd/s | sort"
	before := s.sh(sockets).stdout
	s.within(5*time.Second, func() time.Duration {
		id := s.start("--null-io", busybox, "sleep", "1000")
		d := s.ends(id, `kill -KILL $(`+shimPids(id)+` | head -n 1)`, 137)
		if xen() {
			// Later by the second that ends takes to look at the events.
			s.gone(id)
		}
		return d
	})
	if xen() {
		return
	}
	// What runc's shim leaves when it is killed, and ours does not.
	for _, name := range added(strings.Fields(before), strings.Fields(s.sh(sockets).stdout)) {
		s.sh("rm /run/containerd/s/" + name)
	}
}

// TestDomainDestroyed: the same for a domain that somebody else destroyed.
func TestDomainDestroyed(t *testing.T) {
	onXen(t)
	s := begin(t)
	s.within(2*time.Second, func() time.Duration {
		id := s.start("--null-io", busybox, "sleep", "1000")
		return s.ends(id, fmt.Sprintf("%s %d", domkill, s.record(id).DomID), 137)
	})
}

// TestBackendKilled: a container cannot live without its devices.
func TestBackendKilled(t *testing.T) {
	onXen(t)
	s := begin(t)
	id := s.start("--null-io", busybox, "sleep", "1000")
	pid := s.record(id).Backend.PID
	if pid == 0 {
		s.Fatal("the shim notes no back-end")
	}
	s.ends(id, fmt.Sprintf("kill -KILL %d", pid), 255)
}

// TestHolderKilled: killing the task's pid kills the container, as it does
// with runc.
func TestHolderKilled(t *testing.T) {
	s := begin(t)
	id := s.start("--null-io", busybox, "sleep", "1000")
	s.ends(id, `kill -KILL $(ctr task ls | awk -v id=`+id+` '$1 == id {print $2}')`, 137)
}

// TestGuestPanic: a panic of the guest's kernel is a failure with its reason in
// the log.
func TestGuestPanic(t *testing.T) {
	onXen(t)
	s := begin(t)
	id := s.start("--null-io --privileged --privileged-without-host-devices", busybox, "sleep", "1000")
	s.sh("wc -c </var/log/containerd.log >/var/tmp/e2e-log-size")
	s.ends(id, `ctr task exec --exec-id panic `+id+` sh -c "echo c >/proc/sysrq-trigger"`, 255)
	r := s.sh("tail -c +$(cat /var/tmp/e2e-log-size) /var/log/containerd.log; rm /var/tmp/e2e-log-size")
	if !strings.Contains(r.stdout, "Kernel panic - not syncing: sysrq triggered crash") {
		s.Errorf("the log does not tell of the panic: %v", r)
	}
}

// TestUnprivilegedSysrq: a process without privileges cannot do that.
func TestUnprivilegedSysrq(t *testing.T) {
	s := begin(t)
	r := s.run("", busybox, "sh", "-c", "echo c >/proc/sysrq-trigger; echo lives")
	s.want(r, 0, "lives\n")
}

// TestDaemonRestarted: a container does not notice that containerd restarts.
func TestDaemonRestarted(t *testing.T) {
	s := begin(t)
	s.Cleanup(func() { s.sh("rm -rf /var/tmp/e2e-ticks /var/tmp/e2e-fifo") })
	id := s.id()
	s.Cleanup(func() { s.remove(id) })
	// The reader of its output is none of containerd's.
	r := s.sh(fmt.Sprintf(`
mkdir -p /var/tmp/e2e-fifo
$RUN -d --fifo-dir /var/tmp/e2e-fifo $B %[1]s sh -c 'n=0; while sleep 1; do n=$((n+1)); echo tick $n; done' || exit
cat $(find /var/tmp/e2e-fifo -name %[1]s-stdout) >/var/tmp/e2e-ticks 2>/dev/null </dev/null &
n=0
until grep -q tick /var/tmp/e2e-ticks; do sleep 0.5; n=$((n+1)); [ $n -lt 200 ] || exit 99; done`, id))
	s.wantCode(r, 0)
	pid := s.sh("ctr task ls | awk -v id=" + id + " '$1 == id {print $2}'")
	if err := s.m.RestartContainerd(t.Context()); err != nil {
		s.Fatal(err)
	}
	r = s.sh("ctr task ls | awk -v id=" + id + " '$1 == id {print $2, $3}'")
	s.want(r, 0, strings.TrimSpace(pid.stdout)+" RUNNING\n")
	s.want(s.exec("", id, "echo", "exec"), 0, "exec\n")
	r = s.sh(`a=$(tail -n 1 /var/tmp/e2e-ticks); sleep 4; b=$(tail -n 1 /var/tmp/e2e-ticks); [ "$a" != "$b" ] && echo "goes on"
awk 'NR > 1 && $2 != last + 1 {print "after", last, "comes", $0} {last = $2}' /var/tmp/e2e-ticks`)
	s.want(r, 0, "goes on\n")
	s.ends(id, "ctr task kill -s KILL "+id, 137)
}

// onXen leaves a test out for runtimes that have no domains. It is no cure for
// a missing Xen: with our runtime it never skips.
func onXen(t *testing.T) {
	t.Helper()
	if !xen() {
		t.Skipf("%s makes no domains", runtimeName)
	}
}
