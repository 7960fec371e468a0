// SPDX-License-Identifier: Apache-2.0

package clienttests

import (
	"bytes"
	"regexp"
	"strings"
	"time"
)

// status is how a test ended.
type status string

// What a test program says of a test, and what we say of one that it does not
// mention in the end.
const (
	passed  status = "PASS"
	failed  status = "FAIL"
	skipped status = "SKIP"
)

// event is what one line of a test program's output tells.
type event struct {
	name   string // of a top-level test
	begins bool   // it runs from now on; otherwise it has ended
	status status
	took   time.Duration
}

// marker stands before what the test program itself says when it runs with
// -test.v=test2json. No test prints it.
const marker = "\x16"

var (
	beginLine = regexp.MustCompile(`^=== (?:RUN|CONT) +(Test\w+)$`)
	pauseLine = regexp.MustCompile(`^=== PAUSE +(Test\w+)$`)
	endLine   = regexp.MustCompile(`^--- (PASS|FAIL|SKIP): (Test\w+) \(([0-9.]+)s\)$`)
)

// parseLine returns the event of a line, if it has one. Subtests have none.
func parseLine(line string) (event, bool) {
	i := strings.LastIndex(line, marker)
	if i < 0 {
		return event{}, false
	}
	line = strings.TrimRight(line[i+1:], "\r\n")
	if f := beginLine.FindStringSubmatch(line); f != nil {
		return event{name: f[1], begins: true}, true
	}
	// A paused test waits for its turn: nothing runs until the next line.
	if f := pauseLine.FindStringSubmatch(line); f != nil {
		return event{begins: true}, true
	}
	if f := endLine.FindStringSubmatch(line); f != nil {
		took, err := time.ParseDuration(f[3] + "s")
		if err != nil {
			return event{}, false
		}
		return event{name: f[2], status: status(f[1]), took: took}, true
	}
	return event{}, false
}

// lines is a writer that hands complete lines to a function.
type lines struct {
	each func(line string)
	rest []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		i := bytes.IndexByte(l.rest, '\n')
		if i < 0 {
			return len(p), nil
		}
		l.each(string(l.rest[:i+1]))
		l.rest = l.rest[i+1:]
	}
}
