// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/xcontainer/xcontainer/pkg/shim/orphans"
	"github.com/xcontainer/xcontainer/pkg/shim/record"
	"github.com/xcontainer/xcontainer/pkg/xen"
)

const (
	// sweepSettle is a little more than containerd gives `delete`.
	sweepSettle = 6 * time.Second
	// sweepTimeout bounds a removal: a shim and a domain have half a minute.
	sweepTimeout = time.Minute
)

// swept is what `sweep --json` prints. Fields are only ever added.
type swept struct {
	Removed bool     `json:"removed"` // whether removal was asked for
	Orphans []orphan `json:"orphans"`
}

// orphan is one thing that was left.
type orphan struct {
	Kind  string `json:"kind"`
	Name  string `json:"name"`
	Why   string `json:"why"`
	Error string `json:"error,omitempty"` // why it is still there
}

func (c *command) sweep(ctx context.Context) error {
	if err := c.maySweep(); err != nil {
		return err
	}
	host, err := c.openXen()
	switch {
	case err == nil:
		defer host.Close()
	case errors.Is(err, xen.ErrNoXen):
		fmt.Fprintf(c.warn, "xcontainerctl: domains are left out: %v\n", err)
		host = nil
	default:
		return err
	}
	h := orphans.Host{Root: c.root, Sockets: c.sockets, Xen: host, Settle: c.settle, Now: c.now, Warn: c.warn}
	found, findErr := h.Find(ctx)
	s := swept{Removed: c.yes, Orphans: []orphan{}}
	failed := 0
	for _, o := range found {
		row := orphan{Kind: string(o.Kind), Name: o.Name, Why: o.Why}
		if c.yes {
			if err := removeOrphan(ctx, o); err != nil {
				row.Error = err.Error()
				failed++
			}
		}
		s.Orphans = append(s.Orphans, row)
	}
	if err := c.printSwept(s); err != nil {
		return err
	}
	if failed > 0 {
		findErr = errors.Join(findErr, fmt.Errorf("%d of %d are still there; run sweep again", failed, len(found)))
	}
	return findErr
}

func removeOrphan(ctx context.Context, o orphans.Orphan) error {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	return o.Remove(ctx)
}

func (c *command) printSwept(s swept) error {
	if c.json {
		return c.printJSON(s)
	}
	if len(s.Orphans) == 0 {
		_, err := fmt.Fprintln(c.out, "nothing is left of dead shims")
		return err
	}
	w := tabwriter.NewWriter(c.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "KIND\tNAME\tSTATE\tWHY")
	for _, o := range s.Orphans {
		state := "orphan"
		switch {
		case o.Error != "":
			state = "still there"
			fmt.Fprintf(c.warn, "xcontainerctl: %s\n", o.Error)
		case s.Removed:
			state = "removed"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", o.Kind, o.Name, state, o.Why)
	}
	if err := w.Flush(); err != nil || s.Removed {
		return err
	}
	_, err := fmt.Fprintln(c.out, "nothing was removed; sweep --yes removes these")
	return err
}

// maySweep wants to see every process, with the pid that shims noted.
func maySweep() error {
	if os.Geteuid() != 0 {
		return errors.New("sweep has to see all processes: run it as root")
	}
	if !record.HostPIDs() {
		return errors.New("sweep has to see processes with their pids on the host: run it outside of containers")
	}
	return nil
}
