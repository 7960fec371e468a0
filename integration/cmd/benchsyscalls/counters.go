// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/xcontainer/xcontainer/integration/internal/ctrbox"

// calls counts system calls of one kernel: those that Xen did not see, and those
// that came through it.
type calls struct{ direct, bounced uint64 }

// parseCalls finds them in the text of /proc/xlibos.
func parseCalls(text string) (calls, error) {
	x, err := ctrbox.ParseXLibOS(text)
	return calls{direct: x.Direct(), bounced: x.Bounced()}, err
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
