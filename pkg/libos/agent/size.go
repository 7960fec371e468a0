// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

const (
	// keepFree is memory that a guest keeps available to itself when it gives
	// some back: with less it would kill processes instead of being slow.
	keepFree = 8 << 20 // bytes
	// leastGrowth is the smallest step in which memory is asked for. Bigger
	// guests take bigger steps; each needs two hundredths of its size for its
	// own tables, from memory that the guest has already.
	leastGrowth = 64 << 20 // bytes
	// sizePoll is how often the balloon driver is looked at.
	sizePoll = 10 * time.Millisecond
	// sizeStall is how long the driver may make no headway. It tries again
	// once a second.
	sizeStall = 5 * time.Second
)

// SetSize changes the guest's memory and processors. It answers with what there
// is when it is done, which is less than what was asked for if the guest needs
// its memory or the host gives no more.
func (s service) SetSize(ctx context.Context, r *agentapi.SetSizeRequest) (*agentapi.SetSizeResponse, error) {
	resp, err := guestSize.set(ctx, r.GetMemoryBytes(), r.GetVcpus())
	if r.GetMemoryBytes() != 0 {
		// Half of a change counts too.
		err = errors.Join(err, s.agent.cgroups.refit())
	}
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return resp, nil
}

// guestSize is the size of this guest.
var guestSize = size{
	cpus:    "/sys/devices/system/cpu",
	balloon: "/sys/devices/system/xen_memory/xen_memory0",
	available: func() (uint64, error) {
		s, err := readStats()
		return s.GetMemoryAvailable(), err
	},
	stall: sizeStall,
}

// size is where the kernel lets processors and memory be changed.
type size struct {
	cpus      string // folder of cpu0, cpu1, …
	balloon   string // folder of the balloon driver
	available func() (uint64, error)
	stall     time.Duration

	mu sync.Mutex // one change at a time
}

// set changes what is not 0.
func (s *size) set(ctx context.Context, memory uint64, vcpus uint32) (*agentapi.SetSizeResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if vcpus != 0 {
		if err := s.setCPUs(int(vcpus)); err != nil {
			return nil, err
		}
	}
	if memory != 0 {
		if err := s.setMemory(ctx, memory&^4095); err != nil {
			return nil, err
		}
	}
	now, err := s.memory()
	if err != nil {
		return nil, err
	}
	online, _, err := s.listCPUs()
	if err != nil {
		return nil, err
	}
	return &agentapi.SetSizeResponse{MemoryBytes: now, Vcpus: uint32(len(online))}, nil
}

// setCPUs makes n processors run, or as many as there are. The first always runs.
func (s *size) setCPUs(n int) error {
	online, offline, err := s.listCPUs()
	if err != nil {
		return err
	}
	for ; len(online) < n && len(offline) > 0; offline = offline[1:] {
		if err := s.switchCPU(offline[0], "1"); err != nil {
			return fmt.Errorf("start processor %d: %w", offline[0], err)
		}
		online = append(online, offline[0])
	}
	slices.Sort(online)
	for ; len(online) > max(n, 1); online = online[:len(online)-1] {
		last := online[len(online)-1]
		if err := s.switchCPU(last, "0"); err != nil {
			return fmt.Errorf("stop processor %d: %w", last, err)
		}
	}
	return nil
}

func (s *size) switchCPU(n int, state string) error {
	return os.WriteFile(filepath.Join(s.cpus, fmt.Sprintf("cpu%d", n), "online"), []byte(state), 0)
}

// listCPUs gives the numbers of all processors, in rising order. One that cannot
// be stopped has no file that says so.
func (s *size) listCPUs() (online, offline []int, err error) {
	entries, err := os.ReadDir(s.cpus)
	if err != nil {
		return nil, nil, fmt.Errorf("list processors: %w", err)
	}
	for _, e := range entries {
		digits, isCPU := strings.CutPrefix(e.Name(), "cpu")
		n, err := strconv.Atoi(digits)
		if !isCPU || err != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join(s.cpus, e.Name(), "online"))
		switch {
		case errors.Is(err, os.ErrNotExist) || err == nil && strings.TrimSpace(string(b)) == "1":
			online = append(online, n)
		case err != nil:
			return nil, nil, fmt.Errorf("look at processor %d: %w", n, err)
		default:
			offline = append(offline, n)
		}
	}
	slices.Sort(online)
	slices.Sort(offline)
	return online, offline, nil
}

// setMemory goes to want bytes, or as far as it gets, in steps that the guest can
// afford. Afterwards the driver wants no more than what there is.
func (s *size) setMemory(ctx context.Context, want uint64) error {
	// The driver must not sleep longer and longer between its tries.
	if err := os.WriteFile(filepath.Join(s.balloon, "max_schedule_delay"), []byte("1"), 0); err != nil {
		return fmt.Errorf("prepare to change the memory: %w", err)
	}
	err := s.moveMemory(ctx, want)
	now, readErr := s.memory()
	if readErr == nil && now != want {
		readErr = s.aim(now)
	}
	return errors.Join(err, readErr)
}

func (s *size) moveMemory(ctx context.Context, want uint64) error {
	for progress := time.Now(); time.Since(progress) < s.stall; {
		now, err := s.memory()
		if err != nil || now == want {
			return err
		}
		next, err := s.nextStep(now, want)
		if err != nil {
			return err
		}
		if next != now {
			if err := s.aim(next); err != nil {
				return err
			}
		}
		// The caller hears how far it has come.
		if !s.await(ctx, now, next) {
			return nil
		}
		after, err := s.memory()
		if err != nil {
			return err
		}
		if after != now {
			progress = time.Now()
		}
	}
	return nil
}

// nextStep is where to go from now, in bytes.
func (s *size) nextStep(now, want uint64) (uint64, error) {
	if want > now {
		return min(want, now+max(leastGrowth, now/2&^4095)), nil
	}
	available, err := s.available()
	if err != nil {
		return 0, err
	}
	spare := available - min(available, keepFree)
	return now - min(now-want, spare&^4095), nil
}

// await waits until the guest has gone from one size to the next, for a second at
// most. It is false when ctx has ended.
func (s *size) await(ctx context.Context, from, to uint64) bool {
	tick := time.NewTicker(sizePoll)
	defer tick.Stop()
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
		if now, err := s.memory(); err != nil || from != to && now == to {
			break
		}
	}
	return true
}

// memory is what the guest has, in bytes.
func (s *size) memory() (uint64, error) {
	b, err := os.ReadFile(filepath.Join(s.balloon, "info", "current_kb"))
	if err != nil {
		return 0, fmt.Errorf("read the guest's memory: %w", err)
	}
	kib, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 53)
	if err != nil {
		return 0, fmt.Errorf("read the guest's memory: %w", err)
	}
	return kib << 10, nil
}

// aim tells the driver how much memory the guest is to have.
func (s *size) aim(bytes uint64) error {
	target := strconv.AppendUint(nil, bytes>>10, 10)
	if err := os.WriteFile(filepath.Join(s.balloon, "target_kb"), target, 0); err != nil {
		return fmt.Errorf("change the guest's memory: %w", err)
	}
	return nil
}
