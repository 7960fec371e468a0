// SPDX-License-Identifier: Apache-2.0

// containerd-shim-xcontainer-v2 is the containerd runtime
// io.containerd.xcontainer.v2: each container in a Xen domain of its own.
package main

import (
	"os"

	"github.com/xcontainer/xcontainer/pkg/shim"
)

func main() { os.Exit(shim.Main(os.Args, shim.Libos())) }
