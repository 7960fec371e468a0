// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"
	"testing"
	"time"
)

// leakScript prints one line for each thing that a container may leave behind.
// Its arguments are containerd's state and root directories. A task has its
// bundle there, and a snapshot its directory.
//
// Event channels that user space holds are counted in the interrupt table,
// where each has a line with its owner's name; the guests' ends die with the
// domains. Abstract and path sockets are both in /proc/net/unix.
const leakScript = `
state=$1 root=$2
for p in /proc/[0-9]*/exe; do echo "$p"; done | xargs ls -l 2>/dev/null |
	sed -n 's|.* \(/proc/[0-9]*\)/exe -> \(.*\)|\1 \2|p' | grep -E '/(containerd-shim-|xcontainer)' |
	while read -r dir exe; do
		echo "process ${dir#/proc/} $exe $(tr '\0' ' ' <"$dir/cmdline" 2>/dev/null)"
	done
awk -v s="$state/" 'index($5, s) == 1 || /nsfs/ {print "mount", $5}' /proc/self/mountinfo
ls -d /run/netns/* 2>/dev/null | sed 's/^/netns /'
find "$state/s" "$state/fifo" "$state/io.containerd.runtime.v2.task" /run/containerd/s /run/containerd/fifo /run/xcontainer \
	-mindepth 1 -maxdepth 2 2>/dev/null | grep -v 'runtime.v2.task/[^/]*$' | sort -u | sed 's/^/file /'
sed -n 's|.* \(@*/.*containerd/s/.*\)|listener \1|p' /proc/net/unix | sort -u
awk '/evtchn:/ {n++} END {print "eventchannels", n+0}' /proc/interrupts
find /sys/fs/cgroup -mindepth 1 -type d -path '*/default/*' -prune 2>/dev/null | sed 's/^/cgroup /'
ctr containers ls -q | sed 's/^/container /'
find "$root"/io.containerd.snapshotter.v1.*/snapshots "$root/io.containerd.runtime.v2.task/default" -mindepth 1 -maxdepth 1 2>/dev/null |
	sed 's/^/directory /'
`

// inventory lists what is on m, one item a line, sorted.
func inventory(m machine) ([]string, error) {
	r, err := command(m, time.Minute, nil, "sh", "-c", leakScript, "sh", m.StateDir(), m.RootDir())
	if err != nil {
		return nil, err
	}
	if r.code != 0 {
		return nil, fmt.Errorf("e2e: inventory: %v", r)
	}
	items := strings.Split(strings.TrimSpace(r.stdout), "\n")
	if m.HasXen() {
		doms, err := domains(m)
		if err != nil {
			return nil, err
		}
		for _, d := range doms {
			items = append(items, fmt.Sprintf("domain %d of %s", d.ID, d.Container))
		}
	}
	sort.Strings(items)
	return items, nil
}

// domain is one line of xcontainerctl ps --json.
type domain struct {
	ID        uint32 `json:"domid"`
	Container string `json:"container"`
	State     string `json:"state"`
	Memory    uint64 `json:"memory_bytes"`
	VCPUs     uint32 `json:"vcpus"`
}

// domains asks the hypervisor for all domains but dom0.
func domains(m machine) ([]domain, error) {
	r, err := command(m, time.Minute, nil, "xcontainerctl", "ps", "--json")
	if err != nil {
		return nil, err
	}
	if r.code != 0 {
		return nil, fmt.Errorf("e2e: xcontainerctl ps: %v", r)
	}
	var all, doms []domain
	if err := json.Unmarshal([]byte(r.stdout), &all); err != nil {
		return nil, fmt.Errorf("e2e: xcontainerctl ps: %w in %q", err, clip(r.stdout))
	}
	for _, d := range all {
		if d.ID != 0 {
			doms = append(doms, d)
		}
	}
	return doms, nil
}

// added returns the items of after that before has not.
func added(before, after []string) []string {
	had := map[string]int{}
	for _, item := range before {
		had[item]++
	}
	var out []string
	for _, item := range after {
		if had[item] > 0 {
			had[item]--
			continue
		}
		out = append(out, item)
	}
	return out
}

// clean is the inventory after the last test, if nothing was left behind. It
// saves the next test from looking again.
var clean []string

// checkLeaks fails t if anything is on m that was not there before. Ends are
// not instant (a shim exits after its last answer), so it looks until limit.
// What was leaked is then removed, as far as it can be, so that the next test
// is judged by its own doings.
func checkLeaks(t *testing.T, m machine, before []string, limit time.Duration) {
	t.Helper()
	clean = nil
	var left []string
	for deadline := time.Now().Add(limit); ; time.Sleep(500 * time.Millisecond) {
		after, err := inventory(m)
		if err != nil {
			t.Errorf("leak check: %v", err)
			return
		}
		if left = added(before, after); len(left) == 0 {
			clean = after
			return
		}
		if time.Now().After(deadline) {
			break
		}
	}
	t.Errorf("left behind after %v:\n\t%s", limit, strings.Join(left, "\n\t"))
	purge(t, m, left)
}

// purge removes leaked containers, then kills leaked processes by their pids.
func purge(t *testing.T, m machine, left []string) {
	t.Helper()
	var script strings.Builder
	for _, step := range []struct{ kind, command string }{
		{"container", "timeout 60 ctr task rm -f"},
		{"container", "timeout 60 ctr c rm"},
		{"process", "kill -KILL"},
	} {
		for _, item := range left {
			if f := strings.Fields(item); f[0] == step.kind {
				fmt.Fprintf(&script, "%s %s\n", step.command, quote(f[1]))
			}
		}
	}
	r, err := command(m, 5*time.Minute, nil, "sh", "-c", script.String())
	t.Logf("removing what was left: %v, %v", err, r)
}

func TestAdded(t *testing.T) {
	got := added([]string{"a", "b", "b"}, []string{"a", "b", "b", "b", "c"})
	if want := "b c"; strings.Join(got, " ") != want {
		t.Errorf("added = %q, want %q", got, want)
	}
}
