// SPDX-License-Identifier: Apache-2.0

package orphans

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/libos"
	shimholder "github.com/xcontainer/xcontainer/pkg/shim/holder"
	"github.com/xcontainer/xcontainer/pkg/shim/record"
)

// role is what a process of ours does.
type role int

const (
	other   role = iota // none of ours, or one that ends by itself
	maker               // a shim that serves, or xcontainerctl: has children
	backend             // a device back-end
	holder
)

// Programs of ours, by the names of their files, and the arguments that make
// them something else than a maker.
var (
	programs = map[string]bool{"containerd-shim-xcontainer-v2": true, "xcontainerctl": true}
	roles    = map[string]role{libos.BackendRole: backend, shimholder.Role: holder}
)

// process is one process of ours.
type process struct {
	record.Process
	parent int
	role   role
	// bundle is a maker's working directory; lost is when it was removed, zero
	// while it exists.
	bundle string
	lost   time.Time
}

// processes lists our processes. One that ends meanwhile is left out.
func processes() ([]process, error) {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var all []process
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		if p, ok := look(pid); ok {
			all = append(all, p)
		}
	}
	return all, nil
}

// look describes the process pid if it is one of ours.
func look(pid int) (p process, ok bool) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	exe, err := os.Readlink(filepath.Join(dir, "exe"))
	if err != nil || !programs[filepath.Base(strings.TrimSuffix(exe, deleted))] {
		return p, false
	}
	before, err := record.Of(pid)
	if err != nil {
		return p, false
	}
	p = process{Process: before}
	cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil {
		return p, false
	}
	p.role = roleOf(strings.Split(string(cmdline), "\x00"))
	if p.parent, err = parentOf(dir); err != nil {
		return p, false
	}
	p.bundle, p.lost = workingDir(dir)
	// What was read is one process's if that still has the pid.
	return p, p.Alive()
}

func roleOf(args []string) role {
	if len(args) > 1 {
		if r, ok := roles[args[1]]; ok {
			return r
		}
	}
	return maker
}

// deleted is what the kernel adds to the path of a file that is gone.
const deleted = " (deleted)"

// workingDir tells where a process is, and since when that place is gone. The
// kernel keeps the directory's inode, whose change was the removal.
func workingDir(dir string) (path string, lost time.Time) {
	link := filepath.Join(dir, "cwd")
	path, err := os.Readlink(link)
	if err != nil || !strings.HasSuffix(path, deleted) {
		return path, lost
	}
	var st unix.Stat_t
	if err := unix.Stat(link, &st); err != nil || st.Nlink != 0 {
		return path, lost
	}
	return strings.TrimSuffix(path, deleted), time.Unix(st.Ctim.Unix())
}

func parentOf(dir string) (int, error) {
	data, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(data) {
		if rest, ok := bytes.CutPrefix(line, []byte("PPid:")); ok {
			return strconv.Atoi(string(bytes.TrimSpace(rest)))
		}
	}
	return 0, errors.New("no parent")
}
