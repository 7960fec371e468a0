// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

func (s service) WaitOOM(ctx context.Context, r *agentapi.WaitOOMRequest) (*agentapi.WaitOOMResponse, error) {
	c, err := s.agent.find(r.GetId())
	if err != nil {
		return nil, err
	}
	p, err := c.process("")
	if err != nil {
		return nil, err
	}
	n, err := c.cgroup.oom.wait(ctx, p.done, r.GetKnown())
	if err != nil {
		return nil, err
	}
	if n > r.GetKnown() {
		s.agent.explainOOM(c)
	}
	return &agentapi.WaitOOMResponse{OomKills: n}, nil
}

// explainOOM tells once per container when it was not the container's limit that
// was met but the end of what the domain has.
func (a *Agent) explainOOM(c *container) {
	if a.cfg.Log == nil || c.cgroup.table("memory.events")["oom"] != 0 {
		return
	}
	c.oomExplained.Do(func() {
		a.cfg.Log(fmt.Errorf("container %q: processes were killed because the memory of the whole domain was used up, not the container's limit", c.id))
	})
}

// oomCounter counts the processes that the kernel has killed in a cgroup, and
// in those below it, for want of memory. The kernel counts one before it sends
// the signal, whichever limit was met.
type oomCounter struct {
	name string // of memory.events

	mu    sync.Mutex
	file  *os.File // memory.events; nil where there is none, or no longer
	kills uint64   // as last seen
}

// open begins to count in the cgroup at path. Without the memory controller
// nothing is ever counted.
func (o *oomCounter) open(path string) {
	o.name = filepath.Join(path, "memory.events")
	o.file, _ = os.Open(o.name)
}

func (o *oomCounter) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.file != nil {
		o.file.Close()
		o.file = nil
	}
}

// count is the number until now. It does not block.
func (o *oomCounter) count() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.file == nil {
		return o.kills
	}
	raw, err := o.file.SyscallConn()
	if err != nil {
		return o.kills
	}
	_ = raw.Control(func(fd uintptr) {
		if n, err := readCounter(int(fd), "oom_kill"); err == nil {
			o.kills = n
		}
	})
	return o.kills
}

// wait returns as soon as the number is above known, and when ended is closed
// the larger of the two. Its errors have a status.
func (o *oomCounter) wait(ctx context.Context, ended <-chan struct{}, known uint64) (uint64, error) {
	err := awaitCounter(ctx, ended, o.name, "oom_kill", known)
	if ctx.Err() != nil {
		return 0, status.FromContextError(ctx.Err()).Err()
	}
	if err != nil {
		return 0, status.Errorf(codes.Internal, "watch for the end of memory: %v", err)
	}
	return max(o.count(), known), nil
}

// awaitCounter returns when the counter key in a cgroup's file is above known,
// when ctx ends or when ended is closed. A file that does not exist counts
// nothing.
//
// The kernel wakes pollers of such a file when it changes (kernfs_notify), so
// the Go poller waits for it: no thread, and none of inotify's instances, which
// a container could use up.
func awaitCounter(ctx context.Context, ended <-chan struct{}, file, key string, known uint64) error {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		select {
		case <-ctx.Done():
		case <-ended:
		}
		return nil
	} else if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), file)
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if err := f.SetReadDeadline(time.Time{}); err != nil {
		return err // the poller does not take it
	}
	returned := make(chan struct{})
	defer close(returned)
	go func() {
		select {
		case <-ctx.Done():
		case <-ended:
		case <-returned:
		}
		_ = f.SetReadDeadline(time.Unix(1, 0)) // an error means that the wait is over
	}()
	var readErr error
	err = raw.Read(func(fd uintptr) bool {
		n, err := readCounter(int(fd), key)
		readErr = err
		return err != nil || n > known
	})
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(readErr, unix.ENODEV) {
		return nil // over, or the cgroup has gone
	}
	return errors.Join(err, readErr)
}

// readCounter reads one number of a cgroup's file, from its beginning.
func readCounter(fd int, key string) (uint64, error) {
	var b [1024]byte
	for {
		n, err := unix.Pread(fd, b[:], 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, err
		}
		return parseTable(string(b[:n]))[key], nil
	}
}
