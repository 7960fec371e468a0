// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/xcontainer/xcontainer/integration/internal/ctrbox"
)

// TestTwoKernels: a container that never has more than one virtual CPU runs on the
// kernel for one.
func TestTwoKernels(t *testing.T) {
	onXen(t)
	s := begin(t)
	for vcpus, smp := range map[string]bool{"1": false, "2": true} {
		s.sub(vcpus, func(s *story) {
			r := s.run("--annotation io.xcontainer.vcpus="+vcpus, busybox, "sh", "-c", "nproc; uname -v")
			s.wantCode(r, 0)
			if !strings.HasPrefix(r.stdout, vcpus+"\n") || strings.Contains(r.stdout, " SMP ") != smp {
				s.Errorf("processors and kernel: %q", r.stdout)
			}
		})
	}
}

// TestXLibOSModes: the annotation gets to the guest's kernel, and what that counts
// gets back.
func TestXLibOSModes(t *testing.T) {
	onXen(t)
	s := begin(t)
	for _, c := range []struct{ flags, option string }{
		{"", ""},
		{"--annotation io.xcontainer.xlibos=full", ""},
		{"--annotation io.xcontainer.xlibos=entry", "xlibos=entry"},
		{"--annotation io.xcontainer.xlibos=off", "xlibos=off"},
	} {
		s.sub("mode "+c.option, func(s *story) {
			id := s.start(c.flags, busybox, "sleep", "1000")
			r := s.exec("", id, "cat", "/proc/cmdline")
			s.wantCode(r, 0)
			got := ""
			for word := range strings.FieldsSeq(r.stdout) {
				if strings.HasPrefix(word, "xlibos=") {
					got = word
				}
			}
			if got != c.option {
				s.Errorf("the kernel was told %q of X-LibOS, want %q", got, c.option)
			}
			// 4,000 calls, from two places.
			s.wantCode(s.exec("", id, "dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=2000"), 0)
			r = s.must("xcontainerctl syscalls --json " + id)
			var n struct {
				Container string `json:"container"`
				Mode      string `json:"mode"`
				Direct    uint64 `json:"calls_direct"`
			}
			if err := json.Unmarshal([]byte(r.stdout), &n); err != nil {
				s.Fatalf("%v in %v", err, r)
			}
			xen, off := under.(labHost).lab.State().Xen, c.option == "xlibos=off"
			right := ctrbox.XLibOS{Mode: n.Mode}.OnAs(xen)
			if off {
				right = n.Mode == ctrbox.ModeOff
			}
			if n.Container != id || !right {
				s.Errorf("mode %q of %s, on Xen %s", n.Mode, n.Container, xen)
			}
			if off && n.Direct > 0 || c.option == "" && n.Direct < 3900 {
				s.Errorf("%d calls without Xen", n.Direct)
			}
		})
	}
}
