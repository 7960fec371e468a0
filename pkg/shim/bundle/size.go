// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// Sizes of domains.
const (
	// OverheadBytes is what kernel, agent and device pool need of a domain's
	// memory on top of the container's own limit.
	OverheadBytes = 40 << 20
	// DefaultMemoryBytes is the size of a domain whose container has no limit.
	DefaultMemoryBytes = 256 << 20
	// MaxVCPUs of a domain that does not ask for more.
	MaxVCPUs = 4

	minMemoryBytes = 48 << 20 // below this the kernel does not boot
	maxMemoryBytes = 1 << 40
	maxVCPUs       = 128
)

// Annotations that override the size.
const (
	AnnotationMemory = "io.xcontainer.memory" // whole domain: bytes, or with K, M or G
	AnnotationVCPUs  = "io.xcontainer.vcpus"
)

// Of Xen's credit2 scheduler and of cgroups.
const (
	defaultWeight = 256
	maxWeight     = 65535
	defaultShares = 1024
	defaultPeriod = 100000 // µs
)

func (s *Settings) size(spec *specs.Spec, cpus int) error {
	s.MemoryBytes = DefaultMemoryBytes
	s.VCPUs = uint32(max(1, min(cpus, MaxVCPUs)))
	s.MaxVCPUs = s.VCPUs
	if spec.Linux != nil && spec.Linux.Resources != nil {
		if err := s.resources(spec.Linux.Resources); err != nil {
			return err
		}
	}
	if v, ok := spec.Annotations[AnnotationMemory]; ok {
		n, err := parseBytes(v)
		if err != nil || n < minMemoryBytes || n > maxMemoryBytes {
			return invalid("annotation %s=%q is not a size between %dM and %dG", AnnotationMemory, v, minMemoryBytes>>20, maxMemoryBytes>>30)
		}
		s.MemoryBytes = n
	}
	if v, ok := spec.Annotations[AnnotationVCPUs]; ok {
		n, err := strconv.ParseUint(v, 10, 32)
		if err != nil || n < 1 || n > maxVCPUs {
			return invalid("annotation %s=%q is not a number between 1 and %d", AnnotationVCPUs, v, maxVCPUs)
		}
		s.VCPUs, s.MaxVCPUs = uint32(n), uint32(n)
	}
	const page = 4096
	s.MemoryBytes = (s.MemoryBytes + page - 1) &^ (page - 1)
	return nil
}

func (s *Settings) resources(r *specs.LinuxResources) error {
	if m := r.Memory; m != nil && m.Limit != nil && *m.Limit > 0 {
		limit := uint64(*m.Limit)
		// Docker and cgroups write "no limit" as the largest multiple of a page.
		if limit < math.MaxInt64&^0xffff {
			if limit > maxMemoryBytes {
				return invalid("memory limit %d is more than %d GB", limit, maxMemoryBytes>>30)
			}
			s.limits().MemoryMax = proto.Int64(int64(limit))
			s.MemoryBytes = max(limit+OverheadBytes, minMemoryBytes)
		}
	}
	if c := r.CPU; c != nil {
		s.cpu(c)
	}
	if p := r.Pids; p != nil && p.Limit != nil && *p.Limit > 0 {
		s.limits().PidsMax = proto.Int64(*p.Limit)
	}
	for _, x := range []struct {
		name string
		set  bool
	}{
		{"blockIO", r.BlockIO != nil},
		{"hugepageLimits", len(r.HugepageLimits) > 0},
		{"network", r.Network != nil},
		{"rdma", len(r.Rdma) > 0},
		{"unified", len(r.Unified) > 0},
	} {
		if x.set {
			s.ignore("linux.resources.%s", x.name)
		}
	}
	return nil
}

// cpu maps shares to the scheduler's weight, and a quota to its cap and to the
// number of virtual CPUs.
func (s *Settings) cpu(c *specs.LinuxCPU) {
	if c.Shares != nil && *c.Shares > 0 && *c.Shares != defaultShares {
		shares := min(*c.Shares, maxWeight*defaultShares/defaultWeight)
		s.Weight = uint16(min(max(shares*defaultWeight/defaultShares, 1), maxWeight))
	}
	if c.Quota != nil && *c.Quota > 0 {
		period := uint64(defaultPeriod)
		if c.Period != nil && *c.Period > 0 {
			period = *c.Period
		}
		quota := uint64(*c.Quota)
		if whole := quota / period; whole < uint64(s.VCPUs) {
			n := whole
			if quota%period != 0 {
				n++
			}
			s.VCPUs = uint32(max(n, 1))
		}
		// A cap of all its virtual CPUs is none.
		if quota/period < uint64(s.VCPUs) {
			s.Cap = uint16(max(quota/period*100+quota%period/max(period/100, 1), 1))
		}
	}
	if c.Cpus != "" || c.Mems != "" {
		s.ignore("linux.resources.cpu.cpus and mems")
	}
}

func parseBytes(v string) (uint64, error) {
	unit := uint64(1)
	num := strings.TrimSuffix(v, "B")
	for suffix, u := range map[string]uint64{"K": 1 << 10, "M": 1 << 20, "G": 1 << 30} {
		if n, ok := strings.CutSuffix(num, suffix); ok {
			num, unit = n, u
			break
		}
	}
	n, err := strconv.ParseUint(num, 10, 64)
	if err != nil {
		return 0, err
	}
	if n > math.MaxUint64/unit {
		return 0, fmt.Errorf("%s is too large", v)
	}
	return n * unit, nil
}

func (s *Settings) limits() *agentapi.Resources {
	if s.Container.Resources == nil {
		s.Container.Resources = &agentapi.Resources{}
	}
	return s.Container.Resources
}
