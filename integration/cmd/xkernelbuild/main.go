// SPDX-License-Identifier: Apache-2.0

// Command xkernelbuild builds the X-Kernels: Debian's Xen with the patches of
// pkg/xen/xkernel, one for each version that there are patches for.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/xcontainer/xcontainer/integration/xenbuild"
)

func main() {
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: xkernelbuild FOLDER\n\nBuild the X-Kernels, with their configurations and manifests, into FOLDER.")
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	all, err := xenbuild.Install(ctx, xenbuild.Options{
		Dir:      flag.Arg(0),
		Progress: func(what string) { fmt.Fprintln(os.Stderr, "xkernel:", what) },
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "xkernelbuild:", err)
		os.Exit(1)
	}
	for _, m := range all {
		fmt.Fprintf(os.Stderr, "xkernel: Xen %s is in %s, of Debian's source %s\n", m.Version, flag.Arg(0), m.SourceVersion)
		if m.Superseded != "" {
			fmt.Fprintf(os.Stderr, "xkernel: this mirror has no source of Debian's %s, so it is made from %s, which may lack security fixes\n",
				m.Superseded, m.SourceVersion)
		}
	}
	fmt.Fprintln(os.Stderr, "xkernel: what is newer by now is known after: bin/lab build --update")
}
