// SPDX-License-Identifier: Apache-2.0

package task_test

import (
	"testing"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/protobuf/proto"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
	"github.com/xcontainer/xcontainer/pkg/shim/bundle"
	"github.com/xcontainer/xcontainer/pkg/shim/statsapi"
	"github.com/xcontainer/xcontainer/pkg/shim/task/tasktest"
)

// TestXLibOS: the annotation gets to the domain, and a wrong one to nobody.
func TestXLibOS(t *testing.T) {
	d := newDaemon(t)
	for value, want := range map[string]bundle.XLibOS{"": bundle.XLibOSFull, "full": bundle.XLibOSFull, "entry": bundle.XLibOSEntry, "off": bundle.XLibOSOff} {
		s := spec("sleep", "1000")
		if value != "" {
			s.Annotations = map[string]string{bundle.AnnotationXLibOS: value}
		}
		b := d.bundled("c"+value, false, s)
		b.create()
		if got := d.guest().Config.XLibOS; got != want {
			t.Errorf("annotation %q: the domain gets %q", value, got)
		}
		b.start()
		b.end()
	}
	s := spec("true")
	s.Annotations = map[string]string{bundle.AnnotationXLibOS: "fast"}
	b := d.bundled("bad", false, s)
	_, err := d.task.Create(d.ctx(), b.createRequest())
	const want = `config.json: annotation io.xcontainer.xlibos="fast" is neither full, entry nor off`
	if err = errgrpc.ToNative(err); !is(err, errdefs.ErrInvalidArgument) || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

// syscalls are the counters in a container's metrics.
func (b *box) syscalls() *statsapi.Syscalls {
	b.t.Helper()
	r, err := b.task.Stats(b.ctx(), &taskapi.StatsRequest{ID: b.id})
	if err != nil {
		b.t.Fatalf("stats: %v", err)
	}
	var m statsapi.Metrics
	if err := proto.Unmarshal(r.GetStats().GetValue(), &m); err != nil {
		b.t.Fatal(err)
	}
	return m.Syscalls
}

// TestSyscallsByStats: a client of the shim gets what the guest counts, of a paused
// one the last of it.
func TestSyscallsByStats(t *testing.T) {
	d := newDaemon(t)
	b := d.sleeper()
	if got := b.syscalls(); got != nil {
		t.Errorf("from an agent that does not tell: %v", got)
	}
	d.guest().Answer(tasktest.Answers{Stats: func() *agentapi.ContainerStatsResponse {
		return &agentapi.ContainerStatsResponse{Syscalls: &agentapi.Syscalls{
			Mode: "shared", Rewriting: "off", Counters: map[string]uint64{"calls_bounced": 9},
		}}
	}})
	want := &statsapi.Syscalls{Mode: "shared", Rewriting: "off", Counters: map[string]uint64{"calls_bounced": 9}}
	if got := b.syscalls(); !proto.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	b.mustPause()
	if got := b.syscalls(); !proto.Equal(got, want) {
		t.Errorf("paused: %v, want %v", got, want)
	}
	b.mustResume()
	b.end()
}
