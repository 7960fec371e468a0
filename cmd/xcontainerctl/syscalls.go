// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xcontainer/xcontainer/pkg/shim/bootstrap"
	"github.com/xcontainer/xcontainer/pkg/shim/record"
	"github.com/xcontainer/xcontainer/pkg/shim/statsapi"
)

// metricsTimeout bounds a shim's answer: it gives its guest 2 s.
const metricsTimeout = 10 * time.Second

// Names of counters, and what groups of them begin with.
const (
	callsDirect   = "calls_direct"
	callsBounced  = "calls_bounced"
	sitesPrefix   = "sites_"
	refusedPrefix = "refused_"
)

// noXLibOS is the mode of a kernel without X-LibOS.
const noXLibOS = "none"

// callCounts is what `syscalls --json` prints. Fields are only ever added. All of
// it is what the guest says.
type callCounts struct {
	Namespace string `json:"namespace"`
	Container string `json:"container"`
	Mode      string `json:"mode"`                // off, bounce, shared, unknown, or none
	Rewriting string `json:"rewriting,omitempty"` // on, off or unknown
	Direct    uint64 `json:"calls_direct"`
	Bounced   uint64 `json:"calls_bounced"`
	// Share of the direct calls in per cent; not there before the first call.
	Share   *float64          `json:"direct_percent,omitempty"`
	Sites   map[string]uint64 `json:"sites"`   // rewritten, by form; "shared" are some of these once more
	Refused map[string]uint64 `json:"refused"` // not rewritten, by reason
	Other   map[string]uint64 `json:"other"`   // further counters of the kernel
}

func (c *command) syscalls(ctx context.Context) error {
	id := c.args[0]
	dir, err := c.bundleOf(id)
	if err != nil {
		return err
	}
	r, err := record.Read(dir)
	if err != nil {
		return err
	}
	socket, err := bootstrap.SocketOf(dir)
	if err != nil {
		return fmt.Errorf("find the shim of container %s: %w", id, err)
	}
	// Other runtimes leave sockets in their bundles, too.
	if r == nil || socket == "" {
		return c.errNoContainer(id)
	}
	ctx, cancel := context.WithTimeout(ctx, metricsTimeout)
	defer cancel()
	data, err := c.metrics(ctx, socket, id)
	if err != nil {
		return fmt.Errorf("ask the shim of container %s: %w", id, err)
	}
	var m statsapi.Metrics
	if err := proto.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("metrics of container %s: %w", id, err)
	}
	if m.Syscalls == nil {
		return fmt.Errorf("the guest of container %s has not told how its kernel is called; try again, or look at xcontainerctl logs", id)
	}
	n := countCalls(m.Syscalls)
	n.Namespace, n.Container = c.namespace, id
	if c.json {
		return c.printJSON(n)
	}
	return n.print(c.out)
}

// countCalls sorts the guest's counters by what they are about.
func countCalls(s *statsapi.Syscalls) callCounts {
	n := callCounts{
		Mode: s.GetMode(), Rewriting: s.GetRewriting(),
		Sites: map[string]uint64{}, Refused: map[string]uint64{}, Other: map[string]uint64{},
	}
	if n.Mode == "" {
		n.Mode = noXLibOS
	}
	for name, v := range s.GetCounters() {
		site, isSite := strings.CutPrefix(name, sitesPrefix)
		reason, isRefusal := strings.CutPrefix(name, refusedPrefix)
		switch {
		case name == callsDirect:
			n.Direct = v
		case name == callsBounced:
			n.Bounced = v
		case isSite:
			n.Sites[site] = v
		case isRefusal:
			n.Refused[reason] = v
		default:
			n.Other[name] = v
		}
	}
	// Not in integers: the guest may have both of them at their largest.
	if all := float64(n.Direct) + float64(n.Bounced); all > 0 {
		share := 100 * float64(n.Direct) / all
		n.Share = &share
	}
	return n
}

// forms says what is called by a site's form.
var forms = map[string]string{
	"abs":    "7 bytes, number in eax",
	"nop":    "9 bytes",
	"stack":  "number on the stack",
	"cancel": "cancellable calls of glibc 2.41",
	"near":   "through a stub near the code",
	"shared": "of these, for all processes at once",
}

// reasons says why places are left alone.
var reasons = map[string]string{
	"pattern":  "what comes before it cannot be moved",
	"boundary": "it is not clear where instructions begin, or a page ends there",
	"redzone":  "the word below the stack pointer is in use",
	"flags":    "flags are used behind it",
	"mapping":  "the memory is shared, special or writable, or its file is",
	"stub":     "no room for a stub near it",
	"stack":    "it was called without a usable stack",
}

func (n callCounts) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "mode\t%s\n", n.Mode)
	if n.Mode != noXLibOS {
		share := "-"
		if n.Share != nil {
			share = fmt.Sprintf("%.2f %%", *n.Share)
		}
		fmt.Fprintf(w, "rewriting\t%s\ndirect calls\t%d\nother calls\t%d\nshare of direct calls\t%s\n",
			dash(n.Rewriting), n.Direct, n.Bounced, share)
	}
	for _, group := range []struct {
		title    string
		counters map[string]uint64
		meaning  map[string]string
	}{
		{"REWRITTEN SITES\tNUMBER\tFORM", n.Sites, forms},
		{"REFUSED SITES\tNUMBER\tREASON", n.Refused, reasons},
		{"OTHER\tNUMBER", n.Other, nil},
	} {
		if len(group.counters) == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s\n", group.title)
		for _, name := range slices.Sorted(maps.Keys(group.counters)) {
			line := fmt.Sprintf("%s\t%d", strings.Map(printable, name), group.counters[name])
			if meaning := group.meaning[name]; meaning != "" {
				line += "\t" + meaning
			}
			fmt.Fprintln(w, line)
		}
	}
	return w.Flush()
}
