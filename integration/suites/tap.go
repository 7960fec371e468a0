// SPDX-License-Identifier: Apache-2.0

package suites

import (
	"regexp"
	"strings"
)

// tapLine is a test's line of the Test Anything Protocol: "ok 3 - name # SKIP why".
var tapLine = regexp.MustCompile(`^(ok|not ok)\b[ \t]*([0-9]*)(?:[ \t]+-)?[ \t]*([^#]*)(?:#[ \t]*(\w*))?`)

// tapNothing is the plan of a program that skips all of its tests.
var tapNothing = regexp.MustCompile(`^1\.\.0\b`)

// ParseTAP reads the Test Anything Protocol, as kselftest (Linux
// Documentation/dev-tools/ktap.rst) and Perl's tests write it. A test's number is
// part of its name, and what changes from run to run is not.
func ParseTAP(o Output) Results { return parseTAP(o, true) }

// ParseNumbers reads it too, and takes only the number for a test's name.
func ParseNumbers(o Output) Results { return parseTAP(o, false) }

func parseTAP(o Output, words bool) Results {
	r := Results{}
	for line := range strings.Lines(o.Text) {
		if tapNothing.MatchString(line) {
			r["plan"] = Skip
		}
		f := tapLine.FindStringSubmatch(strings.TrimRight(line, "\r\n"))
		// Without a number and a name it is a sentence that begins with "ok".
		if f == nil || f[2] == "" {
			continue
		}
		name := f[2]
		if text := steady(f[3]); words && text != "" {
			name += " " + text
		}
		r.put(name, tapStatus(f[1], strings.ToUpper(f[4])))
	}
	return r
}

// tapStatus takes a test that is expected to fail (TODO, XFAIL) as kselftest does:
// as one that has passed.
func tapStatus(verdict, directive string) Status {
	switch {
	case strings.HasPrefix(directive, "SKIP"):
		return Skip
	case verdict == "ok" || directive == "TODO" || directive == "XFAIL":
		return Pass
	}
	return Fail
}

// What differs between two runs of the same test: addresses, and numbers of
// processes, files, times and memory.
var (
	address = regexp.MustCompile(`0x[0-9a-fA-F]+`)
	number  = regexp.MustCompile(`\b[0-9]+(\.[0-9]+)?([kKMG]B)?\b`)
	space   = regexp.MustCompile(`\s+`)
)

// nameLimit keeps a test's name readable, in bytes.
const nameLimit = 120

// steady takes out of a description what changes from run to run.
func steady(text string) string {
	text = address.ReplaceAllString(text, "0x-")
	text = number.ReplaceAllString(text, "N")
	text = strings.TrimSpace(space.ReplaceAllString(text, " "))
	if len(text) > nameLimit {
		text = strings.ToValidUTF8(text[:nameLimit], "")
	}
	return text
}
