// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/xcontainer/xcontainer/pkg/libos/agent/stage"
	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// containersDir is the cgroup of all containers, below the guest's root. Its
// memory.max is what the guest can spare, so that a container without a limit of
// its own meets that before the kernel and the agent run short.
const containersDir = "containers"

// agentReserve is what the agent may grow by while containers use all that they
// can, in bytes.
const agentReserve = 4 << 20

// minContainers is the least that containers are given, in bytes: below it
// nothing starts, whatever is reserved.
const minContainers = 4 << 20

// The container's processes and the agent's threads count towards one limit of
// the kernel, threads-max, and the agent cannot go on without the threads that
// its runtime wants. So containers get fewer, and the limit is what memory has
// room for: the kernel's own, an eighth of memory in stacks, is low for a small
// guest. What threads take is part of the containers' memory.
const (
	threadsMaxFile = "/proc/sys/kernel/threads-max"
	threadBytes    = 32 << 10 // the least that a thread takes of the kernel's memory, about
	keptThreads    = 256      // for the kernel and the agent
	minThreads     = 256      // for containers
)

// cgroupTree is the place below which the containers' cgroups are made.
type cgroupTree struct {
	path        string
	controllers []string
	ownKernel   bool   // whose limit of threads may be set
	reserve     uint64 // bytes of the guest's memory that are not the containers'
}

// newCgroupTree makes the cgroup of all containers below the directory root,
// with the named controllers.
func newCgroupTree(root string, controllers []string, ownKernel bool) (*cgroupTree, error) {
	t := &cgroupTree{path: filepath.Join(root, containersDir), controllers: controllers, ownKernel: ownKernel}
	if err := enableControllers(root, controllers); err != nil {
		return nil, err
	}
	if err := os.Mkdir(t.path, 0o755); err != nil {
		return nil, fmt.Errorf("make the cgroup of the containers: %w", err)
	}
	if err := enableControllers(t.path, controllers); err != nil {
		return nil, err
	}
	m, err := readStats()
	if err != nil {
		return nil, err
	}
	t.reserve = m.GetMemoryTotal() - min(m.GetMemoryAvailable(), m.GetMemoryTotal()) + agentReserve
	return t, t.fit(m.GetMemoryTotal())
}

// fit gives the containers what a guest of total bytes (MemTotal) can spare.
// Less than they use makes the kernel reclaim, and kill if that is not enough.
func (t *cgroupTree) fit(total uint64) error {
	if slices.Contains(t.controllers, "memory") {
		n := max(total-min(t.reserve, total), minContainers)
		if err := stage.WriteFile(filepath.Join(t.path, "memory.max"), strconv.FormatUint(n, 10)); err != nil {
			return fmt.Errorf("limit the memory of all containers: %w", err)
		}
	}
	if !t.ownKernel || !slices.Contains(t.controllers, "pids") {
		return nil
	}
	n := max(total/threadBytes, minThreads)
	if err := stage.WriteFile(threadsMaxFile, strconv.FormatUint(n+keptThreads, 10)); err != nil {
		return fmt.Errorf("set the kernel's limit of threads: %w", err)
	}
	if err := stage.WriteFile(filepath.Join(t.path, "pids.max"), strconv.FormatUint(n, 10)); err != nil {
		return fmt.Errorf("limit the processes of all containers: %w", err)
	}
	return nil
}

// refit is fit for what the guest has now.
func (t *cgroupTree) refit() error {
	m, err := readStats()
	if err != nil {
		return err
	}
	return t.fit(m.GetMemoryTotal())
}

// enableControllers lets the cgroups below root have limits, in one write: the
// kernel goes over the whole tree for each.
func enableControllers(root string, names []string) error {
	if len(names) == 0 {
		return nil
	}
	if err := stage.WriteFile(filepath.Join(root, "cgroup.subtree_control"), "+"+strings.Join(names, " +")); err != nil {
		return fmt.Errorf("enable cgroup controllers %s: %w", strings.Join(names, ", "), err)
	}
	return nil
}

// cgroup is the cgroup v2 of one container.
type cgroup struct {
	path        string
	controllers []string
	dir         *os.File // for CLONE_INTO_CGROUP
	oom         oomCounter

	limits sync.Mutex // one change of limits at a time
}

// removeTries and removePause bound how long a cgroup whose last process has
// just been reaped may stay busy.
const (
	removeTries = 100
	removePause = 5 * time.Millisecond
)

// make makes a container's cgroup with its limits. Its errors have a status.
func (t *cgroupTree) make(id string, limits *agentapi.Resources) (*cgroup, error) {
	c := &cgroup{path: filepath.Join(t.path, id), controllers: t.controllers}
	if err := os.Mkdir(c.path, 0o755); err != nil {
		return nil, status.Errorf(codes.Internal, "make cgroup: %v", err)
	}
	err := c.set(limits)
	if err == nil {
		if c.dir, err = os.Open(c.path); err != nil {
			err = status.Errorf(codes.Internal, "open cgroup: %v", err)
		}
	}
	if err != nil {
		_ = c.remove() // the first error is the one that helps
		return nil, err
	}
	c.oom.open(c.path)
	return c, nil
}

// pids are the processes in the cgroup and in those that the container has made
// below it, by their numbers in the agent's pid namespace and in their order.
func (c *cgroup) pids() ([]int, error) {
	var list []int
	err := filepath.WalkDir(c.path, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil && path == c.path:
			return err
		case err != nil || !e.IsDir():
			return nil // gone meanwhile, or a file
		}
		b, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil && path == c.path {
			return err
		}
		// One below that cannot be read has gone, or is of threads, whose
		// processes are listed above it.
		for field := range strings.FieldsSeq(string(b)) {
			// 0 stands for a process outside this pid namespace.
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				list = append(list, pid)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// dirOf opens the cgroup that a process of the container is in. The caller owns
// the file.
func (c *cgroup) dirOf(pid int) (*os.File, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(b)) {
		// 0::/containers/ID/…, of which the part before ID depends on where
		// the agent's root is.
		name, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::")
		_, below, found := strings.Cut(name+"/", "/"+containersDir+"/"+filepath.Base(c.path)+"/")
		if ok && found && filepath.IsLocal("./"+below) {
			return os.Open(filepath.Join(c.path, below))
		}
	}
	return nil, fmt.Errorf("process %d is in no cgroup of the container", pid)
}

// signal sends a signal to every process in the cgroup. SIGKILL reaches also
// those that fork meanwhile.
func (c *cgroup) signal(sig unix.Signal) error {
	if sig == unix.SIGKILL {
		return stage.WriteFile(filepath.Join(c.path, "cgroup.kill"), "1")
	}
	pids, err := c.pids()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("signal process %d: %w", pid, err)
		}
	}
	return nil
}

// remove kills what is left in the cgroup and removes it, with the cgroups that
// the container has made below it.
func (c *cgroup) remove() error {
	if c.dir != nil {
		c.dir.Close()
		c.dir = nil
	}
	c.oom.close()
	_ = c.signal(unix.SIGKILL)
	var err error
	for range removeTries {
		if err = removeTree(c.path); err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		time.Sleep(removePause)
	}
	return fmt.Errorf("remove cgroup: %w", err)
}

// removeTree removes a directory of cgroups from the leaves up; their files go
// with them.
func removeTree(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(path, e.Name())); err != nil {
				return err
			}
		}
	}
	return unix.Rmdir(path)
}
