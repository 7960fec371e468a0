// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strconv"
	"strings"
)

// counters is what is needed of /proc/xlibos. It is empty for a kernel that has no
// such file.
type counters struct {
	mode      string
	rewriting string
	calls
}

// calls counts system calls of one kernel: those that Xen did not see, and those
// that came through it.
type calls struct{ direct, bounced uint64 }

// parseCounters takes lines of a name and a value. Names may be missing, and there
// may be others.
func parseCounters(text string) counters {
	var c counters
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseUint(value, 10, 64)
		switch {
		case name == "mode":
			c.mode = value
		case name == "rewriting":
			c.rewriting = value
		case name == "calls_direct" && err == nil:
			c.direct = n
		case name == "calls_bounced" && err == nil:
			c.bounced = n
		}
	}
	return c
}

// since is c less what was counted before.
func (c calls) since(before calls) calls {
	return calls{direct: c.direct - min(c.direct, before.direct), bounced: c.bounced - min(c.bounced, before.bounced)}
}

func (c calls) plus(d calls) calls {
	return calls{direct: c.direct + d.direct, bounced: c.bounced + d.bounced}
}

// share is that of the direct calls in per cent; ok is false if there were none of
// either kind.
func (c calls) share() (percent float64, ok bool) {
	all := float64(c.direct) + float64(c.bounced)
	if all == 0 {
		return 0, false
	}
	return 100 * float64(c.direct) / all, true
}
