// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// created are the limits of a container with half a CPU and 64 MiB.
func created(t *testing.T) Limits {
	t.Helper()
	s, err := parse(t, func(s *specs.Spec) {
		quota, limit, pids := int64(50000), int64(64<<20), int64(100)
		s.Linux.Resources = &specs.LinuxResources{
			CPU:    &specs.LinuxCPU{Quota: &quota},
			Memory: &specs.LinuxMemory{Limit: &limit},
			Pids:   &specs.LinuxPids{Limit: &pids},
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.Limits.Size() != s.Size || s.VCPUs != 1 || s.MaxVCPUs != 4 {
		t.Fatalf("%+v", s)
	}
	return s.Limits
}

func TestUpdate(t *testing.T) {
	const mem = 64<<20 + OverheadBytes
	tests := []struct {
		name, json string
		tell       string
		size       Size
		ignored    int
	}{
		{"nothing", `{}`, `{}`, Size{mem, 1, 0, 50}, 0},
		{"memory", `{"memory":{"limit":134217728}}`, `{"memoryMax":"134217728"}`, Size{128<<20 + OverheadBytes, 1, 0, 50}, 0},
		{"no memory limit", `{"memory":{"limit":-1}}`, `{"memoryMax":"-1"}`, Size{DefaultMemoryBytes, 1, 0, 50}, 0},
		{"quota", `{"cpu":{"quota":250000}}`, `{"cpuQuotaUs":"250000"}`, Size{mem, 3, 0, 250}, 0},
		{"more than there is", `{"cpu":{"quota":900000}}`, `{"cpuQuotaUs":"900000"}`, Size{mem, 4, 0, 0}, 0},
		{"no quota", `{"cpu":{"quota":-1}}`, `{"cpuQuotaUs":"-1"}`, Size{mem, 4, 0, 0}, 0},
		{"period", `{"cpu":{"period":25000}}`, `{"cpuPeriodUs":"25000"}`, Size{mem, 2, 0, 0}, 0},
		{"shares", `{"cpu":{"shares":2048}}`, `{"cpuWeight":"174"}`, Size{mem, 1, 512, 50}, 0},
		{"shares back", `{"cpu":{"shares":1024}}`, `{"cpuWeight":"100"}`, Size{mem, 1, 0, 50}, 0},
		{"set of CPUs", `{"cpu":{"cpus":"0-1,7","quota":-1,"mems":"0"}}`, `{"cpuQuotaUs":"-1"}`, Size{mem, 3, 0, 0}, 1},
		{"pids", `{"pids":{"limit":7}}`, `{"pidsMax":"7"}`, Size{mem, 1, 0, 50}, 0},
		{"no pids limit", `{"pids":{"limit":-1}}`, `{"pidsMax":"-1"}`, Size{mem, 1, 0, 50}, 0},
		{"unified", `{"unified":{"memory.max":"134217728","cpu.max":"max 50000","pids.max":"max","memory.high":"1"}}`,
			`{"memoryMax":"134217728","cpuQuotaUs":"-1","cpuPeriodUs":"50000","pidsMax":"-1","unified":{"memory.high":"1"}}`,
			Size{128<<20 + OverheadBytes, 4, 0, 0}, 0},
		{"Docker", `{"memory":{"limit":0,"reservation":0,"swap":0,"kernel":0},"cpu":{"shares":0,"quota":0,"period":0,"realtimePeriod":0},
			"blockIO":{"weight":0},"devices":[{"allow":false,"access":"rwm"}]}`, `{}`, Size{mem, 1, 0, 50}, 0},
		{"Kubernetes", `{"memory":{"limit":67108864,"swap":67108864},"cpu":{"shares":2,"quota":20000,"period":100000},
			"hugepageLimits":[{"pageSize":"2MB","limit":0}]}`,
			`{"memoryMax":"67108864","cpuWeight":"1","cpuQuotaUs":"20000","cpuPeriodUs":"100000"}`, Size{mem, 1, 1, 20}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			old := created(t)
			r, err := ParseResources("types.containerd.io/opencontainers/runtime-spec/1/LinuxResources", []byte(tt.json))
			if err != nil {
				t.Fatal(err)
			}
			next, tell, ignored, err := old.Update(r)
			if err != nil {
				t.Fatal(err)
			}
			want := &agentapi.Resources{}
			if err := protojson.Unmarshal([]byte(tt.tell), want); err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(tell, want) || next.Size() != tt.size || len(ignored) != tt.ignored {
				t.Errorf("%v, %+v, %q", tell, next.Size(), ignored)
			}
			// What was told can be taken back.
			undo := old.Undo(tell)
			for name, set := range map[string][2]bool{
				"memory": {tell.MemoryMax != nil, undo.GetMemoryMax() == 64<<20},
				"quota":  {tell.CpuQuotaUs != nil, undo.GetCpuQuotaUs() == 50000 && undo.GetCpuPeriodUs() == 100000},
				"weight": {tell.CpuWeight != nil, undo.GetCpuWeight() == 100},
				"pids":   {tell.PidsMax != nil, undo.GetPidsMax() == 100},
			} {
				if set[0] && !set[1] {
					t.Errorf("undo of %s: %v", name, undo)
				}
			}
		})
	}
}

// TestFixedSize: what an annotation says of a domain no update changes.
func TestFixedSize(t *testing.T) {
	s, err := parse(t, func(s *specs.Spec) {
		s.Annotations = map[string]string{AnnotationMemory: "512M", AnnotationVCPUs: "6"}
	})
	if err != nil {
		t.Fatal(err)
	}
	limit, quota := int64(1<<30), int64(100000)
	next, tell, _, err := s.Limits.Update(&specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &limit}, CPU: &specs.LinuxCPU{Quota: &quota, Cpus: "0"},
	})
	if want := (Size{512 << 20, 6, 0, 100}); err != nil || next.Size() != want || tell.GetMemoryMax() != limit {
		t.Errorf("%+v, %v, %v", next.Size(), tell, err)
	}
}

// TestRoomOfTheUnlimited: a container that loses a large limit keeps its room.
func TestRoomOfTheUnlimited(t *testing.T) {
	limit := func(n int64) *specs.LinuxResources {
		return &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &n}}
	}
	l := created(t)
	for _, tt := range []struct {
		limit int64
		want  uint64
	}{{1 << 30, 1<<30 + OverheadBytes}, {-1, 1<<30 + OverheadBytes}, {64 << 20, 64<<20 + OverheadBytes}, {-1, 1<<30 + OverheadBytes}} {
		next, _, _, err := l.Update(limit(tt.limit))
		if err != nil || next.Size().MemoryBytes != tt.want {
			t.Errorf("%d: %+v, %v", tt.limit, next.Size(), err)
		}
		l = next
	}
}

func TestUpdateRefusals(t *testing.T) {
	tests := []struct {
		kind, json string
		is         error
		want       string
	}{
		{"WindowsResources", `{}`, ErrInvalid, `update: resources of the type "types.containerd.io/opencontainers/runtime-spec/1/WindowsResources"; an X-Container takes LinuxResources`},
		{"", `{"cpu":`, ErrInvalid, "update: the resources cannot be read (unexpected EOF)"},
		{"", `{"future":1}`, ErrInvalid, `update: the resources cannot be read (json: unknown field "future")`},
		{"", `{"memory":{"limit":4611686018427387904}}`, ErrInvalid, "update: memory limit 4611686018427387904 is more than 549713870848, which is what a domain can have"},
		{"", `{"memory":{"disableOOMKiller":true}}`, ErrUnsupported, "linux.resources.memory.disableOOMKiller is not supported by X-Containers"},
		{"", `{"blockIO":{"weight":10}}`, ErrUnsupported, "linux.resources.blockIO is not supported by X-Containers"},
		{"", `{"network":{"classID":1}}`, ErrUnsupported, "linux.resources.network is not supported by X-Containers"},
		{"", `{"rdma":{"x":{}}}`, ErrUnsupported, "linux.resources.rdma is not supported by X-Containers"},
		{"", `{"cpu":{"realtimeRuntime":1}}`, ErrUnsupported, "linux.resources.cpu.realtimeRuntime is not supported by X-Containers"},
		{"", `{"cpu":{"period":1}}`, ErrInvalid, "update: CPU period 1 µs is not between 1000 and 1000000"},
		{"", `{"cpu":{"quota":1}}`, ErrInvalid, "update: CPU quota 1 µs is not between 1000 and 8796093022208"},
		{"", `{"cpu":{"cpus":"3-1"}}`, ErrInvalid, `update: set of CPUs "3-1" is not a list like 0-2,4`},
		{"", `{"unified":{"../../x":"1"}}`, ErrInvalid, `update: unified: "../../x" is not a file of a cgroup v2 controller`},
		{"", `{"unified":{"cgroup.procs":"1"}}`, ErrInvalid, `update: unified: "cgroup.procs" is not a file of a cgroup v2 controller`},
		{"", `{"unified":{"cpu.max":"1 2 3"}}`, ErrInvalid, `update: unified: "1 2 3" is not a value for cpu.max`},
	}
	for _, tt := range tests {
		url := ""
		if tt.kind != "" {
			url = "types.containerd.io/opencontainers/runtime-spec/1/" + tt.kind
		}
		r, err := ParseResources(url, []byte(tt.json))
		if err == nil {
			_, _, _, err = created(t).Update(r)
		}
		if !errors.Is(err, tt.is) || err.Error() != tt.want {
			t.Errorf("%s%s: %v", tt.kind, tt.json, err)
		}
	}
}

func FuzzUpdate(f *testing.F) {
	f.Add(`{"memory":{"limit":134217728},"cpu":{"shares":3,"quota":250000,"period":1000,"cpus":"0-3"},"pids":{"limit":7}}`)
	f.Add(`{"unified":{"memory.max":"1","cpu.max":"max 50000","a.b":"c"}}`)
	f.Fuzz(func(t *testing.T, data string) {
		r, err := ParseResources("", []byte(data))
		if err != nil {
			return
		}
		l := Limits{room: DefaultMemoryBytes, vcpus: 4}
		next, tell, _, err := l.Update(r)
		if err != nil {
			return
		}
		if s := next.Size(); s.VCPUs < 1 || s.VCPUs > 4 || s.MemoryBytes < minMemoryBytes || s.MemoryBytes%4096 != 0 || uint32(s.Cap) > 100*s.VCPUs {
			t.Errorf("%+v", s)
		}
		for name := range tell.Unified {
			if strings.ContainsRune(name, '/') {
				t.Errorf("file %q", name)
			}
		}
		if _, err := json.Marshal(next.Undo(tell)); err != nil {
			t.Error(err)
		}
	})
}
