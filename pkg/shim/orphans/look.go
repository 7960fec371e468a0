// SPDX-License-Identifier: Apache-2.0

package orphans

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/shim/bootstrap"
	"github.com/xcontainer/xcontainer/pkg/shim/hostcgroup"
	"github.com/xcontainer/xcontainer/pkg/shim/record"
	"github.com/xcontainer/xcontainer/pkg/xen"
)

const (
	// lostGrace is how long a shim may live without its bundle: containerd
	// removes that before it waits for the shim's end, which may still be
	// sending events.
	lostGrace = time.Minute
	// termWait is how long a shim may take to end its containers.
	termWait = 30 * time.Second
)

// sight is one look at the host.
type sight struct {
	*Host
	domains   []xen.Info
	processes []process
	found     []Orphan
	seen      map[string]bool
}

func (s *sight) add(kind Kind, name, why string, remove func(context.Context) error) {
	o := Orphan{Kind: kind, Name: name, Why: why, remove: remove}
	if !s.seen[o.key()] {
		s.seen[o.key()] = true
		s.found = append(s.found, o)
	}
}

// lookAtBundles goes through the records of dead shims.
func (s *sight) lookAtBundles() error {
	// The pattern is malformed only if Root is; then nothing matches.
	bundles, _ := filepath.Glob(filepath.Join(s.Root, "*", "*"))
	var errs []error
	for _, dir := range bundles {
		r, err := record.Read(dir)
		switch {
		case err != nil:
			errs = append(errs, err)
		case r != nil && !r.Shim.Alive():
			errs = append(errs, s.lookAtBundle(dir, r))
		}
	}
	return errors.Join(errs...)
}

// lookAtBundle lists what the record r of a dead shim names.
func (s *sight) lookAtBundle(dir string, r *record.Record) error {
	why := fmt.Sprintf("the shim of container %s in namespace %s has died", r.ID, r.Namespace)
	for _, p := range []struct {
		what string
		record.Process
	}{{"back-end", r.Backend}, {"holder", r.Holder}} {
		if p.Alive() {
			s.addProcess(p.what, p.Process, why)
		}
	}
	for _, d := range named(s.domains, r.UUID) {
		s.addDomain(d, why)
	}
	rootfs := filepath.Join(dir, "rootfs")
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(rootfs))
	if err != nil {
		return fmt.Errorf("look at mounts below %s: %w", rootfs, err)
	}
	if len(mounts) > 0 {
		s.add(Mount, rootfs, why, func(context.Context) error { return mount.UnmountRecursive(rootfs, 0) })
	}
	for _, c := range r.Cgroups {
		s.addCgroup(c, why)
	}
	if path, err := bootstrap.SocketOf(dir); err == nil && path != "" && dead(path) {
		s.addSocket(path, why)
	}
	s.add(Record, filepath.Join(dir, record.Name), why, func(ctx context.Context) error { return s.forget(ctx, dir, r) })
	return nil
}

// forget ends the container of record r as containerd's `delete` would, with the
// hooks that follow its end, once nothing is left that the record names.
func (s *sight) forget(ctx context.Context, dir string, r *record.Record) error {
	now, err := record.Read(dir)
	if err != nil || now == nil || now.UUID != r.UUID {
		return err // gone, or another container's
	}
	for _, p := range []record.Process{now.Shim, now.Backend, now.Holder} {
		if p.Alive() {
			return fmt.Errorf("process %d that it names is still there", p.PID)
		}
	}
	if s.Xen != nil {
		domains, err := s.Xen.List(ctx)
		if err != nil {
			return err
		}
		if left := named(domains, now.UUID); len(left) > 0 {
			return fmt.Errorf("domain %d that it names is still there", left[0].ID)
		}
	}
	gone := func(context.Context, [16]byte) error { return nil } // as was just seen
	f := bootstrap.Flags{Namespace: now.Namespace, ID: now.ID, Bundle: dir}
	return bootstrap.Delete(ctx, f, gone, io.Discard, s.Warn)
}

// named are the domains with the uuid of a record, which is never dom0's.
func named(domains []xen.Info, uuid record.UUID) (list []xen.Info) {
	for _, d := range domains {
		if d.ID != 0 && record.UUID(d.UUID) == uuid {
			list = append(list, d)
		}
	}
	return list
}

// lookAtProcesses looks for back-ends and holders whose parent has died, and for
// shims that containerd has no way to any more.
func (s *sight) lookAtProcesses() {
	makers := map[int]bool{}
	for _, p := range s.processes {
		if p.role == maker {
			makers[p.PID] = true
		}
	}
	for _, p := range s.processes {
		switch {
		case p.role == maker && !p.lost.IsZero() && s.Now().Sub(p.lost) > lostGrace:
			s.add(Shim, fmt.Sprintf("%d", p.PID), fmt.Sprintf("its bundle %s was removed, so that containerd cannot reach it", p.bundle),
				func(ctx context.Context) error { return terminate(ctx, p.Process) })
		case p.role == backend && !makers[p.parent]:
			s.addProcess("back-end", p.Process, "the shim that started it has died")
		case p.role == holder && !makers[p.parent]:
			s.addProcess("holder", p.Process, "the shim that started it has died")
		}
	}
}

// terminate has a shim end its containers, and kills it if it does not listen.
func terminate(ctx context.Context, p record.Process) error {
	if err := p.Signal(unix.SIGTERM); err != nil {
		return err
	}
	for deadline := time.Now().Add(termWait); p.Alive() && time.Now().Before(deadline) && ctx.Err() == nil; {
		time.Sleep(50 * time.Millisecond)
	}
	return p.Kill(ctx)
}

// lookAtDomains looks for domains of ours whose maker has died.
func (s *sight) lookAtDomains() {
	for _, d := range s.domains {
		if u := record.UUID(d.UUID); d.ID != 0 && u.Ours() && !u.MakerAlive() {
			s.addDomain(d, "the shim that made it has died")
		}
	}
}

// lookAtSockets looks for sockets of ours on which nobody listens.
func (s *sight) lookAtSockets() error {
	entries, err := os.ReadDir(s.Sockets)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at sockets: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(s.Sockets, e.Name())
		if strings.HasPrefix(e.Name(), bootstrap.SocketPrefix) && dead(path) {
			s.addSocket(path, "the shim that listened on it has died")
		}
	}
	return nil
}

func (s *sight) addProcess(what string, p record.Process, why string) {
	s.add(Process, fmt.Sprintf("%d (%s)", p.PID, what), why, p.Kill)
}

func (s *sight) addDomain(d xen.Info, why string) {
	s.add(Domain, fmt.Sprintf("%d (%s)", d.ID, d.UUID), why, func(ctx context.Context) error {
		return s.Xen.Destroy(ctx, d.ID, d.UUID)
	})
}

func (s *sight) addSocket(path, why string) {
	s.add(Socket, path, why, func(context.Context) error {
		if !dead(path) {
			return nil // gone, or a new shim's
		}
		return ignoreMissing(os.Remove(path))
	})
}

// addCgroup lists a cgroup if it is there. One with processes in it stays: they
// are not ours by any proof.
func (s *sight) addCgroup(path, why string) {
	clean := filepath.Clean(path)
	if fi, err := os.Stat(clean); err != nil || !fi.IsDir() || !strings.HasPrefix(clean, hostcgroup.Root+"/") {
		return
	}
	s.add(Cgroup, clean, why, func(context.Context) error { return hostcgroup.Remove([]string{clean}) })
}

// dead tells whether path is a socket on which nobody listens.
func dead(path string) bool {
	fi, err := os.Lstat(path)
	if err != nil || fi.Mode().Type() != fs.ModeSocket {
		return false
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
	}
	return errors.Is(err, unix.ECONNREFUSED)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
