// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// victim is what a blow hits.
type victim string

const (
	shim     victim = "shim"
	backend  victim = "back-end"
	holder   victim = "holder"
	domain   victim = "domain"        // destroyed by somebody else
	guest    victim = "guest"         // its kernel panics
	daemon   victim = "containerd"    // killed, and started again
	daemonUp victim = "containerd -r" // restarted in order
)

var victims = []victim{shim, backend, holder, domain, guest, daemon, daemonUp}

// step is a part of a container's life.
type step int

const (
	stepCreate step = iota
	stepStart
	stepExec
	stepAttach
	stepKill
	stepDelete
	steps
)

func (s step) String() string {
	return [...]string{"create", "start", "exec", "attach", "kill", "delete"}[s]
}

// longest is about how long each step takes under emulation: a blow falls
// anywhere in it.
var longest = [steps]time.Duration{
	2500 * time.Millisecond, 300 * time.Millisecond, 1200 * time.Millisecond,
	300 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond,
}

// blow is one kill: of what, and when after the beginning of which step.
type blow struct {
	victim victim
	step   step
	delay  time.Duration
}

func (b blow) String() string {
	return fmt.Sprintf("%s, %v after the beginning of %v", b.victim, b.delay, b.step)
}

// plan draws n blows. Each run of as many as there are victims has each of them
// once, so that a short plan misses none.
func plan(seed uint64, n int) []blow {
	r := rand.New(rand.NewPCG(seed, 0))
	blows := make([]blow, 0, n)
	var order []int
	for range n {
		if len(order) == 0 {
			order = r.Perm(len(victims))
		}
		v := victims[order[0]]
		order = order[1:]
		s := step(r.IntN(int(steps)))
		if v == guest {
			// It is a process of the container that makes it panic.
			s = stepExec + step(r.IntN(int(stepKill-stepExec)))
		}
		blows = append(blows, blow{v, s, time.Duration(r.Int64N(int64(longest[s]))).Round(time.Millisecond)})
	}
	return blows
}
