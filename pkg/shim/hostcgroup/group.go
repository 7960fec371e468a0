// SPDX-License-Identifier: Apache-2.0

package hostcgroup

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/shim/refusal"
)

// Root is where the hierarchies are mounted.
const Root = "/sys/fs/cgroup"

// hierarchy is one version's way to have a cgroup.
type hierarchy interface {
	// procs counts the processes in the cgroup; one that does not exist has none.
	procs() (int, error)
	// create makes the cgroup, or takes one that exists.
	create() error
	// open returns the folder for clone3(2), nil if processes come by add.
	open() (*os.File, error)
	add(pid int) error
	update(*specs.LinuxResources) error
	// folders are where the cgroup is, once for each hierarchy.
	folders() ([]string, error)
}

// Group is the cgroup of one container.
type Group struct {
	path string
	h    hierarchy
}

// At is the cgroup path, which Path gave, whether it exists or not.
func At(path string) (*Group, error) {
	switch cgroups.Mode() {
	case cgroups.Unified:
		return &Group{path, &v2{root: Root, path: path}}, nil
	case cgroups.Hybrid, cgroups.Legacy:
		return &Group{path, &v1{path: path}}, nil
	default:
		return nil, refusal.New(ErrUnavailable, fmt.Sprintf("no cgroup hierarchy is mounted at %s; mount cgroup2 there", Root))
	}
}

// Make makes the cgroup, with what is missing above it. An empty one that exists
// is taken over, since a crashed host or runtime may have left it; one with
// processes is refused.
func (g *Group) Make() error {
	n, err := g.h.procs()
	if err != nil {
		return fmt.Errorf("cgroup %s: %w", g.path, err)
	}
	if n > 0 {
		return refusal.New(ErrInUse, fmt.Sprintf("the cgroup %s has processes already; give the container another cgroupsPath", g.path))
	}
	err = g.h.create()
	if errors.Is(err, errHandedOn) {
		return refusal.New(ErrInUse, fmt.Sprintf("the cgroup %s is for the cgroups in it and takes no process; give the container another cgroupsPath", g.path))
	}
	if errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EROFS) {
		return refusal.New(ErrUnavailable, fmt.Sprintf("the cgroup %s cannot be made (%v)", g.path, err))
	}
	if err != nil {
		return fmt.Errorf("make cgroup %s: %w", g.path, err)
	}
	return nil
}

// Folders are where the cgroup is in the file system, for Remove, whether it
// exists or not.
func (g *Group) Folders() ([]string, error) {
	list, err := g.h.folders()
	if err != nil {
		return nil, fmt.Errorf("cgroup %s: %w", g.path, err)
	}
	return list, nil
}

// Path below the root of each hierarchy.
func (g *Group) Path() string { return g.path }

// Open returns the cgroup's folder for a process to be started in it, nil if
// this host can only have it moved there (Add). The caller closes it.
func (g *Group) Open() (*os.File, error) {
	f, err := g.h.open()
	if err != nil {
		return nil, fmt.Errorf("cgroup %s: %w", g.path, err)
	}
	return f, nil
}

// Add moves a process here.
func (g *Group) Add(pid int) error {
	if err := g.h.add(pid); err != nil {
		return fmt.Errorf("move process %d to cgroup %s: %w", pid, g.path, err)
	}
	return nil
}

// Update sets the limits that r names; the others stay.
func (g *Group) Update(r *specs.LinuxResources) error {
	if r == nil {
		return nil
	}
	if err := g.h.update(raise(r)); err != nil {
		return fmt.Errorf("limits of cgroup %s: %w", g.path, err)
	}
	return nil
}

// Delete removes the cgroup with whatever empty ones are in it. It may be called
// twice.
func (g *Group) Delete() error {
	list, err := g.Folders()
	if err != nil {
		return err
	}
	return Remove(list)
}

// v2 is the unified hierarchy.
type v2 struct {
	root, path string
	m          *cgroup2.Manager
}

func (v *v2) file(name string) string { return filepath.Join(v.root, v.path, name) }

func (v *v2) has(name string) bool {
	_, err := os.Lstat(v.file(name))
	return err == nil
}

func (v *v2) load() error {
	if v.m != nil {
		return nil
	}
	var err error
	v.m, err = cgroup2.Load(v.path, cgroup2.WithMountpoint(v.root))
	return err
}

func (v *v2) procs() (int, error) {
	if err := v.load(); err != nil {
		return 0, err
	}
	list, err := v.m.Procs(false)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	return len(list), err
}

// errHandedOn: a cgroup that has handed its controllers on to cgroups below can
// have no process.
var errHandedOn = errors.New("its controllers are handed on")

func (v *v2) create() error {
	if data, err := os.ReadFile(v.file("cgroup.subtree_control")); err == nil && len(bytes.TrimSpace(data)) > 0 {
		return errHandedOn
	}
	m, err := cgroup2.NewManager(v.root, v.path, &cgroup2.Resources{})
	if err != nil {
		return err
	}
	v.m = m
	// One by one, and without complaint: a controller that is absent, or that a
	// parent with processes does not pass on, takes only its own limits away.
	for _, c := range []string{"cpuset", "cpu", "io", "memory", "hugetlb", "pids"} {
		_ = m.ToggleControllers([]string{c}, cgroup2.Enable)
	}
	return nil
}

func (v *v2) open() (*os.File, error) { return os.Open(v.file("")) }

func (v *v2) add(pid int) error { return v.m.AddProc(uint64(pid)) }

func (v *v2) update(r *specs.LinuxResources) error { return v.m.Update(toV2(r, v.has)) }

func (v *v2) folders() ([]string, error) { return []string{v.file("")}, nil }

// v1 is one hierarchy for each controller.
type v1 struct {
	path string
	cg   cgroup1.Cgroup
}

func (v *v1) load() (cgroup1.Cgroup, error) {
	if v.cg != nil {
		return v.cg, nil
	}
	return cgroup1.Load(cgroup1.StaticPath(v.path))
}

func (v *v1) procs() (int, error) {
	cg, err := v.load()
	if errors.Is(err, cgroup1.ErrCgroupDeleted) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n := 0
	for _, s := range cg.Subsystems() {
		list, err := cg.Processes(s.Name(), false)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, err
		}
		n += len(list)
	}
	return n, nil
}

func (v *v1) create() (err error) {
	v.cg, err = cgroup1.New(cgroup1.StaticPath(v.path), &specs.LinuxResources{})
	if err == nil {
		return nil
	}
	// Some of the hierarchies may have it already.
	if list, lerr := v.folders(); lerr == nil {
		_ = Remove(list)
	}
	return err
}

func (v *v1) open() (*os.File, error) { return nil, nil }

func (v *v1) add(pid int) error { return v.cg.AddProc(uint64(pid)) }

func (v *v1) update(r *specs.LinuxResources) error {
	for _, r := range v1Steps(r, v.memsw()) {
		if err := v.cg.Update(r); err != nil {
			return err
		}
	}
	return nil
}

// memsw is the limit of memory and swap together, 0 if the kernel does not count
// that.
func (v *v1) memsw() int64 {
	for _, s := range v.cg.Subsystems() {
		p, ok := s.(interface{ Path(string) string })
		if !ok || s.Name() != cgroup1.Memory {
			continue
		}
		data, err := os.ReadFile(filepath.Join(p.Path(v.path), "memory.memsw.limit_in_bytes"))
		if err != nil {
			return 0
		}
		return parseLimit(string(data))
	}
	return 0
}

func (v *v1) folders() ([]string, error) {
	all, err := cgroup1.Default()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, s := range all {
		if p, ok := s.(interface{ Path(string) string }); ok {
			out = append(out, p.Path(v.path))
		}
	}
	return out, nil
}
