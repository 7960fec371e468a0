// SPDX-License-Identifier: Apache-2.0

package hostcgroup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestJoin(t *testing.T) {
	g := group(t)
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	// As clients write it: a leading slash or none, and nothing leads outside.
	if err := Join("../.."+g.Path()+"/.", cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", cmd.Process.Pid))
	if err != nil || !strings.Contains(string(data), ":"+g.Path()+"\n") {
		t.Errorf("%v, the process is in\n%s", err, data)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if err := Join(g.Path(), cmd.Process.Pid); err == nil {
		t.Error("a process that has ended joined")
	}
}

func TestJoinRefuses(t *testing.T) {
	for _, tt := range []struct {
		path, want string
		kind       error
	}{
		{"/xcontainer-test-none", "the cgroup /xcontainer-test-none does not exist; make it first", ErrUnavailable},
		{"a\nb", `the cgroup "a\nb" cannot be`, ErrInvalid},
		{strings.Repeat("x", maxPath), "cannot be", ErrInvalid},
	} {
		err := Join(tt.path, os.Getpid())
		if err == nil || !strings.Contains(err.Error(), tt.want) || !errors.Is(err, tt.kind) || len(err.Error()) > 300 {
			t.Errorf("%.20q: %v, want %q", tt.path, err, tt.want)
		}
	}
}
