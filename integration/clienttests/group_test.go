// SPDX-License-Identifier: Apache-2.0

package clienttests

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// script is a runner whose programs do what the script says, one entry each:
// lines to print, then how to end. "hang" waits for stop.
type script struct {
	programs [][]string
	asked    [][]string // the tests of each start
	stopped  chan struct{}
	cleaned  int
}

func (s *script) start(_ context.Context, tests []string, w io.Writer) (func() error, error) {
	s.asked = append(s.asked, slices.Clone(tests))
	if len(s.programs) == 0 {
		return nil, errors.New("no program left")
	}
	p := s.programs[0]
	s.programs = s.programs[1:]
	s.stopped = make(chan struct{})
	done := make(chan error, 1)
	go func() {
		for _, line := range p {
			name, word, _ := strings.Cut(line, " ")
			switch {
			case word == "lost":
				done <- errors.New("connection lost")
				return
			case word == "hang":
				<-s.stopped
				fmt.Fprint(w, marker+"--- PASS: "+name+" (0.00s)\n") // too late
				done <- exitCode(2)
				return
			case word == "dies":
				fmt.Fprint(w, "panic: "+name+"\n\n")
				done <- exitCode(2)
				return
			case word == "":
				fmt.Fprint(w, marker+"=== RUN   "+name+"\n")
			default:
				fmt.Fprint(w, marker+"--- "+word+": "+name+" (0.10s)\n")
			}
		}
		done <- nil
	}()
	return func() error { return <-done }, nil
}

func (s *script) stop(context.Context) error { close(s.stopped); return nil }

func (s *script) clean(context.Context) error { s.cleaned++; return nil }

func TestGroupRun(t *testing.T) {
	for name, tc := range map[string]struct {
		programs [][]string
		want     map[string]string // status, and what the reason holds
		starts   int
		rest     []string
		err      error
	}{
		"in order": {
			programs: [][]string{{"TestA", "TestA PASS", "TestB", "TestB SKIP", "TestC", "TestC FAIL"}},
			want:     map[string]string{"TestA": "PASS", "TestB": "SKIP", "TestC": "FAIL"},
			starts:   1,
		},
		"one hangs": {
			programs: [][]string{{"TestA", "TestA PASS", "TestB", "TestB hang"}, {"TestC", "TestC PASS"}},
			want:     map[string]string{"TestA": "PASS", "TestB": "FAIL no end within", "TestC": "PASS"},
			starts:   2,
		},
		"one dies": {
			programs: [][]string{{"TestA", "TestA dies"}, {"TestB", "TestB PASS", "TestC", "TestC PASS"}},
			want:     map[string]string{"TestA": "FAIL panic: TestA", "TestB": "PASS", "TestC": "PASS"},
			starts:   2,
		},
		"no daemon": {
			programs: [][]string{{"TestX dies"}},
			want:     map[string]string{"TestA": "FAIL code 2", "TestB": "FAIL code 2", "TestC": "FAIL panic: TestX"},
			starts:   1,
		},
		"a test that is not there": {
			programs: [][]string{{"TestA", "TestA PASS", "TestC", "TestC PASS"}},
			want:     map[string]string{"TestA": "PASS", "TestB": "FAIL did not run", "TestC": "PASS"},
			starts:   1,
		},
		"machine lost": {
			programs: [][]string{{"TestA", "TestA PASS", "TestB", "TestB lost"}},
			want:     map[string]string{"TestA": "PASS", "TestB": "FAIL machine"},
			starts:   1,
			rest:     []string{"TestC"},
			err:      errMachine,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := &script{programs: tc.programs}
			got := map[string]string{}
			bound := time.Minute
			if name == "one hangs" {
				bound = 50 * time.Millisecond
			}
			g := &groupRun{runner: s, bound: bound, log: io.Discard, each: func(n string, o outcome) {
				if _, ok := got[n]; ok {
					t.Errorf("%s ended twice", n)
				}
				got[n] = string(o.status) + " " + o.why
			}}
			rest, err := g.run(context.Background(), []string{"TestA", "TestB", "TestC"})
			if !slices.Equal(rest, tc.rest) || !errors.Is(err, tc.err) {
				t.Errorf("rest %v, error %v", rest, err)
			}
			if len(s.asked) != tc.starts {
				t.Errorf("started with %v", s.asked)
			}
			if !slices.Equal(slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(tc.want))) {
				t.Errorf("got %v", got)
			}
			for n, want := range tc.want {
				st, why, _ := strings.Cut(want, " ")
				if !strings.HasPrefix(got[n], st+" ") || !strings.Contains(got[n], why) {
					t.Errorf("%s: %q, want %q", n, got[n], want)
				}
			}
		})
	}
}
