// SPDX-License-Identifier: Apache-2.0

package libos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/xcontainer/xcontainer/pkg/backend/confine"
	"github.com/xcontainer/xcontainer/pkg/backend/control"
	"github.com/xcontainer/xcontainer/pkg/backend/proc"
	"github.com/xcontainer/xcontainer/pkg/xen/abi"
	"github.com/xcontainer/xcontainer/pkg/xen/evtchn"
	"github.com/xcontainer/xcontainer/pkg/xen/foreign"
)

// controlFD is where a back-end process inherits its end of the control socket.
const controlFD = 3

// RunBackend is the whole life of a back-end process: the one place where the
// back-ends, which know nothing of Xen, get a domain's memory and events. It
// returns when the shim closes its end or the devices cannot go on.
func RunBackend() error {
	if err := confine.CloseOthers(controlFD); err != nil {
		return fmt.Errorf("back-end: %w", err)
	}
	conn, err := control.Inherit(os.NewFile(controlFD, "control"))
	if err != nil {
		return fmt.Errorf("back-end: %w", err)
	}
	return proc.Run(context.Background(), control.NewServer(conn), proc.Options{Open: openDomain, Confine: confine.Drop})
}

// openDomain maps the domain's shared pages and takes over its event channels.
func openDomain(cfg control.Config, files []*os.File) (h proc.Handles, err error) {
	defer func() {
		if err != nil {
			closeAll(files...)
		}
	}()
	if len(files) < 3 {
		return h, fmt.Errorf("got %d descriptors, want privcmd, evtchn, console and disks", len(files))
	}
	privcmd, channels, consoleOut, disks := files[0], files[1], files[2], files[3:]
	// The mapping outlives the descriptor, which nobody needs after it.
	defer privcmd.Close()
	var w wiring
	if err := json.Unmarshal(cfg.Wiring, &w); err != nil {
		return h, fmt.Errorf("decode the wiring: %w", err)
	}
	page, pool, ring, _, err := foreign.MapBackend(privcmd, w.Map)
	if err != nil {
		return h, err
	}
	return proc.Handles{
		Page: page, Pool: pool, Console: ring, ConsoleOut: consoleOut, Disks: disks,
		Events: newEvents(evtchn.New(channels), w),
	}, nil
}

// events gives the domain's event channels the numbers of proc's sources.
type events struct {
	ch     *evtchn.Channels
	source map[abi.Port]int
	port   map[int]abi.Port
	buf    []abi.Port
}

func newEvents(ch *evtchn.Channels, w wiring) *events {
	e := &events{ch: ch, source: map[abi.Port]int{}, port: map[int]abi.Port{}, buf: make([]abi.Port, 32)}
	for i, p := range w.Ports.Devices {
		e.source[p], e.port[i] = i, p
	}
	e.source[w.Ports.Doorbell], e.port[proc.Doorbell] = proc.Doorbell, w.Ports.Doorbell
	e.source[w.Ports.Console], e.port[proc.Console] = proc.Console, w.Ports.Console
	return e
}

// Next implements proc.Events.
func (e *events) Next(buf []int) ([]int, error) {
	n, err := e.ch.Pending(e.buf)
	if err != nil {
		return buf, err
	}
	for _, p := range e.buf[:n] {
		if s, ok := e.source[p]; ok {
			buf = append(buf, s)
		}
	}
	// Unmasked before the caller looks at the rings: an event that comes
	// meanwhile is reported again rather than lost.
	return buf, e.ch.Unmask(e.buf[:n]...)
}

// Notify implements proc.Events.
func (e *events) Notify(source int) error {
	p, ok := e.port[source]
	if !ok {
		return fmt.Errorf("no event channel for source %d: %w", source, errors.ErrUnsupported)
	}
	return e.ch.Notify(p)
}

// Close implements proc.Events.
func (e *events) Close() error { return e.ch.Close() }
