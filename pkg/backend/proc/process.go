// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/backend/console"
	"github.com/xcontainer/xcontainer/pkg/backend/control"
	"github.com/xcontainer/xcontainer/pkg/backend/virtio"
	"github.com/xcontainer/xcontainer/pkg/backend/vsock"
	"github.com/xcontainer/xcontainer/pkg/noxs"
)

const (
	// dialTimeout bounds a dial when the guest does not answer.
	dialTimeout = 10 * time.Second
	// attachTimeout bounds the wait for the shim's socket.
	attachTimeout = 10 * time.Second
	// flushTimeout bounds the wait for the reader of the console.
	flushTimeout = 500 * time.Millisecond
)

// process implements control.Handler.
type process struct {
	server *control.Server
	o      Options

	// Set by Start, before anything else runs.
	h       Handles
	page    *noxs.Page
	console *console.Console
	vsock   *vsock.Device
	files   *files
	disks   disks
	loop    *loop

	wg sync.WaitGroup // loop, bridges

	mu      sync.Mutex
	err     error // why the process cannot go on
	ended   bool  // no bridge may be added
	sockets map[*net.UnixConn]struct{}
	streams map[uint64]chan *net.UnixConn // accepted, without socket yet
	nextID  uint64
}

var _ control.Handler = (*process)(nil)

func newProcess(s *control.Server, o Options) *process {
	return &process{
		server:  s,
		o:       o,
		vsock:   vsock.New(),
		sockets: map[*net.UnixConn]struct{}{},
		streams: map[uint64]chan *net.UnixConn{},
	}
}

// Start implements control.Handler.
func (p *process) Start(cfg control.Config, fds []*os.File) error {
	h, err := p.o.Open(cfg, fds)
	if err != nil {
		return fmt.Errorf("backend: open the domain's memory and events: %w", err)
	}
	p.h = h
	if err := cfg.Layout.Validate(); err != nil {
		return fmt.Errorf("backend: %w", err)
	}
	if want := int(cfg.Layout.PoolPages) * noxs.PageSize; len(h.Pool) != want {
		return fmt.Errorf("backend: pool of %d bytes, layout says %d", len(h.Pool), want)
	}
	if p.page, err = noxs.NewPage(h.Page); err != nil {
		return fmt.Errorf("backend: %w", err)
	}
	if p.files, err = newFiles(cfg.Layout, p.o.Logf); err != nil {
		return fmt.Errorf("backend: %w", err)
	}
	if p.disks, err = newDisks(cfg.Layout, h.Disks); err != nil {
		return fmt.Errorf("backend: %w", err)
	}
	if p.o.Confine != nil {
		if err := p.o.Confine(); err != nil {
			return fmt.Errorf("backend: give up privileges: %w", err)
		}
	}
	if p.console, err = console.New(h.Console, h.ConsoleOut); err != nil {
		return fmt.Errorf("backend: %w", err)
	}
	if p.loop, err = newLoop(p, cfg.Layout); err != nil {
		return fmt.Errorf("backend: %w", err)
	}
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		p.loop.run()
	}()
	return nil
}

// fail ends the process with err, once.
func (p *process) fail(err error) {
	p.mu.Lock()
	first := p.err == nil && !p.ended
	if first {
		p.err = err
	}
	p.mu.Unlock()
	if first {
		p.server.Failed(err)
		p.server.Close()
	}
}

func (p *process) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// shutdown ends everything that Start and the requests began.
func (p *process) shutdown() {
	p.server.Close()
	p.mu.Lock()
	p.ended = true
	for s := range p.sockets {
		s.Close()
	}
	for id, ch := range p.streams {
		close(ch)
		delete(p.streams, id)
	}
	p.mu.Unlock()
	if p.h.Events != nil {
		p.h.Events.Close()
	}
	if p.loop != nil {
		p.loop.stop()
	}
	p.wg.Wait()
	if p.console != nil {
		if err := p.console.Close(); err != nil {
			p.o.Logf("%v", err)
		}
	}
	if p.files != nil {
		p.files.close()
	}
	p.disks.close()
}

// AddExport implements control.Handler.
func (p *process) AddExport(e control.Export) error { return p.files.add(e) }

// RemoveExport implements control.Handler.
func (p *process) RemoveExport(name string) error { return p.files.remove(name) }

// Dial implements control.Handler.
func (p *process) Dial(port uint32, s *net.UnixConn) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), dialTimeout,
		fmt.Errorf("no answer in %v: %w", dialTimeout, unix.ETIMEDOUT))
	defer cancel()
	c, err := p.vsock.Dial(ctx, port)
	if err != nil {
		s.Close()
		return err
	}
	if !p.bridge(c, s) {
		return net.ErrClosed
	}
	return nil
}

// bridge joins a stream and a socket, and owns both.
func (p *process) bridge(c *vsock.Conn, s *net.UnixConn) bool {
	p.mu.Lock()
	ended := p.ended
	if !ended {
		p.sockets[s] = struct{}{}
		p.wg.Add(1)
	}
	p.mu.Unlock()
	if ended {
		s.Close()
		c.Reset()
		return false
	}
	go func() {
		defer p.wg.Done()
		vsock.Bridge(c, s)
		p.mu.Lock()
		delete(p.sockets, s)
		p.mu.Unlock()
	}()
	return true
}

// Listen implements control.Handler.
func (p *process) Listen(port uint32) error {
	return p.vsock.Listen(port, func(c *vsock.Conn) { p.accept(port, c) })
}

// Unlisten implements control.Handler.
func (p *process) Unlisten(port uint32) { p.vsock.Unlisten(port) }

// accept asks the shim for a socket for a stream that the guest has opened.
func (p *process) accept(port uint32, c *vsock.Conn) {
	ch := make(chan *net.UnixConn, 1)
	p.mu.Lock()
	if p.ended {
		p.mu.Unlock()
		c.Reset()
		return
	}
	p.nextID++
	id := p.nextID
	p.streams[id] = ch
	p.wg.Add(1)
	p.mu.Unlock()
	defer p.wg.Done()

	var s *net.UnixConn
	if err := p.server.Accept(port, id); err == nil {
		t := time.NewTimer(attachTimeout)
		defer t.Stop()
		select {
		case s = <-ch:
		case <-t.C:
		}
	}
	if s == nil {
		p.mu.Lock()
		delete(p.streams, id)
		p.mu.Unlock()
		select { // it may have come just now
		case s = <-ch:
		default:
		}
	}
	if s == nil {
		c.Reset()
		return
	}
	p.bridge(c, s)
}

// Attach implements control.Handler.
func (p *process) Attach(stream uint64, s *net.UnixConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ch := p.streams[stream]
	if ch == nil {
		if s != nil {
			s.Close()
		}
		return
	}
	delete(p.streams, stream)
	ch <- s // has room: each stream is attached once
}

// Stats implements control.Handler.
func (p *process) Stats() control.Stats {
	v := p.vsock.Stats()
	total, dropped := p.console.Counts()
	io := p.files.io()
	io.Add(p.disks.stats())
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return control.Stats{
		Streams: v.Conns, BytesIn: v.BytesIn, BytesOut: v.BytesOut,
		PacketsIn: v.PacketsIn, PacketsOut: v.PacketsOut,
		ConsoleBytes: total, ConsoleDropped: dropped,
		Descriptors: p.files.descriptors(),
		ReadBytes:   io.ReadBytes, WriteBytes: io.WriteBytes,
		ReadOps: io.ReadOps, WriteOps: io.WriteOps,
		Goroutines: runtime.NumGoroutine(), HeapBytes: m.HeapInuse,
	}
}

// Drain implements control.Handler.
func (p *process) Drain() {
	err := virtio.Guard(func() error {
		p.console.Drain()
		return nil
	})
	if err != nil {
		p.fail(fmt.Errorf("backend: console: %w", err))
	}
	p.console.Flush(flushTimeout)
}

// errNoFiles is the answer to exports when the domain has no file system device.
var errNoFiles = fmt.Errorf("the domain has no file system device: %w", unix.ENODEV)

// isClosed says whether err means that somebody has closed the event channels.
func isClosed(err error) bool { return errors.Is(err, os.ErrClosed) || errors.Is(err, net.ErrClosed) }
