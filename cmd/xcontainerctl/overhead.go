// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/xcontainer/xcontainer/pkg/libos"
	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
	"github.com/xcontainer/xcontainer/pkg/shim/record"
	"github.com/xcontainer/xcontainer/pkg/xen"
	"github.com/xcontainer/xcontainer/pkg/xen/abi"
)

// measureTimeout bounds the life of the empty guest.
const measureTimeout = 3 * time.Minute

// shareEnv and shareDir say where the guest's files are, as for the shim.
const (
	shareEnv = "XCONTAINER_SHARE"
	shareDir = "/usr/share/xcontainer"
)

func defaultShare() string {
	if dir := os.Getenv(shareEnv); dir != "" {
		return dir
	}
	return shareDir
}

// emptyGuest is a guest that runs nothing but its agent.
type emptyGuest interface {
	DomID() uint16
	// Available is MemAvailable in the guest, in bytes.
	Available(context.Context) (uint64, error)
	Close(context.Context) error
}

// overheads is what `overhead --json` prints. Fields are only ever added.
type overheads struct {
	Guest     guestOverhead     `json:"guest"`
	Processes []processOverhead `json:"processes"`
}

// guestOverhead is of an empty guest: what a container cannot use of its domain.
type guestOverhead struct {
	Domain    uint64 `json:"domain_bytes"`
	Available uint64 `json:"available_bytes"`
	Overhead  uint64 `json:"overhead_bytes"`
}

// processOverhead is of one running container, in bytes of proportional set size.
type processOverhead struct {
	Namespace string `json:"namespace"`
	Container string `json:"container"`
	Shim      uint64 `json:"shim_pss_bytes"`
	Backend   uint64 `json:"backend_pss_bytes"`
}

func (c *command) overhead(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, measureTimeout)
	defer cancel()
	host, err := c.openXen()
	if err != nil {
		return err
	}
	defer host.Close()
	o := overheads{Processes: []processOverhead{}}
	for _, r := range readRecords(c.root, c.warn) {
		if r.DomID == nil {
			continue
		}
		p, err := c.processes(r)
		if err != nil {
			// It may have ended since its record was read.
			fmt.Fprintf(c.warn, "xcontainerctl: container %s: %v\n", r.ID, err)
			continue
		}
		o.Processes = append(o.Processes, p)
	}
	if o.Guest, err = c.measureGuest(ctx, host); err != nil {
		return fmt.Errorf("measure an empty guest: %w", err)
	}
	if c.json {
		return c.printJSON(o)
	}
	return printOverheads(c.out, o)
}

func (c *command) processes(r *record.Record) (p processOverhead, err error) {
	p = processOverhead{Namespace: r.Namespace, Container: r.ID}
	if p.Shim, err = c.pss(r.Shim.PID); err != nil {
		return p, err
	}
	p.Backend, err = c.pss(r.Backend.PID)
	return p, err
}

// measureGuest boots a guest, asks both sides for its memory, and ends it.
func (c *command) measureGuest(ctx context.Context, host *xen.Host) (o guestOverhead, err error) {
	g, err := c.bootGuest(ctx, c.share, c.memoryMiB<<20)
	if err != nil {
		return o, err
	}
	defer func() { err = errors.Join(err, g.Close(context.WithoutCancel(ctx))) }()
	if o.Available, err = g.Available(ctx); err != nil {
		return o, err
	}
	infos, err := host.List(ctx)
	if err != nil {
		return o, err
	}
	for _, i := range infos {
		if i.ID == abi.DomID(g.DomID()) {
			o.Domain = i.Pages * abi.PageSize
			o.Overhead = o.Domain - min(o.Domain, o.Available)
			return o, nil
		}
	}
	return o, fmt.Errorf("domain %d: %w", g.DomID(), xen.ErrNotFound)
}

func printOverheads(out io.Writer, o overheads) error {
	fmt.Fprintf(out, "guest without a container: %s of %s (%s available to it)\n",
		mib(o.Guest.Overhead), mib(o.Guest.Domain), mib(o.Guest.Available))
	if len(o.Processes) == 0 {
		_, err := fmt.Fprintln(out, "shim and back-end: no container runs")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "\nNAMESPACE\tCONTAINER\tSHIM\tBACK-END\tTOGETHER")
	for _, p := range o.Processes {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", dash(p.Namespace), dash(p.Container),
			mib(p.Shim), mib(p.Backend), mib(p.Shim+p.Backend))
	}
	return w.Flush()
}

// realGuest is a guest of pkg/libos.
type realGuest struct {
	*libos.Guest
	dir string
}

func bootGuest(ctx context.Context, share string, memoryBytes uint64) (emptyGuest, error) {
	dir, err := os.MkdirTemp("", "xcontainerctl-")
	if err != nil {
		return nil, err
	}
	c := libos.Config{
		Share: share, ConsolePath: filepath.Join(dir, "console.log"), MemoryBytes: memoryBytes, VCPUs: 1,
		Record:        func(abi.DomID) error { return nil },
		RecordBackend: func(int) error { return nil },
		Step:          func(string, time.Duration) {},
	}
	// A handle like a shim's, so that a sweep finds the guest if this program is
	// killed.
	self, err := record.Of(os.Getpid())
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	uuid, err := record.NewUUID(self)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	c.UUID = abi.UUID(uuid)
	g, err := libos.Boot(ctx, c)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return realGuest{g, dir}, nil
}

func (g realGuest) Available(ctx context.Context) (uint64, error) {
	s, err := g.Agent().Stats(ctx, &agentapi.StatsRequest{})
	if err != nil {
		return 0, fmt.Errorf("ask the agent: %w", err)
	}
	return s.MemoryAvailable, nil
}

func (g realGuest) Close(ctx context.Context) error {
	return errors.Join(g.Guest.Close(ctx), os.RemoveAll(g.dir))
}

// readPSS reads a process's proportional set size: its own pages plus its share
// of those that it has in common with others.
func readPSS(pid int) (uint64, error) {
	return readKB(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss")
}

// readKB reads a size in bytes from a file with lines like "key: 12 kB".
func readKB(path, key string) (uint64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n, err := parseKB(f, key)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return n, nil
}

func parseKB(r io.Reader, key string) (uint64, error) {
	for s := bufio.NewScanner(r); s.Scan(); {
		rest, ok := strings.CutPrefix(s.Text(), key+":")
		if !ok {
			continue
		}
		kb, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
		if err != nil || kb > 1<<40 {
			return 0, fmt.Errorf("bad line %q", s.Text())
		}
		return kb << 10, nil
	}
	return 0, fmt.Errorf("no %s", key)
}
