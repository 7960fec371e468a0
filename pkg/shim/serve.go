// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/containerd/log"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/shim/bootstrap"
	"github.com/xcontainer/xcontainer/pkg/shim/events"
	"github.com/xcontainer/xcontainer/pkg/shim/task"
)

const (
	// defaultShare holds kernel and initramfs; shareEnv names another folder.
	defaultShare = "/usr/share/xcontainer"
	shareEnv     = "XCONTAINER_SHARE"

	// answerTimeout is what the answer to Shutdown has to leave, see closeServer.
	answerTimeout = 50 * time.Millisecond
	// serverTimeout bounds calls still under way, and eventsTimeout events not
	// yet sent, when the shim ends.
	serverTimeout = 5 * time.Second
	eventsTimeout = 5 * time.Second
	// killTimeout bounds what a shim does that is told to end while it has a
	// container.
	killTimeout = 20 * time.Second

	// collectAfter is when a boot is over, or as good as.
	collectAfter = 5 * time.Second
	// gcPercent keeps the heap of an almost idle process small.
	gcPercent = 40
)

// serve is the serving process: it ends when containerd wants it and no
// container is left, or at SIGTERM.
func serve(f bootstrap.Flags, p Parts) error {
	debug.SetGCPercent(gcPercent)
	if err := openLog("log", f.Level()); err != nil {
		return fmt.Errorf("serve: open log: %w", err)
	}
	// From here on an error has no other reader than the log.
	err := serveTasks(f, p)
	if err != nil {
		log.L.WithError(err).Error("shim ends")
	}
	return err
}

func serveTasks(f bootstrap.Flags, p Parts) error {
	l, err := listener()
	if err != nil {
		return err
	}
	defer l.Close()
	srv, err := ttrpc.NewServer(ttrpc.WithServerHandshaker(ttrpc.UnixSocketRequireSameUser()))
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	share := os.Getenv(shareEnv)
	if share == "" {
		share = defaultShare
	}
	queue := events.New(os.Getenv("TTRPC_ADDRESS"), f.Namespace)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	svc := task.New(task.Config{
		Namespace: f.Namespace,
		Share:     share,
		CPUs:      runtime.NumCPU(),
		Boot:      withCollection(p.Boot),
		Events:    queue,
		Shutdown:  stop,
	})
	svc.Register(srv)
	stopProfile := func() {}
	if f.Debug && f.Socket != "" {
		if stopProfile, err = serveProfile(bootstrap.DebugSocket(f.Socket)); err != nil {
			log.L.WithError(err).Warn("the shim goes on without a profiler's socket")
			stopProfile, err = func() {}, nil
		}
	}
	terminated := make(chan struct{})
	go handleSignals(ctx, func() {
		close(terminated)
		stop()
	})

	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), l) }()
	select {
	case err = <-served:
	case <-ctx.Done():
	}
	// Before anything slow: a new shim of the same container may want the path.
	if f.Socket != "" {
		stopProfile()
		if err := bootstrap.RemoveSockets(f.Socket); err != nil {
			log.L.WithError(err).Warn("remove sockets")
		}
	}
	select {
	case <-terminated:
		killCtx, cancel := context.WithTimeout(context.Background(), killTimeout)
		svc.Close(killCtx)
		cancel()
	default:
	}
	closeServer(srv)
	eventsCtx, cancel := context.WithTimeout(context.Background(), eventsTimeout)
	defer cancel()
	queue.Close(eventsCtx)
	if err != nil && !errors.Is(err, ttrpc.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// closeServer lets calls end that are under way. A ttrpc server may close a
// connection between a handler's return and the sending of its answer, which for
// Shutdown is now: containerd, which closes its end at once when it has the
// answer, is given a moment to.
func closeServer(srv *ttrpc.Server) {
	time.Sleep(answerTimeout)
	ctx, cancel := context.WithTimeout(context.Background(), serverTimeout)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		srv.Close()
	}
}

// withCollection gives the memory that building a domain took back to the host,
// once the container has started: from then on the process is all but idle.
func withCollection(boot task.Boot) task.Boot {
	return func(ctx context.Context, c task.BootConfig) (task.Guest, error) {
		time.AfterFunc(collectAfter, debug.FreeOSMemory)
		return boot(ctx, c)
	}
}

// listener is the socket that `start` made.
func listener() (net.Listener, error) {
	file := os.NewFile(bootstrap.ListenFD, "socket")
	if file == nil {
		return nil, errors.New("serve: no socket; containerd starts the shim with the action start")
	}
	defer file.Close()
	l, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("serve: %w", err)
	}
	return l, nil
}

// handleSignals ends the shim at SIGTERM or SIGINT and writes all stacks to the
// log at SIGUSR1. SIGPIPE is the concern of whoever writes.
func handleSignals(ctx context.Context, terminate func()) {
	ch := make(chan os.Signal, 8)
	signal.Notify(ch, unix.SIGTERM, unix.SIGINT, unix.SIGUSR1)
	defer signal.Stop(ch)
	// Caught and not ignored: hooks and loggers inherit what is ignored.
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	for {
		select {
		case <-ctx.Done():
			return
		case sig := <-ch:
			if sig == unix.SIGUSR1 {
				dumpStacks()
				continue
			}
			log.L.Warnf("told to end by %v", sig)
			terminate()
			return
		}
	}
}

func dumpStacks() {
	buf := make([]byte, 64<<10)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	// Whatever the log's level, and with its lines as they are.
	fmt.Fprintf(log.L.Logger.Out, "all stacks, as SIGUSR1 asks:\n%s\n", buf)
}
