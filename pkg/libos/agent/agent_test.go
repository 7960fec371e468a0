// SPDX-License-Identifier: Apache-2.0

package agent

import "testing"

func TestExitStatus(t *testing.T) {
	g := newGuest(t)
	for _, c := range []struct {
		name   string
		args   []string
		status uint32
	}{
		{"true", []string{"true"}, 0},
		{"false", []string{"false"}, 1},
		{"42", []string{"sh", "-c", "exit 42"}, 42},
		{"child killed", []string{"sh", "-c", `sh -c "kill -9 \$\$" 2>/dev/null; exit $?`}, 137},
		{"PID 1 cannot kill itself", []string{"sh", "-c", "kill -9 $$; exit 7"}, 7},
		{"PID 1 ignores SIGTERM by default", []string{"sh", "-c", "kill -TERM $$; exit 8"}, 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			if r := g.run(g.spec(c.args...), nil); r.status != c.status || r.out != "" || r.err != "" {
				t.Errorf("got %+v, want status %d and no output", r, c.status)
			}
		})
	}
}

func TestHello(t *testing.T) {
	g := newGuest(t)
	r := g.sh("echo out; echo err >&2; echo $$; hostname; pwd; id -u; ls /dev; cat /proc/self/cgroup")
	t.Logf("%+v", r)
}
