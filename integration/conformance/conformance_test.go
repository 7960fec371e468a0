// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xcontainer/xcontainer/integration/lab"
)

// TestInDom0 fails, as the suites do, where there is no Xen.
func TestInDom0(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	l := boot(ctx, t)
	const share = "/opt/xcontainer/share/xcontainer/"
	for _, s := range []struct {
		name, pkg, prepare, env, filter string
		least                           int // tests that must pass: a suite that ran nothing passes, too
	}{
		{"toolstack", "pkg/xen/xentest", "",
			"XCONTAINER_TEST_XEN=1 XCONTAINER_TEST_KERNEL=" + share + "vmlinux XCONTAINER_TEST_KERNEL_UP=" + share + "vmlinux-up" +
				" XCONTAINER_TEST_INITRAMFS=" + share + "initramfs.cpio",
			"^TestXen$", 10},
		// The agent's tests of limits want cgroup v2 with all controllers, which
		// few machines can spare.
		{"limits in the agent", "pkg/libos/agent", `mkdir ` + agentCgroup + `
for d in /sys/fs/cgroup ` + agentCgroup + `; do echo +cpu +cpuset +memory +pids >$d/cgroup.subtree_control; done`,
			"XCONTAINER_TEST_CGROUP=" + agentCgroup,
			"^(TestOOM.*|TestPidsLimit|TestUpdate|TestNestedCgroups)$", 7},
	} {
		t.Run(s.name, func(t *testing.T) {
			const suite = "/tmp/suite.test"
			if err := l.CopyTo(ctx, buildSuite(ctx, t, s.pkg), suite); err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			c := l.Command(fmt.Sprintf("set -e\n%s\n%s %s -test.v -test.run '%s' -test.timeout 15m", s.prepare, s.env, suite, s.filter))
			c.Stdout, c.Stderr = &out, &out
			err := c.Run(ctx)
			t.Log(out.String())
			if err != nil {
				t.Fatalf("the suite failed: %v", err)
			}
			if n := len(passed.FindAllString(out.String(), -1)); n < s.least {
				t.Errorf("%d tests passed, want at least %d", n, s.least)
			}
			if skipped := skips.FindAllString(out.String(), -1); len(skipped) > 0 {
				t.Errorf("skipped: %q", skipped)
			}
		})
	}
	t.Run("profile", func(t *testing.T) { testProfile(ctx, t, l) })
}

// testProfile looks at the lab with what lab profile uses.
func testProfile(ctx context.Context, t *testing.T, l *lab.Lab) {
	symbols, err := l.XenSymbols(ctx)
	if err != nil {
		t.Fatal(err)
	}
	samples, err := l.Samples(ctx, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	lines := lab.Profile(samples, symbols)
	t.Logf("%d samples, %v", len(samples), lines)
	if n := len(samples); n == 0 || n%l.State().CPUs != 0 {
		t.Errorf("%d samples of %d CPUs", n, l.State().CPUs)
	}
	if slices.ContainsFunc(lines, func(x lab.Line) bool { return x.Name == "(Xen)" }) {
		t.Errorf("Xen was at a place without a name: %v", lines)
	}
	if _, err := l.Run(ctx, "true", nil); err != nil {
		t.Errorf("the machine does not go on: %v", err)
	}
}

const agentCgroup = "/sys/fs/cgroup/agent-tests"

var (
	passed = regexp.MustCompile(`(?m)^\s*--- PASS: `)
	skips  = regexp.MustCompile(`(?m)^\s*--- SKIP: .*`)
)

// buildSuite builds the tests of a package.
func buildSuite(ctx context.Context, t *testing.T, pkg string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "suite.test")
	cmd := exec.CommandContext(ctx, "go", "-C", "../..", "test", "-c", "-trimpath", "-o", path, "./"+pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the suite: %v\n%s", err, out)
	}
	return path
}

func boot(ctx context.Context, t *testing.T) *lab.Lab {
	t.Helper()
	o := lab.Options{
		Name:     cmp.Or(os.Getenv(lab.EnvName), "conformance"),
		Xen:      os.Getenv("LAB_XEN"),
		Progress: func(what string) { fmt.Fprintln(os.Stderr, what) },
	}
	l, err := lab.Fresh(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	})
	return l
}
