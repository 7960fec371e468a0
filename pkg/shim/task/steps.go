// SPDX-License-Identifier: Apache-2.0

package task

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// steps is how long each step of a container's making took, in order.
type steps struct {
	mu   sync.Mutex
	list []step // guarded by mu
}

type step struct {
	name string
	took time.Duration
}

// add is Step of BootConfig.
func (s *steps) add(name string, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, step{name, d})
}

// time measures from now until the returned function is called.
func (s *steps) time(name string) (done func()) {
	start := time.Now()
	return func() { s.add(name, time.Since(start)) }
}

// String is one field of a log line: name=milliseconds for each step, names
// without spaces.
func (s *steps) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for i, st := range s.list {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%s=%.3fms", strings.ReplaceAll(st.name, " ", "-"), float64(st.took)/float64(time.Millisecond))
	}
	return b.String()
}

func (s *steps) total() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var d time.Duration
	for _, st := range s.list {
		d += st.took
	}
	return d
}
