// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// watch runs script while ctr events runs, and returns the topics of the
// events that name id, in order. The script's own output is not looked at.
func (s *story) watch(id, script string) []string {
	s.Helper()
	r := s.sh(fmt.Sprintf(`
out=$(mktemp)
ctr events >$out 2>&1 &
watcher=$!
# The subscription stands once an event of our own has come through it.
n=0
until grep -q e2e-mark $out; do
	ctr ns create e2e-mark-$n >/dev/null; ctr ns rm e2e-mark-$n >/dev/null
	n=$((n+1)); [ $n -lt 60 ] || break
done
{ %[2]s
} >/dev/null 2>&1
sleep 3
kill $watcher; wait $watcher 2>/dev/null
grep -F '"%[1]s"' $out
rm -f $out`, id, script))
	s.wantCode(r, 0)
	var topics []string
	for line := range strings.Lines(r.stdout) {
		for _, f := range strings.Fields(line) {
			if strings.HasPrefix(f, "/tasks/") {
				topics = append(topics, strings.TrimPrefix(f, "/tasks/"))
			}
		}
	}
	return topics
}

// TestEvents: the events of a task come complete and in order, once each.
func TestEvents(t *testing.T) {
	s := begin(t)
	s.sub("run", func(s *story) {
		// A process that ends at once must not overtake its own start.
		id := s.id()
		got := s.watch(id, "$RUN --rm $B "+id+" true")
		if want := []string{"create", "start", "exit", "delete"}; !slices.Equal(got, want) {
			s.Errorf("events %q, want %q", got, want)
		}
	})
	s.sub("exec", func(s *story) {
		id := s.id()
		got := s.watch(id, fmt.Sprintf(`
$RUN -d $B %[1]s sleep 1000
ctr task exec --exec-id one %[1]s true
ctr task kill -s KILL %[1]s; sleep 3
ctr task rm %[1]s; ctr c rm %[1]s`, id))
		want := []string{"create", "start", "exec-added", "exec-started", "exit", "exit", "delete"}
		if !slices.Equal(got, want) {
			s.Errorf("events %q, want %q", got, want)
		}
	})
}

// TestSteps: each creation logs how long its steps took, which is what the
// benchmark reads.
func TestSteps(t *testing.T) {
	onXen(t)
	s := begin(t)
	id := s.id()
	r := s.sh("$RUN --rm $B " + id + " true && grep 'container started' /var/log/containerd.log | grep -F " + id)
	s.wantCode(r, 0)
	_, steps, _ := strings.Cut(r.stdout, `steps="`)
	steps, _, _ = strings.Cut(steps, `"`)
	var names []string
	for _, f := range strings.Fields(steps) {
		name, took, _ := strings.Cut(f, "=")
		if !strings.HasSuffix(took, "ms") {
			s.Errorf("step %q has no time", f)
		}
		names = append(names, name)
	}
	for _, want := range []string{
		"createdomain", "populate", "load", "tables", "pin", "devices", "unpause", "kernel", "agent", "rootfs", "process-start",
	} {
		if !slices.Contains(names, want) {
			s.Errorf("no step %s in %q", want, names)
		}
	}
}
