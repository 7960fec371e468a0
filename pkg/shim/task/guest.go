// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/xcontainer/xcontainer/pkg/io/stdio"
	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
	"github.com/xcontainer/xcontainer/pkg/shim/bundle"
)

// Reasons for the end of a guest, for errors.Is on Guest.Death and on the error
// of Boot. Anything else counts as a crash.
var (
	// ErrGuestCrashed: the guest ended by itself: panic, triple fault, power off
	// without an exit message. Its container exits with status 255.
	ErrGuestCrashed = errors.New("guest crashed")
	// ErrGuestDestroyed: somebody else destroyed the domain. Its container exits
	// with status 137, as after SIGKILL.
	ErrGuestDestroyed = errors.New("domain was destroyed")
)

// Stream is the host end of one stdio stream (docs/agent.md, section 3).
// CloseWrite is the end of input for the process that reads it.
type Stream = stdio.Stream

// Guest is all that a container asks of its domain. All methods may be called
// at the same time, and after the guest's end, when they fail at once.
type Guest interface {
	// Agent returns the client of the agent in the domain. Its calls fail when
	// the guest ends.
	Agent() agentapi.AgentService
	// Stream opens a new stdio stream. The number names it in
	// agentapi.Streams. The caller owns the stream.
	Stream(ctx context.Context) (number uint64, stream Stream, err error)
	// AddExport makes the directory or regular file that f (an O_PATH
	// descriptor) stands for visible in the domain under name, a relative path
	// whose components are containerd identifiers. The guest may cache names
	// and attributes for ttl. f stays the caller's, who closes it.
	AddExport(ctx context.Context, name string, f *os.File, readOnly bool, ttl time.Duration) error
	// RemoveExport takes an export back. Open files of the guest on it fail
	// from then on.
	RemoveExport(ctx context.Context, name string) error
	// Pause stops the domain: nothing in it runs, and calls of the agent wait
	// until Resume. Pausing a paused domain, or resuming a running one, is no
	// error: it is the container that counts.
	Pause(ctx context.Context) error
	// Resume lets a paused domain go on.
	Resume(ctx context.Context) error
	// SetMaxMemory sets how much memory the domain may have, in bytes, a
	// multiple of 4096. It neither gives nor takes any: Agent().SetSize does.
	SetMaxMemory(ctx context.Context, bytes uint64) error
	// SetSchedule sets the scheduler's weight and cap: credit2, 0 = Xen's default
	// and none; the cap is in percent of one physical CPU. A new guest has none.
	SetSchedule(ctx context.Context, weight, cap uint16) error
	// Usage asks hypervisor and back-end, not the guest: it answers for a
	// paused domain too.
	Usage(ctx context.Context) (Usage, error)
	// Dead is closed when the domain or its back-end has gone without Close.
	Dead() <-chan struct{}
	// Death says why, with the last lines of the console where they explain
	// it; nil before Dead is closed.
	Death() error
	// Close destroys the domain and its back-end and waits until they have
	// gone. It does not sync. It may be called twice.
	Close(ctx context.Context) error
}

// Usage is what a domain takes of its host.
type Usage struct {
	CPUTime        time.Duration // of all virtual CPUs together, since the boot
	MemoryBytes    uint64        // what the domain holds
	MaxMemoryBytes uint64        // what it may hold
	VCPUs          uint32        // online
	IO             IO
}

// IO counts what a domain's back-end has done for its files since the boot.
type IO struct {
	ReadBytes, WriteBytes uint64
	ReadOps, WriteOps     uint64
}

// BootConfig describes a domain to boot. All fields but Disks are set.
type BootConfig struct {
	ID        string   // the container's
	Namespace string   // containerd's
	Bundle    string   // absolute path
	UUID      [16]byte // the domain's handle

	MemoryBytes uint64 // whole domain, a multiple of 4096
	VCPUs       uint32 // in use from the start
	MaxVCPUs    uint32 // that Agent().SetSize can have in use; at least VCPUs
	Weight      uint16 // credit2; 0 = Xen's default
	XLibOS      bundle.XLibOS

	Disks []Disk // in the order of their numbers in the guest

	Share      string // directory of the library OS's kernels and initramfs
	ConsoleLog string // file that gets the guest's console, created by Boot

	// Record is called as soon as the domain exists, before memory goes into
	// it. An error of it ends Boot, which then destroys the domain.
	Record func(domid uint16) error
	// RecordBackend is called as soon as the back-end process exists.
	RecordBackend func(pid int) error
	// Step is told how long each step of Boot took, in order.
	Step func(name string, d time.Duration)
}

// Boot builds and starts a domain and answers when its agent has said hello.
// After an error nothing is left of the domain.
type Boot func(ctx context.Context, c BootConfig) (Guest, error)
