// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"context"
	"io"
	"os"

	"github.com/xcontainer/xcontainer/pkg/backend/control"
	"github.com/xcontainer/xcontainer/pkg/noxs"
)

// Sources of events. Device i of the layout is source i.
const (
	Doorbell   = noxs.MaxDevices
	Console    = noxs.MaxDevices + 1
	maxSources = noxs.MaxDevices + 2
)

// Events are the event channels of one domain.
type Events interface {
	// Next waits for events and appends their sources to buf. The channels
	// can fire again before it returns. It fails with os.ErrClosed after
	// Close.
	Next(buf []int) ([]int, error)
	// Notify sends the guest an event of a source. It does not block and may
	// be called from any goroutine.
	Notify(source int) error
	// Close makes Next return. It may be called twice.
	Close() error
}

// Handles are what the process has of its domain. The mappings stay until it
// ends.
type Handles struct {
	Page    []byte // the device page
	Pool    []byte // layout.PoolPages pages
	Console []byte // the console ring's page

	// Disks are for the block devices of the layout, in its order: regular
	// files or block devices, opened as the layout says and locked.
	Disks []*os.File

	Events Events
	// ConsoleOut takes the kernel's log; it may block. A SetWriteDeadline
	// method is used at the end.
	ConsoleOut io.Writer
}

// Options are the parts of the process that differ between real use and tests.
type Options struct {
	// Open turns the shim's configuration and descriptors into Handles. It
	// owns the files, also when it fails.
	Open func(cfg control.Config, files []*os.File) (Handles, error)
	// Confine gives up privileges; nil does not. It is called once, after
	// Open and before anything of the guest's is looked at.
	Confine func() error
	// Logf is told of what is worth a line in a log; nil drops it.
	Logf func(format string, args ...any)
}

// Run serves one domain until the shim closes its end of the conversation on
// server, or ctx ends, and then returns nil; everything it started has ended. It
// returns an error, of which the shim has heard, when the guest breaks the rules
// of its devices or the process cannot go on.
func Run(ctx context.Context, server *control.Server, o Options) error {
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	p := newProcess(server, o)
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	err := server.Serve(p)
	p.shutdown()
	if ferr := p.failure(); ferr != nil {
		return ferr
	}
	return err
}
