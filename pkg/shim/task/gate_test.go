// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestGateTimeout: time in a pause does not count.
func TestGateTimeout(t *testing.T) {
	g := newGate()
	g.move(gateOpen, gatePausing)
	g.shut(func() {})
	ctx, cancel := g.timeout(context.Background(), time.Millisecond)
	defer cancel()
	time.Sleep(20 * time.Millisecond)
	if err := ctx.Err(); err != nil {
		t.Errorf("paused: %v", err)
	}
	g.move(gatePaused, gateResuming)
	g.move(gateResuming, gateOpen)
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// TestGate: a pause waits for calls, keeps what comes, and one that is over gives
// way.
func TestGate(t *testing.T) {
	g := newGate()
	leave, ok := g.enter()
	if !ok {
		t.Fatal("an open gate is closed")
	}
	g.move(gateOpen, gatePausing)
	if _, ok := g.enter(); ok {
		t.Error("a call came through a pause")
	}
	var done []string
	keep := func(key, what string) {
		if _, ok := g.enterOrKeep(key, func() { done = append(done, what) }); ok {
			t.Error("a call came through a pause")
		}
	}
	keep("a", "a1")
	keep("b", "b")
	keep("a", "a2")
	idle := make(chan struct{})
	go func() { g.idle(context.Background()); close(idle) }()
	select {
	case <-idle:
		t.Error("idle with a call under way")
	case <-time.After(10 * time.Millisecond):
	}
	leave()
	leave() // twice is once
	<-idle
	if !g.shut(func() {}) {
		t.Fatal("over")
	}
	g.flush()
	if len(done) != 0 {
		t.Errorf("done while paused: %q", done)
	}
	g.move(gatePaused, gateResuming)
	g.move(gateResuming, gateOpen)
	g.flush()
	if len(done) != 2 || done[0] != "a2" || done[1] != "b" {
		t.Errorf("done %q", done)
	}

	g.move(gateOpen, gatePausing)
	finished := make(chan error)
	go func() { finished <- g.finish(func() error { return errors.New("not paused, not resumed") }) }()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	leave, ok = g.enter()
	if ok {
		leave()
		t.Error("a call came through a pause")
	}
	for over := false; !over && ctx.Err() == nil; {
		g.mu.Lock()
		over = g.over
		g.mu.Unlock()
	}
	if g.shut(func() { t.Error("published") }) {
		t.Error("paused though it is over")
	}
	g.move(gatePausing, gateOpen)
	if err := <-finished; err != nil {
		t.Error(err)
	}
}
