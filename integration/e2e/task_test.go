// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// status is a task's in ctr's list.
func (s *story) status(id string) string {
	s.Helper()
	r := s.sh("ctr task ls")
	for line := range strings.Lines(r.stdout) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == id {
			return f[2]
		}
	}
	s.Errorf("no task %s in %v", id, r)
	return ""
}

// must runs a script that has to succeed.
func (s *story) must(script string) result {
	s.Helper()
	r := s.sh(script)
	s.wantCode(r, 0)
	return r
}

// number is what a command in a container prints.
func (s *story) number(id string, argv ...string) int64 {
	s.Helper()
	r := s.exec("", id, argv...)
	n, err := strconv.ParseInt(strings.TrimSpace(r.stdout), 10, 64)
	if err != nil {
		s.Errorf("%v in %v", err, r)
	}
	return n
}

// TestPauseAndResume: nothing of a paused container goes on, everything does
// afterwards, and its clock is right.
func TestPauseAndResume(t *testing.T) {
	s := begin(t)
	id := s.start("", busybox, "sh", "-c", "while :; do date +%s >>/ticks; sleep 1; done")
	s.must("ctr task pause " + id)
	if got := s.status(id); got != "PAUSED" {
		s.Errorf("status %s", got)
	}
	s.wantError(s.sh("ctr task pause "+id), "paused")
	s.wantError(s.exec("", id, "true"), "paused")
	s.wantError(s.sh("ctr task rm "+id), "paused")
	s.wantCode(s.sh("ctr task metrics "+id), 0)
	time.Sleep(10 * time.Second)
	s.must("ctr task resume " + id)
	if got := s.status(id); got != "RUNNING" {
		s.Errorf("status %s", got)
	}
	s.wantError(s.sh("ctr task resume "+id), "")
	r := s.must("date +%s; ctr task exec --exec-id clock " + id + " date +%s; date +%s")
	var clocks []int64
	for f := range strings.FieldsSeq(r.stdout) {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			s.Fatalf("%v in %v", err, r)
		}
		clocks = append(clocks, n)
	}
	if len(clocks) != 3 || clocks[1] < clocks[0]-2 || clocks[1] > clocks[2]+2 {
		s.Errorf("the host's clock, the container's, the host's: %d", clocks)
	}
	gap := s.number(id, "awk", "p && $1 - p > m {m = $1 - p} {p = $1} END {print m}", "/ticks")
	if gap < 8 {
		s.Errorf("the longest pause in what the container did was %d s, want about 10", gap)
	}
}

// TestKillOfPaused: SIGKILL ends what is paused; other signals wait.
func TestKillOfPaused(t *testing.T) {
	s := begin(t)
	s.sub("KILL", func(s *story) {
		id := s.id()
		got := s.watch(id, fmt.Sprintf(`
$RUN -d $B %[1]s sleep 1000
ctr task pause %[1]s
ctr task kill -s KILL %[1]s; sleep 3
ctr task rm %[1]s; ctr c rm %[1]s`, id))
		if want := []string{"create", "start", "paused", "exit", "delete"}; !slices.Equal(got, want) {
			s.Errorf("events %q, want %q", got, want)
		}
	})
	s.sub("TERM", func(s *story) {
		id := s.start("", busybox, "sh", "-c", "trap 'echo term >/got' TERM; while :; do sleep 0.1; done")
		s.must("ctr task pause " + id + " && ctr task kill -s TERM " + id + " && sleep 1 && ctr task resume " + id)
		s.want(s.exec("", id, "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do [ -s /got ] && break; sleep 1; done; cat /got"), 0, "term\n")
	})
}

// cgroupMount lets a container see its own limits.
const cgroupMount = "--mount type=cgroup,src=cgroup,dst=/sys/fs/cgroup,options=nosuid:noexec:nodev:relatime:ro "

func (s *story) update(id, resources string) result {
	s.Helper()
	return s.sh(taskupdate + " " + quote(id, resources))
}

// TestUpdate: limits change while the container runs, and it sees that.
func TestUpdate(t *testing.T) {
	onXen(t)
	s := begin(t)
	id := s.start(cgroupMount+fmt.Sprintf("--memory-limit %d --cpus 0.5", 64*mib), busybox, "sleep", "1000")
	file := func(name string) string {
		r := s.exec("", id, "cat", "/sys/fs/cgroup/"+name)
		s.wantCode(r, 0)
		return strings.TrimSpace(r.stdout)
	}
	want := func(name, value string) {
		s.Helper()
		if got := file(name); got != value {
			s.Errorf("%s is %q, want %q", name, got, value)
		}
	}
	memTotal := func() int64 {
		return s.number(id, "awk", "/^MemTotal/ {print $2}", "/proc/meminfo") << 10
	}
	domain := func() int64 {
		doms, err := domains(s.m)
		if err != nil {
			s.Fatal(err)
		}
		for _, d := range doms {
			if d.Container == id {
				return int64(d.Memory)
			}
		}
		return 0
	}
	want("memory.max", fmt.Sprint(64*mib))
	before, had := domain(), memTotal()
	cpus := s.number(id, "nproc")

	s.wantCode(s.update(id, fmt.Sprintf(`{"memory":{"limit":%d}}`, 256*mib)), 0)
	want("memory.max", fmt.Sprint(256*mib))
	if grown, has := domain(), memTotal(); grown < before+190*mib || has < had+180*mib {
		s.Errorf("the domain had %d MiB and has %d, the guest had %d and has %d", before/mib, grown/mib, had/mib, has/mib)
	}
	s.wantCode(s.exec("", id, "dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1", "iflag=fullblock"), 0)

	s.wantCode(s.update(id, fmt.Sprintf(`{"memory":{"limit":%d}}`, 64*mib)), 0)
	want("memory.max", fmt.Sprint(64*mib))
	if shrunk := domain(); shrunk > before+mib*9 {
		s.Errorf("the domain had %d MiB at first and has %d", before/mib, shrunk/mib)
	}

	s.wantCode(s.update(id, `{"cpu":{"quota":150000,"period":100000,"shares":512},"pids":{"limit":20}}`), 0)
	want("cpu.max", "150000 100000")
	want("pids.max", "20")
	if n := s.number(id, "nproc"); n != 2 || cpus != 1 {
		s.Errorf("%d processors at first, then %d", cpus, n)
	}
	if r := s.exec("", id, "sh", "-c", "for i in $(seq 40); do sleep 2 & done; wait"); !strings.Contains(r.stdout+r.stderr, "can't fork") {
		s.Errorf("40 processes of 20: %v", r)
	}

	// The container's first process reaps none of those that have ended, and so
	// they fill the limit: no exec could start.
	s.wantCode(s.update(id, `{"pids":{"limit":100}}`), 0)
	s.wantError(s.update(id, `{"blockIO":{"weight":10}}`), "blockIO is not supported")
	s.wantError(s.update(id, `{"memory":{"limit":1}}`), "")
	want("memory.max", fmt.Sprint(64*mib))
}

// metrics are those that a test looks at, of either version of cgroups.
type metrics struct{ cpu, memory, limit, pids uint64 }

func (s *story) metrics(id string) metrics {
	s.Helper()
	r := s.must("ctr task metrics --format json " + id)
	var m struct {
		Pids struct{ Current uint64 }
		CPU  struct {
			UsageUsec uint64 `json:"usage_usec"`
			Usage     struct{ Total uint64 }
		}
		Memory struct {
			Usage      json.RawMessage
			UsageLimit uint64 `json:"usage_limit"`
		}
	}
	if err := json.Unmarshal([]byte(r.stdout), &m); err != nil {
		s.Fatalf("%v in %v", err, r)
	}
	if m.CPU.Usage.Total != 0 {
		var u struct{ Usage, Limit uint64 }
		if err := json.Unmarshal(m.Memory.Usage, &u); err != nil {
			s.Fatalf("%v in %v", err, r)
		}
		return metrics{m.CPU.Usage.Total / 1000, u.Usage, u.Limit, m.Pids.Current}
	}
	usage, err := strconv.ParseUint(string(m.Memory.Usage), 10, 64)
	if err != nil {
		s.Fatalf("%v in %v", err, r)
	}
	return metrics{m.CPU.UsageUsec, usage, m.Memory.UsageLimit, m.Pids.Current}
}

// TestMetrics: the numbers of a container are about what it does.
func TestMetrics(t *testing.T) {
	s := begin(t)
	id := s.start(fmt.Sprintf("--memory-limit %d", 64*mib), busybox, "sh", "-c",
		"head -c 20000000 /dev/zero >/dev/shm/f; sleep 1000 & sleep 1000 & wait")
	s.want(s.exec("", id, "sh", "-c", "until [ $(stat -c %s /dev/shm/f) = 20000000 ]; do sleep 1; done"), 0, "")
	first := s.metrics(id)
	if first.memory < 20e6 || first.memory > 64*mib || first.limit != 64*mib || first.pids != 3 {
		s.Errorf("%+v", first)
	}
	s.wantCode(s.exec("", id, "sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"), 0)
	if then := s.metrics(id); then.cpu <= first.cpu || then.cpu > math.MaxInt64 {
		s.Errorf("%d µs of CPU, then %d", first.cpu, then.cpu)
	}
	s.must("ctr task pause " + id)
	if paused := s.metrics(id); paused.memory < 20e6 || paused.cpu < first.cpu {
		s.Errorf("paused: %+v", paused)
	}
	s.must("ctr task resume " + id)
}

// TestTaskPs: a line for each process; the first is the task's, and an exec is
// named.
func TestTaskPs(t *testing.T) {
	s := begin(t)
	id := s.start("", busybox, "sh", "-c", "sleep 1000 & sleep 1000 & wait")
	r := s.must(fmt.Sprintf(`
ctr task exec --exec-id named %[1]s sleep 1000 >/dev/null 2>&1 &
ctr task ls | awk '$1 == "%[1]s" {print $2}'
for i in 1 2 3 4 5 6 7 8 9; do [ $(ctr task ps %[1]s | wc -l) = 5 ] && break; sleep 1; done
ctr task ps %[1]s | tail -n +2
ctr task kill --exec-id named -s KILL %[1]s
wait`, id))
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	pids := map[string]bool{}
	named := 0
	for _, line := range lines[1:] {
		f := strings.Fields(line)
		pids[f[0]] = true
		if strings.Contains(line, "named") {
			named++
		}
	}
	if len(lines) != 5 || len(pids) != 4 || !pids[lines[0]] || named != 1 {
		s.Errorf("%v", r)
	}
	// Whatever they are called, no other process of the host is.
	for pid := range pids {
		if xen() && pid != lines[0] {
			s.wantError(s.sh("kill -0 "+pid), "")
		}
	}
}

// TestOOM: out of memory is told before the end that it causes.
func TestOOM(t *testing.T) {
	s := begin(t)
	limit := fmt.Sprintf("--memory-limit %d", 64*mib)
	// Little by little: for all at once the kernel would say no.
	const grow = `perl -e 'push @a, "x" x 1000000 while 1'`
	s.sub("init", func(s *story) {
		id := s.id()
		got := s.watch(id, fmt.Sprintf("$RUN --rm %s $D %s %s", limit, id, grow))
		if want := []string{"create", "start", "oom", "exit", "delete"}; !slices.Equal(got, want) {
			s.Errorf("events %q, want %q", got, want)
		}
		s.wantCode(s.sh(fmt.Sprintf("$RUN --rm %s $D %s %s", limit, s.id(), grow)), 137)
	})
	s.sub("child", func(s *story) {
		id := s.id()
		got := s.watch(id, fmt.Sprintf(`
$RUN -d %[1]s $D %[2]s sleep 1000
ctr task exec --exec-id grows %[2]s %[3]s
ctr task kill -s KILL %[2]s; sleep 3
ctr task rm %[2]s; ctr c rm %[2]s`, limit, id, grow))
		want := []string{"create", "start", "exec-added", "exec-started", "oom", "exit", "exit", "delete"}
		if !slices.Equal(got, want) {
			s.Errorf("events %q, want %q", got, want)
		}
	})
}
