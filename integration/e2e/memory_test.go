// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

const mib = 1 << 20

// defaultMemory is what README promises: the size of a domain whose container
// has no limit, the guest's own part included.
const defaultMemory = 256 * mib

// The overhead that we allow ourselves.
const (
	maxGuestOverhead = 40 * mib
	maxHostOverhead  = 25 * mib // shim and back-end together
)

// TestMemoryLimit: a container can use the memory it was promised, and not
// much more.
func TestMemoryLimit(t *testing.T) {
	s := begin(t)
	touch := func(flags string, mb int) result {
		return s.run(flags, busybox, "dd", "if=/dev/zero", "of=/dev/null", fmt.Sprintf("bs=%dM", mb), "count=1", "iflag=fullblock")
	}
	limit := fmt.Sprintf("--memory-limit %d", 64*mib)
	s.sub("56 MB of 64 MB", func(s *story) { s.wantCode(touch(limit, 56), 0) })
	s.sub("200 MB of 64 MB", func(s *story) {
		if r := touch(limit, 200); r.code == 0 {
			s.Errorf("a container limited to 64 MB touched 200 MB")
		}
	})
	if !xen() {
		return
	}
	s.sub("default", func(s *story) {
		id := s.start("", busybox, "sleep", "1000")
		s.wantCode(s.exec("", id, "dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1", "iflag=fullblock"), 0)
		doms, err := domains(s.m)
		if err != nil {
			s.Fatal(err)
		}
		for _, d := range doms {
			// Xen counts some pages of its own.
			if d.Container == id && (d.Memory < defaultMemory-mib || d.Memory > defaultMemory+mib) {
				s.Errorf("the domain has %d KiB, want %d KiB", d.Memory>>10, defaultMemory>>10)
			}
		}
	})
}

// TestOverhead prints what a container costs beside its own memory, and holds
// it against what we allow ourselves.
func TestOverhead(t *testing.T) {
	onXen(t)
	s := begin(t)
	id := s.start("", busybox, "sleep", "1000")
	r := s.sh("xcontainerctl overhead --json")
	s.wantCode(r, 0)
	var o struct {
		Guest struct {
			Overhead uint64 `json:"overhead_bytes"`
		} `json:"guest"`
		Processes []struct {
			Container string `json:"container"`
			Shim      uint64 `json:"shim_pss_bytes"`
			Backend   uint64 `json:"backend_pss_bytes"`
		} `json:"processes"`
	}
	if err := json.Unmarshal([]byte(r.stdout), &o); err != nil {
		s.Fatalf("%v in %v", err, r)
	}
	s.Logf("guest: %.1f MiB", float64(o.Guest.Overhead)/mib)
	if o.Guest.Overhead == 0 || o.Guest.Overhead > maxGuestOverhead {
		s.Errorf("the guest's overhead is %d bytes, want at most %d", o.Guest.Overhead, maxGuestOverhead)
	}
	found := false
	for _, p := range o.Processes {
		if p.Container != id {
			continue
		}
		found = true
		s.Logf("shim: %.1f MiB, back-end: %.1f MiB", float64(p.Shim)/mib, float64(p.Backend)/mib)
		if sum := p.Shim + p.Backend; p.Shim == 0 || p.Backend == 0 || sum > maxHostOverhead {
			s.Errorf("shim and back-end have %d and %d bytes, want at most %d together", p.Shim, p.Backend, maxHostOverhead)
		}
	}
	if !found {
		s.Errorf("no line for %s in %v", id, r)
	}
}

// TestPs: xcontainerctl ps shows a container's domain.
func TestPs(t *testing.T) {
	onXen(t)
	s := begin(t)
	id := s.start(fmt.Sprintf("--memory-limit %d", 64*mib), busybox, "sleep", "1000")
	doms, err := domains(s.m)
	if err != nil {
		s.Fatal(err)
	}
	found := false
	for _, d := range doms {
		if d.Container == id {
			found = d.VCPUs > 0 && d.Memory >= 64*mib && d.ID == s.record(id).DomID
		}
	}
	if !found {
		s.Errorf("%s is not shown as it is: %+v", id, doms)
	}
	r := s.sh("xcontainerctl ps")
	if r.code != 0 || !strings.Contains(r.stdout, id) || !strings.Contains(r.stdout, strconv.Itoa(int(s.record(id).DomID))) {
		s.Errorf("%s is not in the table: %v", id, r)
	}
}
