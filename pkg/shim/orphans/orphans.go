// SPDX-License-Identifier: Apache-2.0

package orphans

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/xcontainer/xcontainer/pkg/xen"
)

// Kind is what an orphan is.
type Kind string

// Kinds, in the order in which they have to be removed: a domain stays as long as
// a back-end maps its memory, and a record is the last to go.
const (
	Shim    Kind = "shim"
	Process Kind = "process"
	Domain  Kind = "domain"
	Mount   Kind = "mount"
	Cgroup  Kind = "cgroup"
	Socket  Kind = "socket"
	Record  Kind = "record"
)

var order = []Kind{Shim, Process, Domain, Mount, Cgroup, Socket, Record}

// Orphan is one thing that is left.
type Orphan struct {
	Kind Kind
	Name string // what it is called on the host
	Why  string // a clause: why it is an orphan

	remove func(context.Context) error
}

// Remove removes the orphan. One that has gone meanwhile is no error.
func (o Orphan) Remove(ctx context.Context) error {
	if err := o.remove(ctx); err != nil {
		return fmt.Errorf("remove %s %s: %w", o.Kind, o.Name, err)
	}
	return nil
}

func (o Orphan) key() string { return string(o.Kind) + " " + o.Name }

// Host is where to look.
type Host struct {
	Root    string    // containerd's folder of bundles, below which are namespaces
	Sockets string    // folder of the shims' sockets
	Xen     *xen.Host // nil on a machine without
	// Settle is how long something must be left to be an orphan.
	Settle time.Duration
	// Now is the time of the day.
	Now func() time.Time
	// Warn gets what hooks of removed containers complain of.
	Warn io.Writer

	// list lists our processes; nil: those of this machine.
	list func() ([]process, error)
}

// Find lists the orphans, in the order in which they have to be removed. With an
// error it lists those that it could find.
func (h *Host) Find(ctx context.Context) ([]Orphan, error) {
	first, err := h.look(ctx)
	if len(first) == 0 {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(h.Settle):
	}
	again, err := h.look(ctx)
	var found []Orphan
	for _, o := range again {
		if slices.ContainsFunc(first, func(f Orphan) bool { return f.key() == o.key() }) {
			found = append(found, o)
		}
	}
	slices.SortStableFunc(found, func(a, b Orphan) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.Kind), slices.Index(order, b.Kind)), cmp.Compare(a.Name, b.Name))
	})
	return found, err
}

// look looks once. Each thing is listed once, for the first reason found.
func (h *Host) look(ctx context.Context) ([]Orphan, error) {
	s := sight{Host: h, seen: map[string]bool{}}
	var errs []error
	// Domains before records: a domain that is listed had its record by then,
	// and processes after both, so that none of them is newer than its parent.
	if h.Xen != nil {
		var err error
		if s.domains, err = h.Xen.List(ctx); err != nil {
			errs = append(errs, err)
		}
	}
	list := h.list
	if list == nil {
		list = processes
	}
	errs = append(errs, s.lookAtBundles())
	var err error
	if s.processes, err = list(); err != nil {
		return s.found, errors.Join(append(errs, err)...)
	}
	s.lookAtProcesses()
	s.lookAtDomains()
	errs = append(errs, s.lookAtSockets())
	return s.found, errors.Join(errs...)
}
