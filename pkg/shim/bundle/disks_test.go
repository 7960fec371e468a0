// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"errors"
	"fmt"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestDisks(t *testing.T) {
	for v, want := range map[string]bool{"": false, "guest": false, "host": true} {
		s, err := Parse([]byte(fmt.Sprintf(`{"ociVersion":"1.0.2","root":{"path":"r"},"process":{"args":["a"],"cwd":"/"},"annotations":{%q:%q}}`, AnnotationDisks, v)), "/b", 2)
		if err != nil || s.HostMounts != want {
			t.Errorf("%q: %+v, %v", v, s, err)
		}
	}
	s := &Settings{}
	if err := s.disks(&specs.Spec{Annotations: map[string]string{AnnotationDisks: "both"}}); !errors.Is(err, ErrInvalid) {
		t.Errorf("error %v", err)
	}
}

func TestForDevices(t *testing.T) {
	for _, c := range []struct {
		name string
		l    Limits
		more uint64
	}{
		{"default", Limits{room: 256 << 20, vcpus: 1}, 3 << 20},
		{"limit", Limits{memory: 100 << 20, vcpus: 1}, 3 << 20},
		{"fixed", Limits{fixedMemory: 128 << 20, vcpus: 1}, 0},
	} {
		s := &Settings{Limits: c.l, Size: c.l.Size()}
		before := s.MemoryBytes
		s.ForDevices(3 << 20)
		if s.MemoryBytes != before+c.more {
			t.Errorf("%s: %d bytes, had %d", c.name, s.MemoryBytes, before)
		}
	}
	// A container that loses its limit keeps the room it has, and no more.
	l := Limits{memory: 512 << 20, vcpus: 1, devices: 1 << 20, room: 256 << 20}
	none := int64(-1)
	next, _, _, err := l.Apply(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &none}})
	if err != nil || next.Size().MemoryBytes != l.Size().MemoryBytes {
		t.Errorf("%d bytes, had %d, %v", next.Size().MemoryBytes, l.Size().MemoryBytes, err)
	}
}
