// SPDX-License-Identifier: Apache-2.0

// soak runs many execs and many containers in a lab and looks for what grows. It
// copies itself to the lab's dom0 and does its work there.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/xcontainer/xcontainer/integration/internal/labrun"
	"github.com/xcontainer/xcontainer/integration/soak"
)

func main() {
	short := flag.Bool("short", false, "the short form")
	c := soak.Long
	flag.IntVar(&c.Execs, "execs", c.Execs, "execs in one `container`")
	flag.IntVar(&c.From, "from", c.From, "the `exec` from which on nothing may grow")
	flag.IntVar(&c.Cycles, "cycles", c.Cycles, "`containers`")
	flag.IntVar(&c.Warm, "warm", c.Warm, "`containers` before them")
	flag.IntVar(&c.Lives, "lives", c.Lives, "`containers` that are paused, updated and killed")
	flag.Parse()
	if *short {
		c = soak.Short
	}
	if c.From < 1 || c.Execs <= c.From || c.Cycles < 1 || c.Warm < 1 || c.Lives < 1 {
		fmt.Fprintln(os.Stderr, "soak: -execs must be more than -from, and all at least 1")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	arg := func(name string, n int) string { return "-" + name + "=" + strconv.Itoa(n) }
	inDom0 := func(ctx context.Context) bool { return soak.Run(ctx, c) }
	os.Exit(labrun.Main(ctx, "soak", inDom0,
		arg("execs", c.Execs), arg("from", c.From), arg("cycles", c.Cycles), arg("warm", c.Warm), arg("lives", c.Lives)))
}
