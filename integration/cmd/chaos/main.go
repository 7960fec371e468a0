// SPDX-License-Identifier: Apache-2.0

// chaos kills what containers need at random points of their lives, in a lab. It
// copies itself to the lab's dom0 and does its work there.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/xcontainer/xcontainer/integration/chaos"
	"github.com/xcontainer/xcontainer/integration/internal/labrun"
)

// Lives of the two forms, and the seed of the short one: a test that runs every
// time should run the same.
const (
	longLives  = 100
	shortLives = 10
	shortSeed  = 3
)

func main() {
	short := flag.Bool("short", false, "the short form")
	var c chaos.Config
	flag.Uint64Var(&c.Seed, "seed", 0, "`number` that all blows follow from (default: the time)")
	flag.IntVar(&c.Lives, "lives", longLives, "`containers`")
	flag.IntVar(&c.Only, "only", 0, "live this life alone, by its `number`")
	flag.Parse()
	if *short {
		c.Lives = shortLives
		if c.Seed == 0 {
			c.Seed = shortSeed
		}
	}
	if c.Seed == 0 {
		c.Seed = uint64(time.Now().UnixNano()) % 1e6
	}
	if c.Lives < 1 || c.Only < 0 || c.Only > c.Lives {
		fmt.Fprintln(os.Stderr, "chaos: -lives must be at least 1, and -only one of them")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	inDom0 := func(ctx context.Context) bool { return chaos.Run(ctx, c) }
	os.Exit(labrun.Main(ctx, "chaos", inDom0,
		fmt.Sprintf("-seed=%d", c.Seed), fmt.Sprintf("-lives=%d", c.Lives), fmt.Sprintf("-only=%d", c.Only)))
}
