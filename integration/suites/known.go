// SPDX-License-Identifier: Apache-2.0

package suites

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

//go:embed known
var knownFiles embed.FS

// Known has the tests that are known to differ, and why. The name of one may end in
// "*", which stands for whatever follows; it names the unit in any case.
type Known map[string]string

// find returns the entry for a test: its own, or else the longest with a "*".
func (k Known) find(test string) (entry string, ok bool) {
	if _, ok := k[test]; ok {
		return test, true
	}
	for e := range k {
		start, star := strings.CutSuffix(e, "*")
		if star && strings.HasPrefix(test, start) && len(e) > len(entry) {
			entry = e
		}
	}
	return entry, entry != ""
}

// Lists has what is known by the mode that differs from all others, and under
// AnyMode what may differ between any.
type Lists map[string]Known

// AnyMode is no mode's name.
const AnyMode = ""

// KnownOf returns what is known of a suite: what known/SUITE.known says, with more than
// one virtual CPU known/SUITE.smp.known, and for each mode that has one,
// known/SUITE.MODE.known.
func KnownOf(suite string, modes []string, vcpus int) (Lists, error) {
	all := Lists{}
	add := func(mode, name string) error {
		file := "known/" + name + ".known"
		text, err := knownFiles.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("suites: %w", err)
		}
		if all[mode] == nil {
			all[mode] = Known{}
		}
		if err := all[mode].add(string(text)); err != nil {
			return fmt.Errorf("suites: %s: %w", file, err)
		}
		return nil
	}
	err := add(AnyMode, suite)
	if vcpus > 1 {
		err = errors.Join(err, add(AnyMode, suite+".smp"))
	}
	for _, mode := range modes {
		err = errors.Join(err, add(mode, suite+"."+mode))
	}
	return all, err
}

// add reads lines "TEST # reason"; a line that begins with a blank goes on with the
// reason, and one that begins with # is a comment.
func (k Known) add(text string) error {
	var last string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \n")
		switch {
		case line == "" || strings.HasPrefix(line, "# ") || line == "#":
		case strings.HasPrefix(line, " ") && last != "":
			k[last] += " " + strings.TrimSpace(line)
		default:
			// The name may have "#2" in it, to tell it from one with the same words.
			i := strings.LastIndex(line, " # ")
			if i <= 0 || line[i+3:] == "" {
				return fmt.Errorf("line %q is not a test, \" # \" and a reason", line)
			}
			last = strings.TrimSpace(line[:i])
			if _, ok := k[last]; ok {
				return fmt.Errorf("%s stands there twice", last)
			}
			if strings.Contains(unitOf(last), "*") {
				return fmt.Errorf("%s names no unit", last)
			}
			k[last] = line[i+3:]
		}
	}
	return nil
}
