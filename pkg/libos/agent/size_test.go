// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeKernel plays the files of sysfs: processors, and a balloon driver that
// moves memory in pieces.
type fakeKernel struct {
	*size
	t *testing.T

	mu        sync.Mutex
	targets   []uint64 // KiB, in order
	available uint64   // bytes
	most      uint64   // KiB that the host gives
}

const mib = 1 << 20

func newKernel(t *testing.T, kib uint64, cpus ...string) *fakeKernel {
	dir := t.TempDir()
	k := &fakeKernel{t: t, available: 1 << 40, most: 1 << 40}
	k.size = &size{
		cpus: filepath.Join(dir, "cpu"), balloon: filepath.Join(dir, "balloon"), stall: 50 * time.Millisecond,
		available: func() (uint64, error) {
			k.mu.Lock()
			defer k.mu.Unlock()
			return k.available, nil
		},
	}
	for i, online := range cpus {
		cpu := filepath.Join(k.cpus, fmt.Sprintf("cpu%d", i))
		os.MkdirAll(cpu, 0o755)
		if online != "" {
			os.WriteFile(filepath.Join(cpu, "online"), []byte(online+"\n"), 0o644)
		}
	}
	os.MkdirAll(filepath.Join(k.cpus, "cpufreq"), 0o755)
	os.MkdirAll(filepath.Join(k.balloon, "info"), 0o755)
	k.put("info/current_kb", kib)
	k.put("target_kb", kib)
	k.put("max_schedule_delay", 32)
	stop, stopped := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(stop); <-stopped })
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				k.drive()
			}
		}
	}()
	return k
}

// put replaces a file at once: half a number is one too.
func (k *fakeKernel) put(name string, n uint64) {
	path := filepath.Join(k.balloon, name)
	os.WriteFile(path+".new", strconv.AppendUint(nil, n, 10), 0o644)
	os.Rename(path+".new", path)
}

func (k *fakeKernel) get(name string) uint64 {
	b, _ := os.ReadFile(filepath.Join(k.balloon, name))
	n, _ := strconv.ParseUint(string(b), 10, 64)
	return n
}

// drive goes half the way to the target.
func (k *fakeKernel) drive() {
	k.mu.Lock()
	defer k.mu.Unlock()
	now, target := k.get("info/current_kb"), k.get("target_kb")
	if target == 0 { // being written
		return
	}
	if len(k.targets) == 0 || k.targets[len(k.targets)-1] != target {
		k.targets = append(k.targets, target)
	}
	next := min((now+target)/2, k.most)
	if next == now {
		next = min(target, k.most)
	}
	if next < now {
		freed := (now - next) << 10
		if freed > k.available {
			k.t.Errorf("%d bytes taken of %d", freed, k.available)
		}
		k.available -= freed
	}
	k.put("info/current_kb", next)
}

func (k *fakeKernel) change(memory uint64, vcpus uint32) (uint64, uint32) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r, err := k.set(ctx, memory, vcpus)
	if err != nil {
		k.t.Fatal(err)
	}
	return r.GetMemoryBytes(), r.GetVcpus()
}

func TestSetProcessors(t *testing.T) {
	k := newKernel(t, 256<<10, "", "1", "0", "0")
	state := func() string {
		var b strings.Builder
		for _, n := range []string{"cpu1", "cpu2", "cpu3"} {
			s, _ := os.ReadFile(filepath.Join(k.cpus, n, "online"))
			b.WriteString(strings.TrimSpace(string(s)))
		}
		return b.String()
	}
	for _, c := range []struct {
		ask, have uint32
		state     string
	}{{0, 2, "100"}, {3, 3, "110"}, {1, 1, "000"}, {99, 4, "111"}, {2, 2, "100"}} {
		if _, n := k.change(0, c.ask); n != c.have || state() != c.state {
			t.Errorf("asked for %d: %d run, %s; want %d, %s", c.ask, n, state(), c.have, c.state)
		}
	}
	if len(k.targets) > 1 {
		t.Errorf("the memory was changed too: %v", k.targets)
	}
	os.Remove(filepath.Join(k.cpus, "cpu1", "online"))
	os.Mkdir(filepath.Join(k.cpus, "cpu1", "online"), 0o755)
	if _, err := k.set(t.Context(), 0, 4); err == nil || !strings.Contains(err.Error(), "processor 1") {
		t.Errorf("a processor that cannot be read: %v", err)
	}
}

func TestGrowInSteps(t *testing.T) {
	k := newKernel(t, 256<<10, "")
	if got, _ := k.change(1<<30+5, 0); got != 1<<30 {
		t.Errorf("grew to %d", got)
	}
	at := uint64(256 << 10)
	for _, next := range k.targets {
		if next > at+max(at/2, 64<<10) {
			t.Errorf("from %d to %d KiB in one step; all: %v", at, next, k.targets)
		}
		at = next
	}
	if k.get("max_schedule_delay") != 1 {
		t.Error("the driver still sleeps")
	}
}

// TestGrowthRefused: the host gives less; the driver is told to stop asking.
func TestGrowthRefused(t *testing.T) {
	k := newKernel(t, 256<<10, "")
	k.most = 300 << 10
	if got, _ := k.change(1<<30, 0); got != 300*mib {
		t.Errorf("grew to %d", got)
	}
	if at := k.get("target_kb"); at != 300<<10 {
		t.Errorf("the driver still wants %d KiB", at)
	}
}

// TestShrinkKeepsFree: a guest that needs its memory keeps it.
func TestShrinkKeepsFree(t *testing.T) {
	k := newKernel(t, 512<<10, "")
	k.available = 108 * mib
	if got, _ := k.change(128*mib, 0); got != 412*mib {
		t.Errorf("shrank to %d MiB", got/mib)
	}
	if at := k.get("target_kb"); at != 412<<10 {
		t.Errorf("the driver still wants %d KiB", at)
	}
	// And no more once there is nothing to give.
	if got, _ := k.change(128*mib, 0); got != 412*mib {
		t.Errorf("shrank to %d MiB", got/mib)
	}
	k.mu.Lock()
	k.available = 1 << 30
	k.mu.Unlock()
	if got, _ := k.change(128*mib, 0); got != 128*mib {
		t.Errorf("shrank to %d MiB", got/mib)
	}
}

func TestSizeEndsWithContext(t *testing.T) {
	k := newKernel(t, 256<<10, "")
	k.most, k.stall = 256<<10, time.Hour
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	r, err := k.set(ctx, 1<<30, 0)
	if err != nil || r.GetMemoryBytes() != 256*mib {
		t.Errorf("%v, %v", r, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !slices.Contains(k.targets, 384<<10) || k.get("target_kb") != 256<<10 {
		t.Errorf("targets %v, now %d", k.targets, k.get("target_kb"))
	}
}
