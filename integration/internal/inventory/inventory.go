// SPDX-License-Identifier: Apache-2.0

// Package inventory lists what containers may leave behind on a host, one line an
// item, so that a machine can be compared with itself before and after.
package inventory

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// script prints one line for each thing that a container may leave behind and that
// the kernel or a file system shows.
// Its arguments are containerd's state and root directories. A task has its
// bundle there, and a snapshot its directory.
//
// Event channels that user space holds are counted in the interrupt table,
// where each has a line with its owner's name; the guests' ends die with the
// domains. Abstract and path sockets are both in /proc/net/unix.
//
// It runs after every test, and the start of a program is what costs time under
// emulation: hence few of them.
const script = `
state=$1 root=$2
{
ls -l /proc/[0-9]*/exe 2>/dev/null |
	awk '/ -> .*\/(containerd-shim-|xcontainer)/ {sub(/^.* \/proc\//, ""); sub(/\/exe -> /, " "); print}' |
	while read -r pid exe; do
		echo "process $pid $exe $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null)"
	done
awk -v s="$state/" '
	FILENAME == "/proc/self/mountinfo" && (index($5, s) == 1 || /nsfs/) {print "mount", $5}
	FILENAME == "/proc/net/unix" && $NF ~ /^@*\/.*containerd\/s\// {print "listener", $NF}
	FILENAME == "/proc/interrupts" && /evtchn:/ {n++}
	END {print "eventchannels", n+0}' /proc/self/mountinfo /proc/net/unix /proc/interrupts
for n in /run/netns/*; do [ -e "$n" ] && echo "netns $n"; done
find "$state/s" "$state/fifo" "$state/io.containerd.runtime.v2.task" /run/containerd/s /run/containerd/fifo /run/xcontainer \
	-mindepth 1 -maxdepth 2 \( ! -path '*.runtime.v2.task/*' -o -path '*.runtime.v2.task/*/*' \) -printf 'file %p\n' 2>/dev/null
find /sys/fs/cgroup -mindepth 1 -type d -path '*/default/*' -prune -printf 'cgroup %p\n' 2>/dev/null
find "$root"/io.containerd.snapshotter.v1.*/snapshots "$root/io.containerd.runtime.v2.task/default" -mindepth 1 -maxdepth 1 \
	-printf 'directory %p\n' 2>/dev/null
} | awk '!/^(file|listener) / || !had[$0]++'
`

// Run runs a command on the host and returns its standard output; a code other
// than 0 is an error.
type Run func(argv ...string) (string, error)

// Host says where things are.
type Host struct {
	Run      Run
	StateDir string // containerd's
	RootDir  string
	HasXen   bool // whether xcontainerctl can list domains
}

// Take lists what is on the host, sorted.
func (h Host) Take() ([]string, error) {
	seen, err := h.look()
	if err != nil {
		return nil, err
	}
	return h.ask(seen)
}

// look lists what the kernel and file systems show.
func (h Host) look() ([]string, error) {
	out, err := h.Run("sh", "-c", script, "sh", h.StateDir, h.RootDir)
	if err != nil {
		return nil, fmt.Errorf("inventory: %w", err)
	}
	return strings.Split(strings.TrimSpace(out), "\n"), nil
}

// ask adds to seen what containerd and the hypervisor tell when asked, and sorts
// it. Each question starts a program that takes as long as look.
func (h Host) ask(seen []string) ([]string, error) {
	out, err := h.Run("ctr", "containers", "ls", "-q")
	if err != nil {
		return nil, fmt.Errorf("inventory: %w", err)
	}
	items := slices.Clone(seen)
	for id := range strings.FieldsSeq(out) {
		items = append(items, "container "+id)
	}
	if h.HasXen {
		doms, err := Domains(h.Run)
		if err != nil {
			return nil, err
		}
		for _, d := range doms {
			items = append(items, fmt.Sprintf("domain %d of %s", d.ID, d.Container))
		}
	}
	slices.Sort(items)
	return items, nil
}

// poll is how often Left looks.
const poll = 500 * time.Millisecond

// Left lists what is on the host and not in before, as soon as that is nothing, at
// the latest after limit; and all that is there then. It asks only when nothing
// more is seen.
//
// A limit is best some minutes: containerd removes the directories of snapshots when
// it collects its garbage, and when that took long, it waits fifty times as long
// before it does so again.
func (h Host) Left(before []string, limit time.Duration) (more, now []string, err error) {
	for deadline := time.Now().Add(limit); ; time.Sleep(poll) {
		last := time.Now().After(deadline)
		now, err = h.look()
		if err == nil && !last && len(Added(before, now)) > 0 {
			continue
		}
		if err == nil {
			now, err = h.ask(now)
		}
		more = Added(before, now)
		if last || err == nil && len(more) == 0 {
			return more, now, err
		}
	}
}

// Domain is one line of xcontainerctl ps --json.
type Domain struct {
	ID        uint32 `json:"domid"`
	Container string `json:"container"`
	State     string `json:"state"`
	Memory    uint64 `json:"memory_bytes"`
	VCPUs     uint32 `json:"vcpus"`
}

// Domains asks the hypervisor for all domains but dom0.
func Domains(run Run) ([]Domain, error) {
	out, err := run("xcontainerctl", "ps", "--json")
	if err != nil {
		return nil, fmt.Errorf("inventory: %w", err)
	}
	var all, doms []Domain
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		return nil, fmt.Errorf("inventory: xcontainerctl ps: %w in %.200q", err, out)
	}
	for _, d := range all {
		if d.ID != 0 {
			doms = append(doms, d)
		}
	}
	return doms, nil
}

// Added returns the items of after that before has not.
func Added(before, after []string) []string {
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
