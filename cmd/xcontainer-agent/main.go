// SPDX-License-Identifier: Apache-2.0

// Command xcontainer-agent is /init of a guest: its first process and, under
// another name, the second stage of every process that it starts.
package main

import (
	"fmt"
	"os"

	"github.com/xcontainer/xcontainer/pkg/libos/agent"
	"github.com/xcontainer/xcontainer/pkg/libos/agent/stage"
)

func main() {
	if stage.Is() {
		stage.Main()
	}
	if err := agent.Boot(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
