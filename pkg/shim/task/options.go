// SPDX-License-Identifier: Apache-2.0

package task

import (
	"fmt"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xcontainer/xcontainer/pkg/shim/options"
)

// ignoredOptions names what has no effect of a task's options, in words for the
// log. What is heeded of them the shim knew when it started. Clients that were
// written for runc send them to any runtime, so nothing in them fails Create.
func ignoredOptions(a *anypb.Any) []string {
	o, err := options.Decode(a)
	if err != nil {
		return []string{fmt.Sprintf("options that cannot be read (%v)", err)}
	}
	return o.Ignored
}
