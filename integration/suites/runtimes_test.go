// SPDX-License-Identifier: Apache-2.0

package suites

import "testing"

// What a part came to is in its name, so that another result is a difference.
func TestRuntimeResultsDiffer(t *testing.T) {
	s := java()
	c := Comparison{Modes: []string{"full", "off"}, Results: map[string]Results{
		"full": s.Results("g1", Output{Text: "RESULT pass threads = 17 64000\nRESULT pass timers = 50 true\n"}),
		"off":  s.Results("g1", Output{Text: "RESULT pass threads = 18 64000\nRESULT pass timers = 50 true\n"}),
	}}
	if ds := c.Differences(); len(ds) != 2 {
		t.Errorf("%d differences, want the two results of threads: %v", len(ds), ds)
	}
}
