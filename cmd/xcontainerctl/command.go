// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"runtime/debug"
	"time"

	"github.com/xcontainer/xcontainer/pkg/xen"
)

const usage = `xcontainerctl shows the X-Containers of this host.

usage:
  xcontainerctl ps [--json] [--root DIR]
        domains with their containers
  xcontainerctl overhead [--json] [--root DIR] [--share DIR] [--memory MIB]
        memory that a guest, its shim and its back-end take; boots an empty guest
  xcontainerctl version [--json]
        versions of this program and of Xen
`

// Exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

// errUsage marks errors of the command line, which have been explained.
var errUsage = errors.New("usage")

// system is what the commands look at, so that tests can stand in for it.
type system struct {
	openXen func() (*xen.Host, error)
	// bootGuest boots a guest without any container.
	bootGuest func(ctx context.Context, share string, memoryBytes uint64) (emptyGuest, error)
	// pss is a process's proportional set size in bytes.
	pss func(pid int) (uint64, error)
	now func() time.Time
}

// command is one run.
type command struct {
	system
	out, warn io.Writer
	json      bool
	root      string // of the shims' bundles
	share     string // of the library OS
	memoryMiB uint64
}

// run runs the command that args name.
func run(ctx context.Context, args []string, sys system, out, errOut io.Writer) int {
	err := dispatch(ctx, args, &command{system: sys, out: out, warn: errOut})
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errUsage):
		return exitUsage
	}
	fmt.Fprintf(errOut, "xcontainerctl: %v\n", err)
	return exitError
}

func dispatch(ctx context.Context, args []string, c *command) error {
	commands := map[string]func(context.Context) error{
		"ps": c.ps, "overhead": c.overhead, "version": c.version,
	}
	name := ""
	if len(args) > 0 {
		name = args[0]
	}
	if name == "help" || name == "-h" || name == "--help" {
		_, err := io.WriteString(c.out, usage)
		return err
	}
	f, ok := commands[name]
	if !ok {
		if name != "" {
			fmt.Fprintf(c.warn, "xcontainerctl: no command %q\n\n", name)
		}
		fmt.Fprint(c.warn, usage)
		return errUsage
	}
	if err := c.parse(name, args[1:]); err != nil {
		return err
	}
	return f(ctx)
}

// parse reads the options of a command.
func (c *command) parse(name string, args []string) error {
	flags := flag.NewFlagSet("xcontainerctl "+name, flag.ContinueOnError)
	flags.SetOutput(c.warn)
	flags.BoolVar(&c.json, "json", false, "print JSON")
	if name != "version" {
		flags.StringVar(&c.root, "root", defaultRoot, "containerd's state `folder` of tasks")
	}
	if name == "overhead" {
		flags.StringVar(&c.share, "share", defaultShare(), "`folder` of the guest's kernel and initramfs")
		flags.Uint64Var(&c.memoryMiB, "memory", 128, "memory of the empty guest in `MiB`")
	}
	if err := flags.Parse(args); err != nil {
		return errUsage
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(c.warn, "xcontainerctl %s: unexpected argument %q\n", name, flags.Arg(0))
		return errUsage
	}
	return nil
}

// printJSON writes v as a document of its own.
func (c *command) printJSON(v any) error {
	e := json.NewEncoder(c.out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// versions is what `version --json` prints.
type versions struct {
	Program string `json:"program"`
	Xen     string `json:"xen,omitempty"`
	Domctl  uint32 `json:"domctl,omitempty"`
}

// version does not fail without Xen: it is asked for in bug reports.
func (c *command) version(context.Context) error {
	v := versions{Program: "unknown"}
	if info, ok := debug.ReadBuildInfo(); ok {
		v.Program = info.Main.Version
	}
	host, err := c.openXen()
	if err == nil {
		defer host.Close()
		v.Xen, v.Domctl = host.Version().String(), host.Version().Domctl
	}
	if c.json {
		return c.printJSON(v)
	}
	if err != nil {
		_, err = fmt.Fprintf(c.out, "xcontainerctl %s\n%v\n", v.Program, err)
		return err
	}
	_, err = fmt.Fprintf(c.out, "xcontainerctl %s\n%s, domctl interface %#x\n", v.Program, v.Xen, v.Domctl)
	return err
}
