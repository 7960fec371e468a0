// SPDX-License-Identifier: Apache-2.0

// daemons runs one container's life with each supported containerd, in one lab.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/xcontainer/xcontainer/integration/daemons"
	"github.com/xcontainer/xcontainer/integration/internal/labrun"
)

// labName keeps this machine apart from others.
const labName = "daemons"

func main() {
	only := flag.String("only", "", "try only these release `lines`, like 1.6,2.4")
	build := flag.Bool("build", false, "build the daemons and start nothing")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	ok, err := run(ctx, *only, *build)
	if err != nil {
		fmt.Fprintln(os.Stderr, "daemons:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// run tries the daemons and reports whether no check failed.
func run(ctx context.Context, only string, build bool) (bool, error) {
	ds, err := choose(only)
	if err != nil {
		return false, err
	}
	var say labrun.Checks
	say.Begin()
	o, err := labrun.Options(labName, &say)
	if err != nil {
		return false, err
	}
	if build {
		return true, daemons.Build(ctx, o, ds)
	}
	t, err := daemons.Run(ctx, o, ds, filepath.Join(o.Checkout, "build", labName), say.Say)
	return t.End("daemons", err), nil
}

// choose returns the named daemons, or all.
func choose(only string) ([]daemons.Daemon, error) {
	if only == "" {
		return daemons.All, nil
	}
	var ds []daemons.Daemon
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(daemons.All, func(d daemons.Daemon) bool { return d.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("-only: no daemon %q", name)
		}
		ds = append(ds, daemons.All[i])
	}
	return ds, nil
}
