// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// samples collects times by what was timed.
type samples struct {
	whole map[string][]time.Duration // by runtime
	steps map[string][]time.Duration // by the step's name
	order []string                   // of steps, as they first came
}

func newSamples() *samples {
	return &samples{whole: map[string][]time.Duration{}, steps: map[string][]time.Duration{}}
}

// stepsField is the field of the shim's log line with its steps:
// name=1.234ms, apart by spaces.
var stepsField = regexp.MustCompile(`steps="([^"]*)"`)

// add takes the output of one run: its nanoseconds on the first line, and then,
// for our runtime, the shim's log line.
func (s *samples) add(runtime, output string) error {
	first, rest, _ := strings.Cut(output, "\n")
	ns, err := strconv.ParseInt(first, 10, 64)
	if err != nil || ns <= 0 {
		return fmt.Errorf("%s: no time in %q", runtime, output)
	}
	s.whole[runtime] = append(s.whole[runtime], time.Duration(ns))
	if runtime != ours {
		return nil
	}
	m := stepsField.FindStringSubmatch(rest)
	if m == nil {
		return fmt.Errorf("%s: the shim logged no steps: %q", runtime, rest)
	}
	for _, field := range strings.Fields(m[1]) {
		name, value, _ := strings.Cut(field, "=")
		d, err := time.ParseDuration(value)
		if err != nil {
			return fmt.Errorf("%s: step %q: %w", runtime, field, err)
		}
		if s.steps[name] == nil {
			s.order = append(s.order, name)
		}
		s.steps[name] = append(s.steps[name], d)
	}
	return nil
}

// table renders medians and, as a measure of the noise, the quartiles.
func (s *samples) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-34s %10s %10s %10s   (milliseconds, %d runs)\n", "", "quarter", "median", "3 quarters", len(s.whole[ours]))
	row := func(name string, d []time.Duration) {
		fmt.Fprintf(&b, "%-34s %10.1f %10.1f %10.1f\n", name, ms(quantile(d, 1, 4)), ms(quantile(d, 1, 2)), ms(quantile(d, 3, 4)))
	}
	for _, name := range s.order {
		row("  "+name, s.steps[name])
	}
	row("ctr run true, "+ours, s.whole[ours])
	row("ctr run true, "+runc, s.whole[runc])
	ratio := float64(quantile(s.whole[ours], 1, 2)) / float64(max(1, quantile(s.whole[runc], 1, 2)))
	fmt.Fprintf(&b, "%-34s %21.2f\n", "ratio of the medians", ratio)
	return b.String()
}

// quantile returns the value below which num/den of d lie; d may be empty.
func quantile(d []time.Duration, num, den int) time.Duration {
	if len(d) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(d))
	// Between two neighbours, in proportion.
	pos := (len(sorted) - 1) * num
	i, part := pos/den, pos%den
	if part == 0 {
		return sorted[i]
	}
	return sorted[i] + (sorted[i+1]-sorted[i])*time.Duration(part)/time.Duration(den)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
