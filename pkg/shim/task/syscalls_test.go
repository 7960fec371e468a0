// SPDX-License-Identifier: Apache-2.0

package task

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/proto"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
	"github.com/xcontainer/xcontainer/pkg/shim/statsapi"
)

// TestSyscallsInMetrics: the counters are in both forms of metrics, for those who
// look, and nobody else sees a difference.
func TestSyscallsInMetrics(t *testing.T) {
	told := &agentapi.Syscalls{Mode: "bounce", Rewriting: "on", Counters: map[string]uint64{"calls_direct": 7, "sites_abs": math.MaxUint64}}
	want := &statsapi.Syscalls{Mode: "bounce", Rewriting: "on", Counters: map[string]uint64{"calls_direct": 7, "sites_abs": math.MaxUint64}}
	with := numbers{guest: takeNumbers(&agentapi.ContainerStatsResponse{MemoryCurrent: 8192, Syscalls: told})}
	without := numbers{guest: takeNumbers(&agentapi.ContainerStatsResponse{MemoryCurrent: 8192})}
	empty := numbers{guest: takeNumbers(&agentapi.ContainerStatsResponse{Syscalls: &agentapi.Syscalls{}})}
	for _, unified := range []bool{false, true} {
		seen := func(n numbers) (proto.Message, *statsapi.Syscalls) {
			t.Helper()
			a, err := n.metrics(unified)
			if err != nil {
				t.Fatal(err)
			}
			ours := &statsapi.Metrics{}
			if err := proto.Unmarshal(a.Value, ours); err != nil {
				t.Fatal(err)
			}
			theirs, err := typeurl.UnmarshalAny(a)
			if err != nil {
				t.Fatal(err)
			}
			theirs.(proto.Message).ProtoReflect().SetUnknown(nil) // what an older type drops
			return theirs.(proto.Message), ours.Syscalls
		}
		a, counters := seen(with)
		if !proto.Equal(counters, want) {
			t.Errorf("unified %v: %v, want %v", unified, counters, want)
		}
		b, counters := seen(without)
		if counters != nil || !proto.Equal(a, b) {
			t.Errorf("unified %v: %v; %v and %v", unified, counters, a, b)
		}
		if _, counters := seen(empty); counters == nil || !proto.Equal(counters, &statsapi.Syscalls{}) {
			t.Errorf("unified %v: a kernel without X-LibOS: %v", unified, counters)
		}
		if _, counters := seen(numbers{domain: &Usage{}}); counters != nil {
			t.Errorf("unified %v: a guest that says nothing: %v", unified, counters)
		}
	}
}

// TestSyscallsOfLiars: what a guest says stays small, and is no more than words and
// numbers.
func TestSyscallsOfLiars(t *testing.T) {
	s := &agentapi.Syscalls{Mode: strings.Repeat("\x1b[2J", 1000), Rewriting: "On", Counters: map[string]uint64{
		"": 1, "Calls": 1, "a b": 1, "a\n": 1, "\x1b[2J": 1, "calls\u202e": 1, strings.Repeat("x", maxCounterName+1): 1,
		strings.Repeat("y", maxCounterName): 1, "calls_direct": 2, "new_1": 3,
	}}
	want := &statsapi.Syscalls{Mode: "unknown", Rewriting: "unknown", Counters: map[string]uint64{
		strings.Repeat("y", maxCounterName): 1, "calls_direct": 2, "new_1": 3,
	}}
	if got := takeSyscalls(s); !proto.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for i := range 100000 {
		s.Counters[fmt.Sprint("n", i)] = math.MaxUint64
	}
	got := takeSyscalls(s)
	if n := proto.Size(got); len(got.Counters) != maxCounters || n > maxCounters*(maxCounterName+20)+100 {
		t.Errorf("%d counters, %d bytes", len(got.Counters), n)
	}
	if takeSyscalls(nil) != nil {
		t.Error("counters from nothing")
	}
}
