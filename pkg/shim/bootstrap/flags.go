// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"errors"
	"flag"
	"fmt"
	"io"
)

// Flags is the command line that containerd gives a shim.
type Flags struct {
	Namespace string // containerd's
	ID        string // the container's
	Address   string // of containerd's gRPC socket
	Bundle    string // with `delete` only; empty: the working directory
	Socket    string // ours, from `start` to the serving process: what to remove at the end
	Debug     bool   // debug messages, and a socket for a profiler
	LogLevel  string // ours, from `start` to the serving process; empty: as Debug says
	Version   bool   // -v: print the version and exit
	Info      bool   // -info: print RuntimeInfo and exit
	Action    string
	Args      []string // after the action
}

// Actions that containerd asks for. Without one the process serves.
const (
	ActionStart  = "start"
	ActionDelete = "delete"
)

// ParseFlags parses a command line without the program's name.
func ParseFlags(args []string) (Flags, error) {
	var f Flags
	set := flag.NewFlagSet("shim", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.StringVar(&f.Namespace, "namespace", "", "")
	set.StringVar(&f.ID, "id", "", "")
	set.StringVar(&f.Address, "address", "", "")
	set.String("publish-binary", "", "") // events go over ttrpc
	set.StringVar(&f.Bundle, "bundle", "", "")
	set.StringVar(&f.Socket, "socket", "", "")
	set.BoolVar(&f.Debug, "debug", false, "")
	set.StringVar(&f.LogLevel, "log-level", "", "")
	set.BoolVar(&f.Version, "v", false, "")
	set.BoolVar(&f.Version, "version", false, "")
	set.BoolVar(&f.Info, "info", false, "")
	if err := set.Parse(args); err != nil {
		return f, fmt.Errorf("command line: %w", err)
	}
	f.Action = set.Arg(0)
	if set.NArg() > 1 {
		f.Args = set.Args()[1:]
	}
	return f, nil
}

// need says which of the flags of start, delete and serving is missing.
func (f *Flags) need() error {
	if f.Namespace == "" || f.ID == "" {
		return errors.New("this program is started by containerd, with -namespace and -id; for a container use: ctr run --runtime io.containerd.xcontainer.v2 IMAGE NAME")
	}
	return nil
}

// Level is that of the serving process's log.
func (f *Flags) Level() string {
	switch {
	case f.LogLevel != "":
		return f.LogLevel
	case f.Debug:
		return levelDebug
	default:
		return levelInfo
	}
}

// Serving checks the flags of the serving process.
func (f *Flags) Serving() error {
	if f.Action != "" {
		return fmt.Errorf("unknown action %q; containerd uses start and delete", f.Action)
	}
	return f.need()
}
