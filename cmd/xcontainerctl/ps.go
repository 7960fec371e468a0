// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"path/filepath"
	"sort"
	"text/tabwriter"
	"time"

	"github.com/xcontainer/xcontainer/pkg/shim/record"
	"github.com/xcontainer/xcontainer/pkg/xen"
	"github.com/xcontainer/xcontainer/pkg/xen/abi"
)

// defaultRoot is where containerd keeps the bundles of tasks.
const defaultRoot = "/run/containerd/io.containerd.runtime.v2.task"

// row is one domain. Fields are only ever added to its JSON.
type row struct {
	DomID     abi.DomID  `json:"domid"`
	UUID      string     `json:"uuid"` // 32 hexadecimal digits
	Namespace string     `json:"namespace,omitempty"`
	Container string     `json:"container,omitempty"` // empty: no shim's record names this domain
	State     string     `json:"state"`
	Reason    string     `json:"reason,omitempty"` // of a domain that has shut down
	Memory    uint64     `json:"memory_bytes"`
	VCPUs     uint32     `json:"vcpus"`
	CPUTime   int64      `json:"cpu_ns"`
	Created   *time.Time `json:"created,omitempty"`
}

func (c *command) ps(ctx context.Context) error {
	host, err := c.openXen()
	if err != nil {
		return err
	}
	defer host.Close()
	infos, err := host.List(ctx)
	if err != nil {
		return fmt.Errorf("list domains: %w", err)
	}
	rows := makeRows(infos, readRecords(c.root, c.warn))
	if c.json {
		return c.printJSON(rows)
	}
	return printRows(c.out, rows, c.now())
}

// makeRows joins domains with records by id and uuid. dom0 is left out: it is
// the host.
func makeRows(infos []xen.Info, records []*record.Record) []row {
	rows := make([]row, 0, len(infos))
	for _, i := range infos {
		if i.ID == 0 {
			continue
		}
		r := row{
			DomID:   i.ID,
			UUID:    hex.EncodeToString(i.UUID[:]),
			State:   i.State.String(),
			Memory:  i.Pages * abi.PageSize,
			VCPUs:   i.MaxVCPUs,
			CPUTime: i.CPUTime.Nanoseconds(),
		}
		if i.State == xen.Shutdown {
			r.Reason = i.Reason.String()
		}
		for _, rec := range records {
			if rec.DomID != nil && abi.DomID(*rec.DomID) == i.ID && rec.UUID == record.UUID(i.UUID) {
				r.Namespace, r.Container, r.Created = rec.Namespace, rec.ID, &rec.Created
			}
		}
		rows = append(rows, r)
	}
	return rows
}

// readRecords reads the records of all bundles below root, in the order of their
// paths. One that cannot be read is named and left out: it may just be going.
func readRecords(root string, warn io.Writer) []*record.Record {
	// The pattern is malformed only if root is; then nothing matches.
	bundles, _ := filepath.Glob(filepath.Join(root, "*", "*"))
	sort.Strings(bundles)
	var all []*record.Record
	for _, dir := range bundles {
		r, err := record.Read(dir)
		if err != nil {
			fmt.Fprintf(warn, "xcontainerctl: %v\n", err)
		}
		if err == nil && r != nil {
			all = append(all, r)
		}
	}
	return all
}

func printRows(out io.Writer, rows []row, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "DOMAIN\tNAMESPACE\tCONTAINER\tSTATE\tMEMORY\tVCPUS\tCPU\tAGE")
	for _, r := range rows {
		state, age := r.State, "-"
		if r.Reason != "" {
			state += " (" + r.Reason + ")"
		}
		if r.Created != nil {
			age = now.Sub(*r.Created).Round(time.Second).String()
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%d\t%.1fs\t%s\n", r.DomID, dash(r.Namespace), dash(r.Container),
			state, mib(r.Memory), r.VCPUs, time.Duration(r.CPUTime).Seconds(), age)
	}
	return w.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func mib(bytes uint64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }
