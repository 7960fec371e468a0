// SPDX-License-Identifier: Apache-2.0

package task

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/events"
	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xcontainer/xcontainer/pkg/io/stdio"
	"github.com/xcontainer/xcontainer/pkg/shim/bundle"
)

// Topics of containerd's events.
const (
	topicCreate      = "/tasks/create"
	topicStart       = "/tasks/start"
	topicExecAdded   = "/tasks/exec-added"
	topicExecStarted = "/tasks/exec-started"
	topicPaused      = "/tasks/paused"
	topicResumed     = "/tasks/resumed"
	topicOOM         = "/tasks/oom"
	topicExit        = "/tasks/exit"
	topicDelete      = "/tasks/delete"
)

// Publisher takes events in the order in which they are to arrive. It must not
// wait. events.Queue is one.
type Publisher interface {
	Publish(topic string, event proto.Message)
}

// Config is what a Service works with. All fields are set.
type Config struct {
	Namespace string // containerd's
	Share     string // directory of kernel and initramfs
	CPUs      int    // of this host
	Boot      Boot
	// Cgroup gives the cgroup of a path (hostcgroup.Path); nil: this host's.
	Cgroup func(path string) (Cgroup, error)
	Events Publisher
	// Shutdown is called once, when no container is left and containerd wants the
	// shim to end, or has not said so for IdleTimeout.
	Shutdown func()
	// IdleTimeout is how long a shim stays without a container that it had, or
	// that could not be made; 0: 5 s. containerd ends it at once, unless it has
	// itself ended meanwhile.
	IdleTimeout time.Duration
}

const idleTimeout = 5 * time.Second

// Service is containerd's task service.
type Service struct {
	Config

	shutdown sync.Once

	mu         sync.Mutex
	containers map[string]*container // guarded by mu; nil while one is being created
	closed     bool                  // guarded by mu: no more containers
}

// New returns a service without containers.
func New(c Config) *Service {
	if c.Cgroup == nil {
		c.Cgroup = hostCgroup
	}
	c.IdleTimeout = cmp.Or(c.IdleTimeout, idleTimeout)
	return &Service{Config: c, containers: make(map[string]*container)}
}

func (s *Service) container(id string) (*container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.containers[id]
	if c == nil {
		return nil, notFound("container %s", id)
	}
	return c, nil
}

func (s *Service) process(id, execID string) (*process, error) {
	c, err := s.container(id)
	if err != nil {
		return nil, err
	}
	return c.find(execID)
}

// Create boots the domain and makes the container in it, not yet running.
func (s *Service) Create(ctx context.Context, r *taskapi.CreateTaskRequest) (*taskapi.CreateTaskResponse, error) {
	if r.Checkpoint != "" {
		return nil, toRPC(notImplemented("restoring a checkpoint"))
	}
	s.mu.Lock()
	_, exists := s.containers[r.ID]
	if !exists && !s.closed {
		s.containers[r.ID] = nil
	}
	closed := s.closed
	s.mu.Unlock()
	switch {
	case closed:
		return nil, toRPC(fmt.Errorf("the shim is ending: %w", errdefs.ErrUnavailable))
	case exists:
		return nil, toRPC(fmt.Errorf("container %s: %w", r.ID, errdefs.ErrAlreadyExists))
	}
	c, err := s.newContainer(ctx, r)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		delete(s.containers, r.ID)
		// A client that gave up in the middle has said its last word: Shutdown
		// came too early, and `delete` may have found no record any more.
		time.AfterFunc(s.IdleTimeout, s.endIfIdle)
		return nil, toRPC(err)
	}
	s.containers[r.ID] = c
	return &taskapi.CreateTaskResponse{Pid: c.pid()}, nil
}

// endIfIdle ends a shim that has no container.
func (s *Service) endIfIdle() {
	s.mu.Lock()
	idle := len(s.containers) == 0
	if idle {
		s.closed = true
	}
	s.mu.Unlock()
	if idle {
		s.shutdown.Do(s.Config.Shutdown)
	}
}

// Start lets init or an exec run.
func (s *Service) Start(ctx context.Context, r *taskapi.StartRequest) (*taskapi.StartResponse, error) {
	p, err := s.process(r.ID, r.ExecID)
	if err != nil {
		return nil, toRPC(err)
	}
	// A client that gives up must not leave a process nobody knows of.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	if r.ExecID == "" {
		err = p.c.start(ctx)
	} else {
		err = p.c.startExec(ctx, r.ExecID)
	}
	if err != nil {
		return nil, toRPC(err)
	}
	return &taskapi.StartResponse{Pid: p.pid()}, nil
}

// Exec adds a process to a container; Start starts it.
func (s *Service) Exec(ctx context.Context, r *taskapi.ExecProcessRequest) (*emptypb.Empty, error) {
	c, err := s.container(r.ID)
	if err != nil {
		return nil, toRPC(err)
	}
	if r.ExecID == "" {
		return nil, toRPC(fmt.Errorf("exec without an id: %w", errdefs.ErrInvalidArgument))
	}
	spec, ignored, err := bundle.ParseProcess(r.Spec.GetValue())
	if err != nil {
		return nil, toRPC(err)
	}
	for _, what := range ignored {
		log.G(ctx).WithField("id", r.ID).Warnf("exec %s: ignored: %s", r.ExecID, what)
	}
	c.settings.InheritTo(spec)
	spec.Terminal = r.Terminal
	p := newProcess(c, r.ExecID, stdio.Config{
		Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal,
	}, spec)
	if err := c.addExec(p); err != nil {
		return nil, toRPC(err)
	}
	return &emptypb.Empty{}, nil
}

// Delete forgets an exec, or the container, of which then nothing is left.
func (s *Service) Delete(ctx context.Context, r *taskapi.DeleteRequest) (*taskapi.DeleteResponse, error) {
	p, err := s.process(r.ID, r.ExecID)
	if err != nil {
		return nil, toRPC(err)
	}
	c := p.c
	if r.ExecID != "" {
		if err := c.deleteExec(ctx, p); err != nil {
			return nil, toRPC(err)
		}
	} else {
		if err := c.delete(ctx); err != nil {
			return nil, toRPC(err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.containers[r.ID] != c {
			return nil, toRPC(notFound("container %s", r.ID))
		}
		delete(s.containers, r.ID)
		// A daemon that is killed now asks for nothing more.
		time.AfterFunc(s.IdleTimeout, s.endIfIdle)
	}
	_, e := p.current()
	resp := &taskapi.DeleteResponse{Pid: p.pid(), ExitStatus: e.status, ExitedAt: timestamp(e.at)}
	if r.ExecID == "" {
		s.Events.Publish(topicDelete, &events.TaskDelete{
			ContainerID: c.id, ID: c.id, Pid: resp.Pid, ExitStatus: resp.ExitStatus, ExitedAt: resp.ExitedAt,
		})
	}
	return resp, nil
}

// State describes a process.
func (s *Service) State(_ context.Context, r *taskapi.StateRequest) (*taskapi.StateResponse, error) {
	p, err := s.process(r.ID, r.ExecID)
	if err != nil {
		return nil, toRPC(err)
	}
	st, e := p.current()
	resp := &taskapi.StateResponse{
		ID:         r.ID,
		ExecID:     r.ExecID,
		Bundle:     p.c.bundle,
		Pid:        p.pid(),
		Status:     p.c.status(st),
		Stdin:      p.stdio.Stdin,
		Stdout:     p.stdio.Stdout,
		Stderr:     p.stdio.Stderr,
		Terminal:   p.stdio.Terminal,
		ExitStatus: e.status,
		ExitedAt:   timestamp(e.at),
	}
	return resp, nil
}

// Wait answers when a process has ended and its output is delivered.
func (s *Service) Wait(ctx context.Context, r *taskapi.WaitRequest) (*taskapi.WaitResponse, error) {
	p, err := s.process(r.ID, r.ExecID)
	if err != nil {
		return nil, toRPC(err)
	}
	select {
	case <-p.exited:
	case <-ctx.Done():
		return nil, toRPC(ctx.Err())
	}
	_, e := p.current()
	return &taskapi.WaitResponse{ExitStatus: e.status, ExitedAt: timestamp(e.at)}, nil
}

// Kill signals a process, or all of a container.
func (s *Service) Kill(ctx context.Context, r *taskapi.KillRequest) (*emptypb.Empty, error) {
	p, err := s.process(r.ID, r.ExecID)
	if err != nil {
		return nil, toRPC(err)
	}
	if err := p.c.signal(ctx, p, r.Signal, r.All && r.ExecID == ""); err != nil {
		return nil, toRPC(err)
	}
	return &emptypb.Empty{}, nil
}

// CloseIO ends a process's input.
func (s *Service) CloseIO(_ context.Context, r *taskapi.CloseIORequest) (*emptypb.Empty, error) {
	p, err := s.process(r.ID, r.ExecID)
	if err != nil {
		return nil, toRPC(err)
	}
	if r.Stdin {
		p.endOfInput()
	}
	return &emptypb.Empty{}, nil
}

// ResizePty sets the size of a process's terminal.
func (s *Service) ResizePty(ctx context.Context, r *taskapi.ResizePtyRequest) (*emptypb.Empty, error) {
	p, err := s.process(r.ID, r.ExecID)
	if err != nil {
		return nil, toRPC(err)
	}
	if err := p.resize(ctx, r.Height, r.Width); err != nil {
		return nil, toRPC(err)
	}
	return &emptypb.Empty{}, nil
}

// Connect tells a daemon that was restarted who serves the container. Like runc's
// shim it answers without one, too: the daemon then asks for its processes, and
// ends a shim that has none. After an error it would leave the shim alone.
func (s *Service) Connect(_ context.Context, r *taskapi.ConnectRequest) (*taskapi.ConnectResponse, error) {
	resp := &taskapi.ConnectResponse{ShimPid: uint32(os.Getpid())}
	if c, err := s.container(r.ID); err == nil {
		resp.TaskPid = c.pid()
	}
	return resp, nil
}

// Shutdown ends the shim if it has no container.
func (s *Service) Shutdown(context.Context, *taskapi.ShutdownRequest) (*emptypb.Empty, error) {
	s.endIfIdle()
	return &emptypb.Empty{}, nil
}

// Close kills every container and takes back what they had, for a shim that is
// told to end.
func (s *Service) Close(ctx context.Context) {
	s.mu.Lock()
	s.closed = true
	var all []*container
	for _, c := range s.containers {
		if c != nil {
			all = append(all, c)
		}
	}
	s.mu.Unlock()
	for _, c := range all {
		if err := c.signal(ctx, c.init, uint32(syscall.SIGKILL), false); err != nil && !errdefs.IsNotFound(err) {
			log.G(ctx).WithError(err).WithField("id", c.id).Error("kill")
		}
	}
	for _, c := range all {
		select {
		case <-c.init.exited:
			if err := c.teardown(ctx); err != nil {
				log.G(ctx).WithError(err).Error("clean up")
			}
		case <-ctx.Done():
		}
	}
}

// timestamp is nil for the zero time, as clients expect of what has not ended.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
