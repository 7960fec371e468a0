// SPDX-License-Identifier: Apache-2.0

package task

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
	"github.com/xcontainer/xcontainer/pkg/shim/statsapi"
)

// Bounds of what is taken of the guest's counters of system calls. Its kernel has
// some 20; others may follow.
const (
	maxCounters    = 64
	maxCounterName = 32 // bytes
)

// takeSyscalls copies what may be its kernel's: words that are known, and counters
// that are called like those of a kernel. nil if the agent has not told any.
func takeSyscalls(s *agentapi.Syscalls) *statsapi.Syscalls {
	if s == nil {
		return nil
	}
	out := &statsapi.Syscalls{
		Mode:      oneOf(s.GetMode(), "off", "bounce", "shared"),
		Rewriting: oneOf(s.GetRewriting(), "off", "on"),
		Counters:  make(map[string]uint64),
	}
	for _, name := range slices.Sorted(maps.Keys(s.GetCounters())) {
		if len(out.Counters) == maxCounters {
			break
		}
		if isCounter(name) {
			out.Counters[name] = s.GetCounters()[name]
		}
	}
	return out
}

// oneOf is word if it is a known one, or empty.
func oneOf(word string, known ...string) string {
	if word == "" || slices.Contains(known, word) {
		return word
	}
	return "unknown"
}

// isCounter tells whether name is like refused_boundary.
func isCounter(name string) bool {
	if name == "" || len(name) > maxCounterName {
		return false
	}
	for _, b := range []byte(name) {
		if (b < 'a' || b > 'z') && (b < '0' || b > '9') && b != '_' {
			return false
		}
	}
	return true
}

// addSyscalls adds s, which may be nil, to metrics of whatever type. Behind each
// other, the encodings of two messages are that of both together.
func addSyscalls(metrics *anypb.Any, s *statsapi.Syscalls) error {
	if s == nil {
		return nil
	}
	b, err := proto.Marshal(&statsapi.Metrics{Syscalls: s})
	if err != nil {
		return fmt.Errorf("encode the counters of system calls: %w", err)
	}
	metrics.Value = append(metrics.Value, b...)
	return nil
}
