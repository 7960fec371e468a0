// SPDX-License-Identifier: Apache-2.0

// Command lab runs a real Xen host in QEMU for this checkout; see docs/lab.md.
package main

import (
	"os"

	"github.com/xcontainer/xcontainer/integration/internal/labcmd"
)

func main() { os.Exit(labcmd.Main(os.Args[1:])) }
