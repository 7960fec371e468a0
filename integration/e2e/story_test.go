// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/xcontainer/xcontainer/integration/internal/ctrbox"
)

const (
	runcRuntime = "io.containerd.runc.v2"
	ourRuntime  = "io.containerd.xcontainer.v2"
)

// Limits are for a machine that is emulated on two busy cores: they end what
// hangs, and say nothing about speed.
const (
	shortLimit = 2 * time.Minute // one or two containers
	longLimit  = 8 * time.Minute // bulk data, many files
	settle     = 2 * time.Minute // see package inventory
)

// story is one test on the machine under test.
type story struct {
	*testing.T
	m     machine
	limit time.Duration
}

var serial atomic.Int64

// begin starts a story: it notes what is on the machine, and at the end of the
// test compares.
func begin(t *testing.T) *story {
	t.Helper()
	before := clean
	if before == nil {
		var err error
		if before, err = host(under).Take(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { checkLeaks(t, under, before, settle) })
	return &story{T: t, m: under, limit: shortLimit}
}

// sub runs f as a subtest that shares s's leak check.
func (s *story) sub(name string, f func(s *story)) {
	s.T.Run(name, func(t *testing.T) { f(&story{T: t, m: s.m, limit: s.limit}) })
}

// xen says whether the runtime under test makes domains.
func xen() bool { return runtimeName == ourRuntime }

// id returns a container id that no other story has.
func (s *story) id() string {
	return fmt.Sprintf("e2e-%d-%d", started.UnixMilli()%1e9, serial.Add(1))
}

// sh runs a shell script on the host. RUN in it starts a ctr run with the
// runtime under test; IMAGE names are in B, D and P.
func (s *story) sh(script string) result {
	s.Helper()
	return s.shInput(nil, script)
}

func (s *story) shInput(stdin io.Reader, script string) result {
	s.Helper()
	prelude := fmt.Sprintf("RUN='ctr run --runtime %s'; B=%s; D=%s; P=%s; STATE=%s; ",
		runtimeName, busybox, debian, python, s.m.StateDir())
	r, err := command(s.m, s.limit, stdin, "sh", "-c", prelude+script)
	if err != nil {
		s.Fatal(err)
	}
	r.stderr = dropWarnings(r.stderr)
	return r
}

// dropWarnings leaves out what ctr says about the daemon's configuration.
func dropWarnings(stderr string) string {
	var keep []string
	for line := range strings.Lines(stderr) {
		if !strings.Contains(line, "level=warning") || !strings.Contains(line, "DEPRECATION") {
			keep = append(keep, line)
		}
	}
	return strings.Join(keep, "")
}

// run runs a container to its end: ctr run --rm [flags] image id argv.
func (s *story) run(flags, image string, argv ...string) result {
	s.Helper()
	return s.sh(fmt.Sprintf("exec $RUN --rm %s %s %s %s", flags, image, s.id(), quote(argv...)))
}

// start starts a container that goes on, and removes it at the end of the test.
func (s *story) start(flags, image string, argv ...string) (id string) {
	s.Helper()
	id = s.id()
	s.Cleanup(func() { s.remove(id) })
	r := s.sh(fmt.Sprintf("exec $RUN -d %s %s %s %s", flags, image, id, quote(argv...)))
	if r.code != 0 {
		s.Fatalf("start %s: %v", id, r)
	}
	return id
}

// remove ends a container and deletes it, whatever state it is in.
func (s *story) remove(id string) {
	s.Helper()
	if r := s.sh(ctrbox.RemoveScript(id)); r.code != 0 {
		s.Errorf("remove %s: %v", id, r)
	}
}

// exec runs a process in a running container.
func (s *story) exec(flags, id string, argv ...string) result {
	s.Helper()
	return s.sh(fmt.Sprintf("exec ctr task exec --exec-id x%d %s %s %s", serial.Add(1), flags, id, quote(argv...)))
}

// want fails the test unless r ended with code and, exactly, stdout.
func (s *story) want(r result, code int, stdout string) {
	s.Helper()
	if r.code != code || r.stdout != stdout {
		s.Errorf("want exit code %d and stdout %q, got %v", code, stdout, r)
	}
}

// wantCode fails the test unless r ended with code.
func (s *story) wantCode(r result, code int) {
	s.Helper()
	if r.code != code {
		s.Errorf("want exit code %d, got %v", code, r)
	}
}

// wantError fails the test unless r failed with a text that has all of parts.
func (s *story) wantError(r result, parts ...string) {
	s.Helper()
	if r.code == 0 {
		s.Errorf("want a failure that says %q, got %v", parts, r)
		return
	}
	for _, p := range parts {
		if !strings.Contains(r.stderr, p) {
			s.Errorf("want a failure that says %q, got %v", p, r)
		}
	}
}
