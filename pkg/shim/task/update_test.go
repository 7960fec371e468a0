// SPDX-License-Identifier: Apache-2.0

package task_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
	"github.com/xcontainer/xcontainer/pkg/shim/bundle"
	"github.com/xcontainer/xcontainer/pkg/shim/task"
	"github.com/xcontainer/xcontainer/pkg/shim/task/tasktest"
)

func (b *box) update(resources string) error {
	return b.updateOf("types.containerd.io/opencontainers/runtime-spec/1/LinuxResources", resources)
}

func (b *box) updateOf(url, resources string) error {
	_, err := b.task.Update(b.ctx(), &taskapi.UpdateTaskRequest{ID: b.id, Resources: &anypb.Any{TypeUrl: url, Value: []byte(resources)}})
	return errgrpc.ToNative(err)
}

const mb = 1 << 20

// limited is a running container with 64 MiB and half a CPU, of two.
func (d *daemon) limited() *box {
	d.t.Helper()
	limit, quota := int64(64*mb), int64(50000)
	s := spec("sleep", "1000")
	s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}, CPU: &specs.LinuxCPU{Quota: &quota}}
	b := d.bundled("c", false, s)
	b.create()
	b.start()
	return b
}

// domain is what the hypervisor says, in a line.
func (b *box) domain() string {
	b.t.Helper()
	u, err := b.guest().Usage(b.ctx())
	if err != nil {
		b.t.Fatal(err)
	}
	weight, limit := b.guest().Schedule()
	return fmt.Sprintf("%d of %d MB, %d vcpus, weight %d, cap %d", u.MemoryBytes/mb, u.MaxMemoryBytes/mb, u.VCPUs, weight, limit)
}

func TestUpdate(t *testing.T) {
	d := newDaemon(t)
	b := d.limited()
	over := bundle.OverheadBytes / mb
	steps := []struct {
		resources string
		domain    string
		guest     func(*agentapi.Resources) bool
	}{
		{`{}`, fmt.Sprintf("%d of %d MB, 1 vcpus, weight 0, cap 50", 64+over, 64+over),
			func(r *agentapi.Resources) bool { return r.MemoryMax == nil && r.CpuQuotaUs == nil }},
		{`{"memory":{"limit":134217728}}`, fmt.Sprintf("%d of %d MB, 1 vcpus, weight 0, cap 50", 128+over, 128+over),
			func(r *agentapi.Resources) bool { return r.GetMemoryMax() == 128*mb && r.CpuQuotaUs == nil }},
		{`{"memory":{"limit":33554432},"pids":{"limit":9}}`, fmt.Sprintf("%d of %d MB, 1 vcpus, weight 0, cap 50", 32+over, 32+over),
			func(r *agentapi.Resources) bool { return r.GetMemoryMax() == 32*mb && r.GetPidsMax() == 9 }},
		{`{"cpu":{"quota":150000,"shares":512}}`, fmt.Sprintf("%d of %d MB, 2 vcpus, weight 128, cap 150", 32+over, 32+over),
			func(r *agentapi.Resources) bool { return r.GetCpuQuotaUs() == 150000 && r.GetCpuWeight() != 0 }},
		{`{"cpu":{"quota":-1},"memory":{"limit":-1},"unified":{"memory.high":"max"}}`, "256 of 256 MB, 2 vcpus, weight 128, cap 0",
			func(r *agentapi.Resources) bool {
				return r.GetCpuQuotaUs() == -1 && r.GetMemoryMax() == -1 && r.Unified["memory.high"] == "max"
			}},
	}
	for _, s := range steps {
		if err := b.update(s.resources); err != nil {
			t.Fatalf("%s: %v", s.resources, err)
		}
		if got := b.domain(); got != s.domain {
			t.Errorf("%s: %s, want %s", s.resources, got, s.domain)
		}
		if r := d.guest().Resources(); !s.guest(r) {
			t.Errorf("%s: the agent was told %v", s.resources, r)
		}
	}
	b.end()
}

func TestUpdateOfCreatedAndStopped(t *testing.T) {
	d := newDaemon(t)
	b := d.bundled("c", false, spec("true"))
	b.create()
	if err := b.update(`{"pids":{"limit":5}}`); err != nil {
		t.Errorf("created: %v", err)
	}
	b.start()
	b.wait("")
	wantRefusal(t, b.update(`{"pids":{"limit":6}}`), "container c has ended, so it cannot be updated")
	b.delete("")
}

func TestUpdateRefused(t *testing.T) {
	d := newDaemon(t)
	b := d.limited()
	before := b.domain()
	for _, tt := range []struct{ url, resources, want string }{
		{"types.containerd.io/opencontainers/runtime-spec/1/WindowsResources", "{}", "update: resources of the type"},
		{"", "x", "update: the resources cannot be read"},
		{"", `{"cpu":{"realtimePeriod":1}}`, "linux.resources.cpu.realtimePeriod is not supported by X-Containers"},
	} {
		if err := b.updateOf(tt.url, tt.resources); !is(err, errdefs.ErrInvalidArgument) || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s %s: %v", tt.url, tt.resources, err)
		}
	}
	if after := b.domain(); after != before {
		t.Errorf("%s, before %s", after, before)
	}
	b.end()
}

// TestUpdateBeyondUse: processes are not killed for a limit that they are beyond.
func TestUpdateBeyondUse(t *testing.T) {
	d := newDaemon(t)
	b := d.limited()
	before := b.domain()
	d.guest().Answer(tasktest.Answers{Stats: func() *agentapi.ContainerStatsResponse {
		return &agentapi.ContainerStatsResponse{MemoryCurrent: 60 * mb, Memory: map[string]uint64{"inactive_file": 20 * mb}}
	}})
	wantRefusal(t, b.update(`{"memory":{"limit":33554432}}`),
		"container c uses 41943040 bytes of memory beside its file cache, more than the new limit of 33554432")
	if after := b.domain(); after != before || d.guest().Resources().MemoryMax != nil {
		t.Errorf("%s, before %s", after, before)
	}
	if err := b.update(`{"memory":{"limit":50331648}}`); err != nil {
		t.Errorf("48 MiB: %v", err)
	}
	b.end()
}

// TestUpdateUndoes fails an update at each of its steps: all is as before.
func TestUpdateUndoes(t *testing.T) {
	for _, resources := range []string{
		`{"memory":{"limit":134217728},"cpu":{"quota":150000},"pids":{"limit":9}}`,
		`{"memory":{"limit":33554432},"cpu":{"quota":150000},"pids":{"limit":9}}`,
	} {
		for _, step := range []string{"setschedule", "setmaxmemory", "SetSize", "Update"} {
			t.Run(step, func(t *testing.T) {
				d := newDaemon(t)
				b := d.limited()
				before := b.domain()
				var failed bool
				d.world.Fail = func(s string) error {
					if s != step || failed {
						return nil
					}
					failed = true
					return errors.New("no luck")
				}
				if err := b.update(resources); err == nil || !strings.HasSuffix(err.Error(), "no luck") {
					t.Errorf("got %v", err)
				}
				if after := b.domain(); after != before {
					t.Errorf("%s, before %s", after, before)
				}
				if r := d.guest().Resources(); r.MemoryMax != nil && (r.GetMemoryMax() != 64*mb || r.GetCpuQuotaUs() != 50000 || r.GetPidsMax() != -1) {
					t.Errorf("the agent was told %v", r)
				}
				if err := b.update(resources); err != nil {
					t.Errorf("once more: %v", err)
				}
				b.end()
			})
		}
	}
}

// TestUpdateOfLiars: what the guest says of its size is not believed.
func TestUpdateOfLiars(t *testing.T) {
	d := newDaemon(t)
	b := d.limited()
	lie := func(r *agentapi.SetSizeRequest) *agentapi.SetSizeResponse {
		return &agentapi.SetSizeResponse{MemoryBytes: r.MemoryBytes, Vcpus: r.Vcpus}
	}
	d.guest().Answer(tasktest.Answers{SetSize: lie})
	err := b.update(`{"memory":{"limit":33554432}}`)
	if !is(err, errdefs.ErrUnavailable) || !strings.HasPrefix(err.Error(), "the domain of container c has 109051904 bytes of memory after it was to have 75497472") {
		t.Errorf("shrink: %v", err)
	}
	d.guest().Answer(tasktest.Answers{SetSize: func(*agentapi.SetSizeRequest) *agentapi.SetSizeResponse {
		return &agentapi.SetSizeResponse{Vcpus: 1 << 31}
	}})
	err = b.update(`{"cpu":{"quota":-1}}`)
	if !is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "uses 2147483648 virtual CPUs, not 2") ||
		!strings.Contains(err.Error(), "not all limits are as before") {
		t.Errorf("vcpus: %v", err)
	}
	d.guest().Answer(tasktest.Answers{})
	b.end()
}

func TestUpdateOfDying(t *testing.T) {
	d := newDaemon(t)
	b := d.limited()
	d.world.Fail = func(s string) error {
		if s == "SetSize" {
			d.guest().Die(fmt.Errorf("%w: panic line", task.ErrGuestCrashed))
		}
		return nil
	}
	if err := b.update(`{"memory":{"limit":134217728}}`); err == nil || !strings.Contains(err.Error(), "domain of container c: guest crashed: panic line") {
		t.Errorf("got %v", err)
	}
	if got := b.wait(""); got != 255 {
		t.Errorf("status %d", got)
	}
	b.delete("")
}
