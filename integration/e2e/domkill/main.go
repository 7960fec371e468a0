// SPDX-License-Identifier: Apache-2.0

// Domkill destroys a domain behind the back of whoever made it.
//
//	domkill DOMID
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/xcontainer/xcontainer/pkg/xen"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "domkill:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: domkill DOMID")
	}
	id, err := strconv.ParseUint(args[0], 10, 16)
	if err != nil || id == 0 {
		return fmt.Errorf("%q is no domain that can be destroyed", args[0])
	}
	host, err := xen.Open()
	if err != nil {
		return err
	}
	defer host.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	all, err := host.List(ctx)
	if err != nil {
		return err
	}
	for _, info := range all {
		if uint64(info.ID) != id {
			continue
		}
		d, err := host.Lookup(info.ID, info.UUID)
		if err != nil {
			return err
		}
		return d.Destroy(ctx)
	}
	return fmt.Errorf("no domain %d", id)
}
