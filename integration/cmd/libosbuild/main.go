// SPDX-License-Identifier: Apache-2.0

// Command libosbuild builds the library OS: kernels, initramfs and manifest.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/xcontainer/xcontainer/integration/kernelbuild"
	"github.com/xcontainer/xcontainer/integration/lab"
)

func main() {
	compress := flag.Bool("gzip", false, "compress the initramfs: a smaller file, a longer boot")
	debug := flag.Bool("debug", false, "build the kernel that checks itself, vmlinux-debug, and nothing else")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: libosbuild [-gzip | -debug] FOLDER\n\nBuild the library OS of the checkout around the working directory into FOLDER.")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 || *compress && *debug {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := build(ctx, flag.Arg(0), *compress, *debug); err != nil {
		fmt.Fprintln(os.Stderr, "libosbuild:", err)
		os.Exit(1)
	}
}

func build(ctx context.Context, dir string, compress, debug bool) error {
	checkout, err := lab.FindCheckout(".")
	if err != nil {
		return err
	}
	install, what := kernelbuild.Install, "two kernels and the agent are"
	if debug {
		install, what = kernelbuild.InstallDebug, "a kernel for tests is"
	}
	m, err := install(ctx, kernelbuild.Options{
		Checkout: checkout, Dir: dir, Compress: compress,
		Progress: func(what string) { fmt.Fprintln(os.Stderr, "libos:", what) },
	})
	if err == nil {
		fmt.Fprintf(os.Stderr, "libos: Linux %s, %s in %s\n", m.Kernel.Version, what, dir)
	}
	return err
}
