// SPDX-License-Identifier: Apache-2.0

package tally

import (
	"errors"
	"fmt"
)

func ExampleTally_End() {
	fmt.Println(Tally{Passed: 3, Skipped: 1}.End("test", nil))
	fmt.Println(Tally{Passed: 3, Failed: 2}.End("test", nil))
	fmt.Println(Tally{Passed: 3}.End("test", errors.New("not all was run")))
	fmt.Println(Tally{Passed: 3, Failed: 2}.End("test", errors.New("not all was run")))
	// Output:
	// 3 passed, 0 failed, 1 skipped
	// true
	// 3 passed, 2 failed, 0 skipped
	// false
	// 3 passed, 1 failed, 0 skipped
	// false
	// 3 passed, 2 failed, 0 skipped
	// false
}
