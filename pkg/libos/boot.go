// SPDX-License-Identifier: Apache-2.0

package libos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/containerd/ttrpc"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
	"github.com/xcontainer/xcontainer/pkg/xen"
	"github.com/xcontainer/xcontainer/pkg/xen/abi"
)

const (
	// cmdline: hvc0 is the kernel log; a panic ends the domain at once; no
	// timer compares the TSC with Xen's clock twice a second, which would wake
	// idle guests to judge a clock that they do not use; no alarm about
	// processors that stood still, since pausing the domain looks like that;
	// the agent is /init.
	cmdline = "console=hvc0 loglevel=4 panic=-1 tsc=nowatchdog rcupdate.rcu_cpu_stall_suppress=1 rdinit=/init"

	// cmdlineSMP is for guests with several virtual CPUs: the kernel starts the
	// first, the agent the others; see startCPUs. Code for one processor would
	// have to be changed back then, instruction by instruction.
	cmdlineSMP = " maxcpus=1 noreplace-smp"

	// helloTimeout bounds a guest's boot, which takes half a second. It is that
	// long because a busy host may be emulated.
	helloTimeout = 60 * time.Second
	// watchInterval is how often the hypervisor is asked whether the domain
	// lives; hintInterval is that for hintTime after the guest has said that it
	// ends.
	watchInterval = time.Second
	hintInterval  = 20 * time.Millisecond
	hintTime      = 2 * time.Second
)

// Config says what guest to boot.
type Config struct {
	Share       string       // folder of the library OS's files
	ConsolePath string       // file for the guest's kernel log, made anew
	ConsoleLine func(string) // hears each printable line of it; may be nil
	UUID        abi.UUID     // the domain's handle
	MemoryBytes uint64       // of the whole domain
	VCPUs       uint32       // in use from the start
	MaxVCPUs    uint32       // that the agent's SetSize can have in use; 0 = VCPUs
	Weight      uint16       // credit2; 0 = Xen's default
	XLibOS      XLibOS       // how far programs get without Xen; "" = XLibOSFull

	// Disks are virtio block devices, of which there can be MaxDisks, with the
	// serial numbers disk0, disk1 …
	Disks []Disk

	// Record hears of the domain's id before anything else can fail.
	Record func(abi.DomID) error
	// RecordBackend hears of the back-end process.
	RecordBackend func(pid int) error
	// Step hears how long each step took, in order.
	Step func(name string, d time.Duration)
}

// Boot builds a domain with its back-end process, starts it, and answers when
// its agent has said hello. After an error nothing is left of either.
func Boot(ctx context.Context, c Config) (_ *Guest, err error) {
	host, err := xen.Open()
	if err != nil {
		return nil, err
	}
	g := &Guest{host: host, dead: make(chan struct{}), watchD: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.undo(ctx))
		}
	}()
	if err := g.build(ctx, c); err != nil {
		return nil, err
	}
	watchCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	g.stopWatch = stop
	go g.watchDeath(watchCtx)
	if err := g.start(ctx, c); err != nil {
		// The guest's own end explains more than the call that met it.
		select {
		case <-g.dead:
			return nil, g.Death()
		case <-time.After(watchInterval + hintInterval):
			return nil, err
		}
	}
	return g, nil
}

// undo removes what a failed Boot has made.
func (g *Guest) undo(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	return g.Close(ctx)
}

// build makes the domain and its back-end; nothing of the guest has run.
func (g *Guest) build(ctx context.Context, c Config) error {
	vcpus := max(c.VCPUs, c.MaxVCPUs)
	line, err := commandLine(vcpus, c.XLibOS)
	if err != nil {
		return err
	}
	image, err := LoadImage(c.Share, vcpus)
	if err != nil {
		return err
	}
	defer image.Close()
	devices, err := layout(c.Disks)
	if err != nil {
		return err
	}
	dom, err := g.host.Create(ctx, xen.Config{
		UUID: c.UUID, Kernel: image.Kernel, Initramfs: image.Initramfs, Cmdline: line,
		MemoryKiB: c.MemoryBytes / 1024, VCPUs: vcpus, Weight: c.Weight,
		Layout: devices, Created: c.Record, Step: c.Step,
	})
	if err != nil {
		return err
	}
	g.dom = dom
	return timed(c.Step, "backend", func() error { return g.startBackend(ctx, c, devices) })
}

// start lets the domain run and meets its agent.
func (g *Guest) start(ctx context.Context, c Config) error {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	l, err := g.backend.client.Listen(agentapi.PortHello)
	if err != nil {
		return err
	}
	if err := timed(c.Step, "unpause", g.dom.Unpause); err != nil {
		return err
	}
	begin := time.Now()
	hello, err := g.acceptHello(ctx, l)
	if err != nil {
		return err
	}
	// The whole wait, split at the moment when the kernel started the agent.
	c.Step("kernel", max(time.Since(begin)-(hello.Sent-hello.Started), 0))
	c.Step("agent", hello.Sent-hello.Started)
	conn, err := g.backend.client.Dial(ctx, agentapi.PortAgent)
	if err != nil {
		return fmt.Errorf("reach the agent: %w", err)
	}
	g.rpc = ttrpc.NewClient(conn)
	g.agent = agentapi.NewAgentClient(g.rpc)
	return timed(c.Step, "vcpus", func() error { return g.startCPUs(ctx, c.VCPUs) })
}

// commandLine is what a guest's kernel is told.
func commandLine(vcpus uint32, x XLibOS) (string, error) {
	line := cmdline
	if vcpus > 1 {
		line += cmdlineSMP
	}
	option, err := x.option()
	return line + option, err
}

// acceptHello waits for the one connection of the agent to the hello port, and
// keeps it: its end tells the agent that the host is gone.
func (g *Guest) acceptHello(ctx context.Context, l net.Listener) (Hello, error) {
	defer l.Close()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	go func() {
		select {
		case <-g.dead:
			l.Close()
		case <-ctx.Done():
		}
	}()
	c, err := l.Accept()
	if err != nil {
		if ctx.Err() != nil {
			return Hello{}, fmt.Errorf("no hello from the agent in %v: %w; last line of the guest's console: %q",
				helloTimeout, ctx.Err(), g.console.Last())
		}
		return Hello{}, fmt.Errorf("wait for the agent's hello: %w", err)
	}
	g.hello = c
	if d, ok := ctx.Deadline(); ok {
		c.SetDeadline(d)
	}
	h, err := greet(c)
	c.SetDeadline(time.Time{})
	return h, err
}

// Destroy ends the domain whose handle is uuid, for a shim that has died. One
// that does not exist is no error, nor is a machine without Xen, where none can.
func Destroy(ctx context.Context, uuid abi.UUID) error {
	host, err := xen.Open()
	if errors.Is(err, xen.ErrNoXen) {
		return nil
	}
	if err != nil {
		return err
	}
	defer host.Close()
	infos, err := host.List(ctx)
	if err != nil {
		return err
	}
	for _, info := range infos {
		if info.UUID == uuid {
			return host.Destroy(ctx, info.ID, uuid)
		}
	}
	return nil
}

func timed(step func(string, time.Duration), name string, f func() error) error {
	begin := time.Now()
	err := f()
	step(name, time.Since(begin))
	return err
}

// closeAll closes files, of which some may be nil.
func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}
