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
	"strings"
	"testing"
	"time"

	"github.com/xcontainer/xcontainer/integration/lab"
)

// TestOnXen fails, as the suite does, where there is no Xen.
func TestOnXen(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	suite := buildSuite(ctx, t)
	l := boot(ctx, t)
	if err := l.CopyTo(ctx, suite, "/tmp/xentest.test"); err != nil {
		t.Fatal(err)
	}
	const share = "/opt/xcontainer/share/xcontainer/"
	line := strings.Join([]string{
		"XCONTAINER_TEST_XEN=1",
		"XCONTAINER_TEST_KERNEL=" + share + "vmlinux",
		"XCONTAINER_TEST_INITRAMFS=" + share + "initramfs.cpio",
		"/tmp/xentest.test -test.v -test.run '^TestXen$' -test.timeout 15m",
	}, " ")
	var out strings.Builder
	c := l.Command(line)
	c.Stdout, c.Stderr = &out, &out
	err := c.Run(ctx)
	t.Log(out.String())
	if err != nil {
		t.Fatalf("the suite failed: %v", err)
	}
	// A suite that ran nothing passes too.
	if n := len(regexp.MustCompile(`(?m)^\s+--- PASS: TestXen/`).FindAllString(out.String(), -1)); n < 10 {
		t.Fatalf("%d cases passed, want at least 10", n)
	}
}

func buildSuite(ctx context.Context, t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "xentest.test")
	cmd := exec.CommandContext(ctx, "go", "-C", "../..", "test", "-c", "-trimpath", "-o", path, "./pkg/xen/xentest")
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
