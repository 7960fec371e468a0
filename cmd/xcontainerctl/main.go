// SPDX-License-Identifier: Apache-2.0

// Command xcontainerctl shows what X-Containers are doing on this host, by
// asking Xen, the shims and their records; it needs no daemon. It changes nothing, but
// for the short-lived domain that `overhead` measures and what `sweep --yes`
// removes.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/xcontainer/xcontainer/pkg/libos"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == libos.BackendRole {
		if err := libos.RunBackend(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], realSystem(), os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
