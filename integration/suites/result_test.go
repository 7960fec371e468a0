// SPDX-License-Identifier: Apache-2.0

package suites

import (
	"maps"
	"testing"
)

func TestReadResults(t *testing.T) {
	r := Results{"a": Pass, "a:1 with # and blanks": Fail, "b x:2": Skip, "c": Broken}
	got, err := ReadResults(r.String())
	if err != nil || !maps.Equal(got, r) {
		t.Errorf("ReadResults(%q) = %v, %v", r.String(), got, err)
	}
	for _, bad := range []string{"pass", "good a\n", "missing a\n", "\n"} {
		if got, err := ReadResults(bad); err == nil {
			t.Errorf("ReadResults(%q) = %v, want an error", bad, got)
		}
	}
	if got, want := r.Of([]string{"b x", "c"}), (Results{"b x:2": Skip, "c": Broken}); !maps.Equal(got, want) {
		t.Errorf("Of = %v, want %v", got, want)
	}
}
