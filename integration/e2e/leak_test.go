// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	leaks "github.com/xcontainer/xcontainer/integration/internal/inventory"
)

func host(m machine) leaks.Host {
	return leaks.Host{Run: runner(m), StateDir: m.StateDir(), RootDir: m.RootDir(), HasXen: m.HasXen()}
}

// runner runs commands on m for package inventory.
func runner(m machine) leaks.Run {
	return func(argv ...string) (string, error) {
		r, err := command(m, time.Minute, nil, argv...)
		if err == nil && r.code != 0 {
			err = fmt.Errorf("e2e: %s: %v", argv[0], r)
		}
		return r.stdout, err
	}
}

type domain = leaks.Domain

// domains asks the hypervisor for all domains but dom0.
func domains(m machine) ([]domain, error) { return leaks.Domains(runner(m)) }

func added(before, after []string) []string { return leaks.Added(before, after) }

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
	left, now, err := host(m).Left(before, limit)
	if err != nil {
		t.Errorf("leak check: %v", err)
		return
	}
	if len(left) == 0 {
		clean = now
		return
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
