// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/events"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/log"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xcontainer/xcontainer/pkg/io/stdio"
	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// state of a process.
//
//	created ──Start──> starting ──> running ──> stopped
//	   │                  └── failed ─────────────^
//	   └──────── killed, or its container ended ──^
//
// An init whose start failed is created again until the agent tells its end.
// Only begin, started, failed and finish change the state. Delete forgets a
// process that is stopped, and an exec that is created.
type state int

const (
	created state = iota
	starting
	running
	stopped
)

func (s state) status() tasktypes.Status {
	switch s {
	case running:
		return tasktypes.Status_RUNNING
	case stopped:
		return tasktypes.Status_STOPPED
	default:
		return tasktypes.Status_CREATED
	}
}

// Exit statuses of processes whose own nobody knows.
const (
	exitKilled  = 128 + uint32(syscall.SIGKILL)
	exitUnknown = 255
)

// exit is how a process ended.
type exit struct {
	status uint32
	at     time.Time
}

// process is a container's init or one exec of it.
type process struct {
	c      *container
	execID string // empty for init
	stdio  stdio.Config
	spec   *agentapi.Process // what to run; Streams is set when it starts

	// exited is closed when the process is stopped and its exit event queued.
	exited chan struct{}
	// kill ends the wait for the process: it counts as killed.
	kill    context.CancelFunc
	waitCtx context.Context

	mu         sync.Mutex
	state      state
	startDone  chan struct{} // guarded by mu; closed when the state is starting no more
	guest      uint32        // guarded by mu: the pid in the guest, as the guest says
	io         *stdio.IO     // guarded by mu; nil before the process has streams
	closeStdin bool          // guarded by mu; CloseIO came before io
	exit       exit          // guarded by mu; valid when stopped
}

func newProcess(c *container, execID string, io stdio.Config, spec *agentapi.Process) *process {
	p := &process{c: c, execID: execID, stdio: io, spec: spec, exited: make(chan struct{})}
	p.waitCtx, p.kill = context.WithCancel(context.Background())
	p.stdio.ID, p.stdio.Namespace = p.eventID(), c.s.Namespace
	p.stdio.Report = func(err error) { log.L.WithError(err).Warnf("%s: stdio", p) }
	return p
}

func (p *process) String() string {
	if p.execID == "" {
		return "container " + p.c.id
	}
	return fmt.Sprintf("exec %s of container %s", p.execID, p.c.id)
}

// eventID is how TaskExit and TaskDelete name the process.
func (p *process) eventID() string {
	if p.execID == "" {
		return p.c.id
	}
	return p.execID
}

// pid is the process's for clients: the holder's for init, and for an exec, once
// it has started, one that no other process of this host has.
func (p *process) pid() uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pidLocked()
}

func (p *process) pidLocked() uint32 {
	switch {
	case p.execID == "":
		return p.c.pid()
	case p.guest == 0:
		return 0
	}
	return guestPID(p.guest)
}

func (p *process) guestPID() uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.guest
}

func (p *process) setGuestPID(pid uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.guest = pid
}

func (p *process) current() (state, exit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state, p.exit
}

// begin moves a created process to starting. The caller calls end.
func (p *process) begin() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch p.state {
	case created:
		p.state = starting
		p.startDone = make(chan struct{})
		return nil
	case stopped:
		return precondition("%s has ended already", p)
	default:
		return precondition("%s is started already", p)
	}
}

// started moves a starting process to running. publish is called before anybody
// can see an exit.
func (p *process) started(publish func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = running
	publish()
	close(p.startDone)
}

// failed ends a start that did not succeed. An exec is then stopped, without an
// exit event as it never was started; of an init the agent tells the end.
func (p *process) failed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = created
	if p.execID != "" {
		p.state, p.exit = stopped, exit{exitUnknown, time.Now()}
		p.kill()
		close(p.exited)
	}
	close(p.startDone)
}

// finish makes the process stopped, after the start that may still go on. With
// publish its exit event is queued.
func (p *process) finish(e exit, publish bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.state == starting {
		done := p.startDone
		p.mu.Unlock()
		<-done
		p.mu.Lock()
	}
	if p.state == stopped {
		return
	}
	p.state, p.exit = stopped, e
	if publish {
		p.c.s.Events.Publish(topicExit, &events.TaskExit{
			ContainerID: p.c.id,
			ID:          p.eventID(),
			Pid:         p.pidLocked(),
			ExitStatus:  e.status,
			ExitedAt:    timestamppb.New(e.at),
		})
	}
	p.kill()
	close(p.exited)
}

// openIO opens the pipes and gives the streams' numbers to the process.
func (p *process) openIO(ctx context.Context) error {
	sio, err := stdio.Open(ctx, p.stdio, p.c.guest.Stream)
	if err != nil {
		return err
	}
	s := &agentapi.Streams{}
	s.Stdin, s.Stdout, s.Stderr = sio.Streams()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.io = sio
	p.spec.Streams = s
	if p.closeStdin {
		sio.CloseStdin()
	}
	return nil
}

func (p *process) closeIO() {
	p.mu.Lock()
	sio := p.io
	p.mu.Unlock()
	if sio != nil {
		sio.Close()
	}
}

// waitIO waits, bounded, for the end of a logger after closeIO.
func (p *process) waitIO(ctx context.Context) {
	p.mu.Lock()
	sio := p.io
	p.mu.Unlock()
	if sio != nil {
		sio.Wait(ctx)
	}
}

// endOfInput is CloseIO.
func (p *process) endOfInput() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closeStdin = true
	if p.io != nil {
		p.io.CloseStdin()
	}
}

// drain waits, bounded, for the output that the process left when it ended.
func (p *process) drain(ctx context.Context, r *agentapi.WaitResponse) {
	p.mu.Lock()
	sio := p.io
	p.mu.Unlock()
	if sio == nil {
		return
	}
	ctx, cancel := p.c.gate.timeout(ctx, drainTimeout)
	defer cancel()
	if err := sio.Drain(ctx, r.StdoutBytes, r.StderrBytes); err != nil {
		log.L.WithError(err).Warnf("%s: output lost", p)
	}
}

// watchExec waits for the end of an exec that has started.
func (p *process) watchExec() {
	r, e := p.c.wait(p)
	p.c.gate.settle()
	if r != nil {
		p.c.reportOOMOf(r)
		p.drain(context.Background(), r)
	} else {
		p.closeIO()
	}
	// Not closed with its process: what that started may go on writing, until
	// Delete.
	p.finish(e, true)
}

// resize sets the terminal's size, now or when it is made.
func (p *process) resize(ctx context.Context, rows, columns uint32) error {
	if !p.stdio.Terminal {
		return precondition("%s has no terminal", p)
	}
	p.mu.Lock()
	st := p.state
	later := p.execID != "" && st == created
	if later {
		p.spec.Rows, p.spec.Columns = rows, columns
	}
	p.mu.Unlock()
	if later {
		return nil
	}
	if st == stopped {
		return notFound("%s has ended", p)
	}
	do := func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, resizeTimeout)
		defer cancel()
		_, err := p.c.guest.Agent().Resize(ctx, &agentapi.ResizeRequest{Id: p.c.id, ExecId: p.execID, Rows: rows, Columns: columns})
		return fromAgent(err)
	}
	return p.c.callOrKeep(ctx, "resize/"+p.execID, do)
}
