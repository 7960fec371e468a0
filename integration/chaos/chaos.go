// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/xcontainer/xcontainer/integration/internal/ctrd"
	"github.com/xcontainer/xcontainer/integration/internal/labrun"
)

// Config says how much chaos there is.
type Config struct {
	Seed  uint64
	Lives int
	Only  int // this life alone, from 1; 0: all
}

const (
	// callLimit is in what time a call has to be answered. The longest that
	// containerd and the shim give themselves, under emulation, is a boot.
	callLimit = 90 * time.Second
	// cleanLimit bounds the removal of a container afterwards, and settleLimit
	// the end of what then still runs.
	cleanLimit  = 90 * time.Second
	settleLimit = 2 * time.Minute
	settlePoll  = 500 * time.Millisecond
	fifoDir     = "/run/chaos"
)

// chaos is one run.
type chaos struct {
	Config
	labrun.Checks
	host *ctrd.Host

	calls   int           // of the client
	longest time.Duration // of the answers
	slow    string        // whose it was
	hits    map[victim]int
	late    int // blows that found nothing to hit any more
}

// Run does it all, shows it, and tells whether everything was well.
func Run(ctx context.Context, c Config) bool {
	r := &chaos{Config: c, hits: map[victim]int{}}
	r.Begin()
	r.Say("seed %d, %d lives; -seed=%d repeats them", c.Seed, c.Lives, c.Seed)
	err := r.run(ctx)
	os.RemoveAll(fifoDir)
	return r.End(err)
}

func (r *chaos) run(ctx context.Context) (err error) {
	if r.host, err = ctrd.Open(ctx); err != nil {
		return err
	}
	defer r.host.Close()
	before, err := ctrd.Here.Take()
	if err != nil {
		return err
	}
	for i, b := range plan(r.Seed, r.Lives) {
		if r.Only != 0 && i+1 != r.Only {
			continue
		}
		if before, err = r.live(ctx, i+1, b, before); err != nil {
			return err
		}
	}
	r.sweep()
	r.Say("%d calls, the longest answer after %.1f s (%s); %d blows came too late", r.calls, r.longest.Seconds(), r.slow, r.late)
	for _, v := range victims {
		// A short plan has each victim once, and that one may come too late.
		if r.Lives >= 5*len(victims) && r.Only == 0 {
			r.Check(r.hits[v] > 0, "%s was hit %d times", v, r.hits[v])
		}
	}
	return nil
}

// live lives one life and checks what has to hold. It returns what is on the host
// afterwards.
func (r *chaos) live(ctx context.Context, n int, b blow, before []string) ([]string, error) {
	l := &life{chaos: r, id: fmt.Sprintf("chaos-%d", n), blow: b, over: make(chan struct{}), struck: make(chan struct{})}
	for s := range l.begun {
		l.begun[s] = make(chan struct{})
	}
	go func() {
		defer close(l.struck)
		l.what, l.strikeErr = l.strike(ctx)
	}()
	l.live(ctx)
	close(l.over)
	<-l.struck
	if l.what == "" {
		r.late++
		l.what = "too late"
	} else {
		r.hits[b.victim]++
	}
	problems := l.problems
	if l.strikeErr != nil {
		problems = append(problems, fmt.Sprintf("the blow failed: %v", l.strikeErr))
	}
	if err := r.clean(ctx, l.id); err != nil {
		problems = append(problems, err.Error())
	}
	if err := r.host.Collect(ctx); err != nil {
		problems = append(problems, err.Error())
	}
	os.RemoveAll(fifoDir)
	more, now, err := ctrd.Here.Left(before, settleLimit)
	if err != nil {
		return before, err
	}
	for _, item := range more {
		problems = append(problems, "left: "+item)
	}
	text := fmt.Sprintf("life %d: %v: %s; %s", n, b, l.what, l.summary())
	r.Check(len(problems) == 0, "%s%s", text, strings.Join(append([]string{""}, problems...), "\n\t"))
	return now, ctx.Err()
}

// clean removes the container as a user does, who tries again for a while.
func (r *chaos) clean(ctx context.Context, id string) error {
	deadline := time.Now().Add(cleanLimit)
	for {
		tryCtx, cancel := context.WithDeadline(ctx, deadline)
		err := r.host.Remove(tryCtx, id)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not deleted after %v: %w", cleanLimit, err)
		}
		time.Sleep(settlePoll)
	}
}

// sweep wants xcontainerctl to find nothing.
func (r *chaos) sweep() {
	out, err := ctrd.Command("xcontainerctl", "sweep", "--json")
	var found struct {
		Orphans []struct{ Kind, Name, Why string }
	}
	if err == nil {
		err = json.Unmarshal([]byte(out), &found)
	}
	if err != nil {
		r.Check(false, "sweep: %v", err)
		return
	}
	r.Check(len(found.Orphans) == 0, "sweep finds %d orphans %v", len(found.Orphans), found.Orphans)
}
