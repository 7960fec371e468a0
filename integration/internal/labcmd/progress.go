// SPDX-License-Identifier: Apache-2.0

package labcmd

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// progress shows what is going on: on a terminal one line that counts seconds,
// elsewhere one line for each step. A step under two seconds leaves no trace.
type progress struct {
	mu    sync.Mutex
	w     io.Writer
	live  bool // w is a terminal
	what  string
	begin time.Time
	stop  chan struct{} // on a terminal: ends the counting
	delay *time.Timer   // elsewhere: prints the line
}

// worthALine is how long a step must take to be told of.
const worthALine = 2 * time.Second

func newProgress(f *os.File) *progress {
	return &progress{w: f, live: term.IsTerminal(int(f.Fd()))}
}

// step ends the step before and begins the next.
func (p *progress) step(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endLocked(true)
	p.what, p.begin = what, time.Now()
	if !p.live {
		p.delay = time.AfterFunc(worthALine, func() { p.print(what) })
		return
	}
	p.stop = make(chan struct{})
	go p.tick(p.stop)
}

// finish ends the last step.
func (p *progress) finish(ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endLocked(ok)
}

// endLocked ends the current step, if any; p.mu is held.
func (p *progress) endLocked(ok bool) {
	if p.what == "" {
		return
	}
	took := time.Since(p.begin)
	if !p.live {
		p.delay.Stop()
	}
	if p.live {
		close(p.stop)
		fmt.Fprint(p.w, "\r\x1b[K")
		if took >= worthALine || !ok {
			fmt.Fprintf(p.w, "lab: %s (%.1f s)\n", p.what, took.Seconds())
		}
	}
	p.what = ""
}

// print writes the line of a step unless it has ended.
func (p *progress) print(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.what == what {
		fmt.Fprintf(p.w, "lab: %s\n", what)
	}
}

// tick repaints the line until stop is closed.
func (p *progress) tick(stop chan struct{}) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		p.mu.Lock()
		select {
		case <-stop:
			p.mu.Unlock()
			return
		default:
			fmt.Fprintf(p.w, "\r\x1b[Klab: %s … %d s", p.what, int(time.Since(p.begin).Seconds()))
		}
		p.mu.Unlock()
		select {
		case <-stop:
			return
		case <-t.C:
		}
	}
}
