// SPDX-License-Identifier: Apache-2.0

// Command libosbuild builds the library OS: kernel, initramfs and manifest.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/xcontainer/xcontainer/integration/kernelbuild"
)

func main() {
	checkout := flag.String("checkout", ".", "top of the project `tree`")
	dir := flag.String("o", "build/payload/share/xcontainer", "output `folder`")
	compress := flag.Bool("gzip", false, "compress the initramfs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	m, err := kernelbuild.Install(ctx, kernelbuild.Options{
		Checkout: *checkout, Dir: *dir, Compress: *compress,
		Progress: func(what string) { fmt.Fprintln(os.Stderr, "libos:", what) },
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "libosbuild:", err)
		os.Exit(1)
	}
	fmt.Fprintf(os.Stderr, "libos: Linux %s and the agent are in %s\n", m.Kernel.Version, *dir)
}
