// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestBackEnd makes a back-end process on a real Xen do what a guest would have
// it do that has taken it over: map foreign memory, make hypercalls, see the
// files of the host and of other containers, run programs.
func TestBackEnd(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	t.Cleanup(cancel)
	h := &host{T: t, ctx: ctx, lab: machine}
	h.neighbour()
	h.program("puppet")
	var record struct {
		Shim, Backend struct {
			PID int `json:"pid"`
		}
	}
	raw := h.must("cat /run/containerd/io.containerd.runtime.v2.task/default/neighbour/xcontainer.json")
	if err := json.Unmarshal([]byte(raw), &record); err != nil || record.Backend.PID == 0 {
		t.Fatalf("record of the neighbour: %v in %s", err, raw)
	}
	h.outside(record.Backend.PID)
	// Domain 0 is the one with the most to lose.
	out := h.must(fmt.Sprintf("/var/tmp/puppet %d %d 0", record.Backend.PID, record.Shim.PID))
	t.Logf("%s", out)
	h.judge(out)
	if out := h.must("timeout 60 ctr task exec --exec-id after neighbour echo alive"); !strings.Contains(out, "alive") {
		t.Errorf("after the puppet: %s", out)
	}
}

// outside looks at the process from the host.
func (h *host) outside(pid int) {
	fds := h.must(fmt.Sprintf("ls -l /proc/%d/fd", pid))
	for _, bad := range []string{"privcmd", "hypercall", "/dev/mem", "gntdev", "containerd.sock"} {
		if strings.Contains(fds, bad) {
			h.Errorf("the back-end has a descriptor of %s:\n%s", bad, fds)
		}
	}
	status := h.must(fmt.Sprintf("cat /proc/%d/status", pid))
	for _, want := range []string{`NoNewPrivs:\s*1\n`, `Seccomp:\s*2\n`, `CapBnd:\s*0000000000000000\n`, `CapEff:\s*000000008800001b\n`} {
		if !regexp.MustCompile(want).MatchString(status) {
			h.Errorf("the back-end's status has no %q:\n%s", want, status)
		}
	}
	if m := h.must(fmt.Sprintf("wc -l </proc/%d/mountinfo", pid)); strings.TrimSpace(m) != "1" {
		h.Errorf("the back-end sees %s mounts, want its empty root only", strings.TrimSpace(m))
	}
}

// judge wants every attempt to have failed, and the controls not.
func (h *host) judge(out string) {
	attempts, controls := 0, 0
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "control: ") {
			controls++
			continue
		}
		attempts++
		if strings.HasSuffix(line, ": 0") {
			h.Errorf("a back-end may do this: %s", strings.TrimSuffix(line, ": 0"))
		}
	}
	if attempts < 20 || controls < 2 {
		h.Errorf("%d attempts and %d controls: the puppet did not do its work", attempts, controls)
	}
	if !strings.Contains(out, "control: getpid: 0") || !strings.Contains(out, "is a directory that can be written") {
		h.Error("a call that is allowed did not succeed, so the others prove nothing")
	}
}
