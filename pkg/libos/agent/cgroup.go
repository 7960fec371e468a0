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
	"time"

	"golang.org/x/sys/unix"
)

// cgroup is the cgroup v2 of one container.
type cgroup struct {
	path string
	dir  *os.File // for CLONE_INTO_CGROUP
}

// removeTries and removePause bound how long a cgroup whose last process has
// just been reaped may stay busy.
const (
	removeTries = 100
	removePause = 5 * time.Millisecond
)

// enableControllers lets the cgroups below root have limits.
func enableControllers(root string, names []string) error {
	for _, name := range names {
		file := filepath.Join(root, "cgroup.subtree_control")
		if err := os.WriteFile(file, []byte("+"+name), 0); err != nil {
			return fmt.Errorf("enable cgroup controller %s: %w", name, err)
		}
	}
	return nil
}

// newCgroup makes a container's cgroup below root with its limits: bytes of
// memory and a number of processes, 0 for none.
func newCgroup(root string, controllers []string, id string, memory uint64, pids int64) (*cgroup, error) {
	c := &cgroup{path: filepath.Join(root, "container-"+id)}
	if err := os.Mkdir(c.path, 0o755); err != nil {
		return nil, fmt.Errorf("make cgroup: %w", err)
	}
	limits := []struct {
		controller, file, value string
		wanted                  bool
	}{
		{"memory", "memory.max", strconv.FormatUint(memory, 10), memory > 0},
		{"pids", "pids.max", strconv.FormatInt(pids, 10), pids > 0},
	}
	for _, l := range limits {
		if !l.wanted {
			continue
		}
		err := os.WriteFile(filepath.Join(c.path, l.file), []byte(l.value), 0)
		if !slices.Contains(controllers, l.controller) {
			err = errors.New("no such controller in this guest")
		}
		if err != nil {
			c.remove()
			return nil, fmt.Errorf("limit %s to %s: %w", l.file, l.value, err)
		}
	}
	dir, err := os.Open(c.path)
	if err != nil {
		c.remove()
		return nil, fmt.Errorf("open cgroup: %w", err)
	}
	c.dir = dir
	return c, nil
}

// pids are the processes in the cgroup, in the agent's pid namespace.
func (c *cgroup) pids() ([]int, error) {
	b, err := os.ReadFile(filepath.Join(c.path, "cgroup.procs"))
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var list []int
	for field := range strings.FieldsSeq(string(b)) {
		// 0 stands for a process outside this pid namespace.
		if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
			list = append(list, pid)
		}
	}
	return list, nil
}

// signal sends a signal to every process in the cgroup. SIGKILL reaches also
// those that fork meanwhile.
func (c *cgroup) signal(sig unix.Signal) error {
	if sig == unix.SIGKILL {
		return os.WriteFile(filepath.Join(c.path, "cgroup.kill"), []byte("1"), 0)
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
