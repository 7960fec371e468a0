// SPDX-License-Identifier: Apache-2.0

// Package tally counts what a run of checks found and renders the line that
// every such run ends with.
package tally

import (
	"fmt"
	"os"
)

// Tally counts checks. The zero value is ready.
type Tally struct {
	Passed, Failed, Skipped int
}

// String is "N passed, N failed, N skipped".
func (t Tally) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", t.Passed, t.Failed, t.Skipped)
}

// End prints the last line of the program called name, and tells whether nothing
// has failed. A run that did not get to its end has failed, whatever it counted:
// err says why, on stderr.
func (t Tally) End(name string, err error) bool {
	if err != nil {
		t.Failed = max(t.Failed, 1)
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
	}
	fmt.Println(t)
	return t.Failed == 0
}
