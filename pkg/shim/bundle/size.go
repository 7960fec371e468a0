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
	// What package xen builds at most, which this one does not import.
	maxMemoryBytes = 512 << 30
	maxVCPUs       = 32
)

// Annotations that override the size.
const (
	AnnotationMemory = "io.xcontainer.memory" // whole domain: bytes, or with K, M or G
	AnnotationVCPUs  = "io.xcontainer.vcpus"
)

func (s *Settings) size(spec *specs.Spec, cpus int) error {
	l := Limits{room: DefaultMemoryBytes, vcpus: uint32(max(1, min(cpus, MaxVCPUs)))}
	if v, ok := spec.Annotations[AnnotationMemory]; ok {
		n, err := parseBytes(v)
		if err != nil || n < minMemoryBytes || n > maxMemoryBytes {
			return invalid("annotation %s=%q is not a size between %dM and %dG", AnnotationMemory, v, minMemoryBytes>>20, maxMemoryBytes>>30)
		}
		l.fixedMemory = n
	}
	if v, ok := spec.Annotations[AnnotationVCPUs]; ok {
		n, err := strconv.ParseUint(v, 10, 32)
		if err != nil || n < 1 || n > maxVCPUs {
			return invalid("annotation %s=%q is not a number between 1 and %d", AnnotationVCPUs, v, maxVCPUs)
		}
		l.vcpus, l.fixedVCPUs = uint32(n), true
	}
	if spec.Linux != nil && spec.Linux.Resources != nil {
		next, tell, ignored, err := l.Apply(spec.Linux.Resources)
		if err != nil {
			return within("config.json", err)
		}
		l = next
		s.Ignored = append(s.Ignored, ignored...)
		s.Container.Resources = limiting(tell)
	}
	s.Limits, s.Size, s.MaxVCPUs = l, l.Size(), l.vcpus
	return nil
}

// limiting is r without what says that there is no limit, as a new container has
// none; nil if nothing is left.
func limiting(r *agentapi.Resources) *agentapi.Resources {
	for _, limit := range []**int64{&r.MemoryMax, &r.CpuQuotaUs, &r.PidsMax} {
		if *limit != nil && **limit < 0 {
			*limit = nil
		}
	}
	if proto.Equal(r, &agentapi.Resources{}) {
		return nil
	}
	return r
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
