// SPDX-License-Identifier: Apache-2.0

// Package tally counts what a run of checks found and renders the line that
// every such run ends with.
package tally

import "fmt"

// Tally counts checks. The zero value is ready.
type Tally struct {
	Passed, Failed, Skipped int
}

// String is "N passed, N failed, N skipped".
func (t Tally) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", t.Passed, t.Failed, t.Skipped)
}
