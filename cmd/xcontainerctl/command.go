// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/xcontainer/xcontainer/pkg/shim/bootstrap"
	"github.com/xcontainer/xcontainer/pkg/xen"
)

const usage = `xcontainerctl shows and keeps in order the X-Containers of this host.

usage:
  xcontainerctl ps [--json] [--root DIR]
        domains with their containers
  xcontainerctl logs [--json] [--root DIR] [--namespace NAME] [-f] CONTAINER
        kernel log of a container's guest; -f goes on until the container ends
  xcontainerctl syscalls [--json] [--root DIR] [--namespace NAME] CONTAINER
        how a container's programs reach its kernel: directly or by way of Xen
  xcontainerctl check [--json] [--share DIR] [--address SOCKET]
        whether this host is fit for X-Containers, and what to do; exit code 1 if
        not
  xcontainerctl sweep [--json] [--root DIR] [--sockets DIR] [--yes]
        what dead shims left on this host; removed only with --yes (or --force)
  xcontainerctl overhead [--json] [--root DIR] [--share DIR] [--memory MIB]
        memory that a guest, its shim and its back-end take; boots an empty guest
  xcontainerctl version [--json] [--share DIR]
        versions of this program, the shim, the guest's kernel and Xen

A shim writes its own log to containerd's.
`

// Exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

var (
	// errUsage marks errors of the command line, which have been explained.
	errUsage = errors.New("usage")
	// errFound marks an outcome that has been printed and is no success.
	errFound = errors.New("found")
)

// system is what the commands look at, so that tests can stand in for it.
type system struct {
	openXen func() (*xen.Host, error)
	// bootGuest boots a guest without any container.
	bootGuest func(ctx context.Context, share string, memoryBytes uint64) (emptyGuest, error)
	// pss is a process's proportional set size in bytes.
	pss func(pid int) (uint64, error)
	now func() time.Time
	// output is what a program prints on its standard output.
	output func(ctx context.Context, program string, args ...string) (string, error)
	// metrics are a container's, encoded, from the shim that listens on a socket.
	metrics func(ctx context.Context, socket, id string) ([]byte, error)
	// dial connects to a socket and closes the connection.
	dial func(path string) error
	// feature tries one of the kernel's system calls.
	feature func(name string) error
	// files is where /dev, /proc and /sys are: the root directory.
	files string
	// maySweep says why this process cannot judge what is an orphan.
	maySweep func() error
	// settle is how long something is left before it is an orphan.
	settle time.Duration
}

// command is one run.
type command struct {
	system
	out, warn io.Writer
	args      []string // that are no options
	json      bool
	root      string // of the shims' bundles
	share     string // of the library OS
	sockets   string // folder of the shims' sockets
	address   string // containerd's socket
	namespace string // containerd's
	follow    bool
	yes       bool
	memoryMiB uint64
}

// option is one that a command may have besides --json.
type option int

const (
	optRoot option = iota
	optShare
	optSockets
	optAddress
	optNamespace
	optFollow
	optYes
	optMemory
)

// subcommand is what the first argument chooses.
type subcommand struct {
	run      func(*command, context.Context) error
	options  []option
	operands int
}

var subcommands = map[string]subcommand{
	"ps":       {(*command).ps, []option{optRoot}, 0},
	"logs":     {(*command).logs, []option{optRoot, optNamespace, optFollow}, 1},
	"syscalls": {(*command).syscalls, []option{optRoot, optNamespace}, 1},
	"check":    {(*command).check, []option{optShare, optAddress}, 0},
	"sweep":    {(*command).sweep, []option{optRoot, optSockets, optYes}, 0},
	"overhead": {(*command).overhead, []option{optRoot, optShare, optMemory}, 0},
	"version":  {(*command).version, []option{optShare}, 0},
}

// run runs the command that args name.
func run(ctx context.Context, args []string, sys system, out, errOut io.Writer) int {
	err := dispatch(ctx, args, &command{system: sys, out: out, warn: errOut})
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errUsage):
		return exitUsage
	case errors.Is(err, errFound):
		return exitError
	}
	fmt.Fprintf(errOut, "xcontainerctl: %v\n", err)
	return exitError
}

func dispatch(ctx context.Context, args []string, c *command) error {
	name := ""
	if len(args) > 0 {
		name = args[0]
	}
	if name == "help" || name == "-h" || name == "--help" {
		_, err := io.WriteString(c.out, usage)
		return err
	}
	sub, ok := subcommands[name]
	if !ok {
		if name != "" {
			fmt.Fprintf(c.warn, "xcontainerctl: no command %q\n\n", name)
		}
		fmt.Fprint(c.warn, usage)
		return errUsage
	}
	if err := c.parse(name, sub, args[1:]); err != nil {
		return err
	}
	return sub.run(c, ctx)
}

// parse reads the options of a command, which may stand before and after its
// operands.
func (c *command) parse(name string, sub subcommand, args []string) error {
	flags := flag.NewFlagSet("xcontainerctl "+name, flag.ContinueOnError)
	flags.SetOutput(c.warn)
	flags.BoolVar(&c.json, "json", false, "print JSON")
	for _, o := range sub.options {
		c.define(flags, o)
	}
	for {
		if err := flags.Parse(args); err != nil {
			return errUsage
		}
		if flags.NArg() == 0 {
			break
		}
		c.args = append(c.args, flags.Arg(0))
		args = flags.Args()[1:]
	}
	if len(c.args) > sub.operands {
		fmt.Fprintf(c.warn, "xcontainerctl %s: unexpected argument %q\n", name, c.args[sub.operands])
		return errUsage
	}
	if len(c.args) < sub.operands {
		fmt.Fprintf(c.warn, "xcontainerctl %s: which container? xcontainerctl help shows the usage\n", name)
		return errUsage
	}
	return nil
}

func (c *command) define(flags *flag.FlagSet, o option) {
	switch o {
	case optRoot:
		flags.StringVar(&c.root, "root", defaultRoot, "containerd's state `folder` of tasks")
	case optShare:
		flags.StringVar(&c.share, "share", defaultShare(), "`folder` of the guest's kernel and initramfs")
	case optSockets:
		flags.StringVar(&c.sockets, "sockets", bootstrap.DefaultSocketDir, "`folder` of the shims' sockets")
	case optAddress:
		flags.StringVar(&c.address, "address", defaultAddress, "containerd's `socket`")
	case optNamespace:
		flags.StringVar(&c.namespace, "namespace", "default", "containerd's `namespace` of the container")
	case optFollow:
		flags.BoolVar(&c.follow, "f", false, "go on until the container ends")
	case optYes:
		flags.BoolVar(&c.yes, "yes", false, "remove what is found")
		flags.BoolVar(&c.yes, "force", false, "the same as --yes")
	case optMemory:
		flags.Uint64Var(&c.memoryMiB, "memory", 128, "memory of the empty guest in `MiB`")
	}
}

// printJSON writes v as a document of its own.
func (c *command) printJSON(v any) error {
	e := json.NewEncoder(c.out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
