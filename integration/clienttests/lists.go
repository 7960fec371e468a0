// SPDX-License-Identifier: Apache-2.0

package clienttests

import (
	_ "embed"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// MaxExceptions is how many tests may be excepted.
const MaxExceptions = 12

var (
	//go:embed runc-passes.txt
	runcPassesText string
	//go:embed exceptions.txt
	exceptionsText string
	//go:embed never-run.txt
	neverRunText string
	//go:embed short.txt
	shortText string
)

// Lists say which tests count.
type Lists struct {
	RuncPasses []string          // pass with runc in the lab
	Exceptions map[string]string // cannot pass on our runtime: the reason
	NeverRun   map[string]string // are not even tried: the reason
	Short      []string          // the short run, in this order
}

// Committed returns the lists that are part of the project.
func Committed() (Lists, error) {
	l := Lists{RuncPasses: parseNames(runcPassesText), Short: parseNames(shortText)}
	var err error
	if l.Exceptions, err = parseReasons(exceptionsText); err != nil {
		return l, fmt.Errorf("exceptions.txt: %w", err)
	}
	if l.NeverRun, err = parseReasons(neverRunText); err != nil {
		return l, fmt.Errorf("never-run.txt: %w", err)
	}
	return l, nil
}

// Check looks for contradictions. While runc's passes are still being recorded
// there may be some.
func (l Lists) Check() error {
	if n := len(l.Exceptions); n > MaxExceptions {
		return fmt.Errorf("exceptions.txt has %d tests, at most %d are allowed", n, MaxExceptions)
	}
	for name := range l.Exceptions {
		if !slices.Contains(l.RuncPasses, name) {
			return fmt.Errorf("exceptions.txt has %s, which is not in runc-passes.txt", name)
		}
	}
	for _, name := range l.Short {
		if !slices.Contains(l.RuncPasses, name) {
			return fmt.Errorf("short.txt has %s, which is not in runc-passes.txt", name)
		}
		if _, ok := l.Exceptions[name]; ok {
			return fmt.Errorf("short.txt has %s, which is an exception", name)
		}
	}
	return nil
}

// parseNames reads one name a line; # begins a comment.
func parseNames(text string) []string {
	var names []string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" {
			names = append(names, line)
		}
	}
	return names
}

// reasonLine is "TestName: reason".
var reasonLine = regexp.MustCompile(`^(Test\w+): (\S.*)$`)

// parseReasons reads lines of a name, a colon and a reason, which a line that
// begins with a blank continues.
func parseReasons(text string) (map[string]string, error) {
	m := map[string]string{}
	var last string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch f := reasonLine.FindStringSubmatch(line); {
		case strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, " ") && last != "":
			m[last] += " " + strings.TrimSpace(line)
		case f == nil:
			return nil, fmt.Errorf("line %q is not a test's name, a colon and a reason", line)
		default:
			last = f[1]
			if _, ok := m[last]; ok {
				return nil, fmt.Errorf("%s stands there twice", last)
			}
			m[last] = f[2]
		}
	}
	return m, nil
}
