// SPDX-License-Identifier: Apache-2.0

// Package ctrd makes containers of our runtime through containerd's Go client. It
// is for test programs that run in a lab's dom0: a call takes milliseconds there,
// where a ctr takes a second under emulation.
package ctrd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"

	"github.com/xcontainer/xcontainer/integration/internal/inputs"
	"github.com/xcontainer/xcontainer/integration/internal/inventory"
)

// Where things are in a lab's dom0.
const (
	Socket    = "/run/containerd/containerd.sock"
	StateDir  = "/run/containerd"
	RootDir   = "/var/lib/containerd"
	Log       = "/var/log/containerd.log"
	Namespace = "default"
	Runtime   = "io.containerd.xcontainer.v2"
)

// dialTimeout bounds the wait for a daemon that has just been started.
const dialTimeout = time.Minute

// Host is a dom0 with its daemon.
type Host struct {
	*client.Client
	image client.Image
}

// Open connects to the daemon.
func Open(ctx context.Context) (*Host, error) {
	c, err := client.New(Socket, client.WithTimeout(dialTimeout))
	if err != nil {
		return nil, fmt.Errorf("connect to containerd: %w", err)
	}
	h := &Host{Client: c}
	if h.image, err = c.GetImage(With(ctx), inputs.BusyboxImage); err != nil {
		c.Close()
		return nil, fmt.Errorf("find the test image: %w", err)
	}
	return h, nil
}

// With is ctx for calls in the namespace of tests.
func With(ctx context.Context) context.Context { return namespaces.WithNamespace(ctx, Namespace) }

// New makes a container that runs args, not yet its task.
func (h *Host) New(ctx context.Context, id string, privileged bool, args ...string) (client.Container, error) {
	var opts []oci.SpecOpts
	if privileged {
		opts = append(opts, oci.WithPrivileged)
	}
	return h.NewWith(ctx, id, opts, args...)
}

// NewWith is New with changes of the specification.
func (h *Host) NewWith(ctx context.Context, id string, more []oci.SpecOpts, args ...string) (client.Container, error) {
	opts := append([]oci.SpecOpts{oci.WithImageConfig(h.image), oci.WithProcessArgs(args...)}, more...)
	return h.NewContainer(With(ctx), id, client.WithImage(h.image), client.WithNewSnapshot(id, h.image),
		client.WithRuntime(Runtime, nil), client.WithNewSpec(opts...))
}

// Remove deletes a container and its task in whatever state, as a user would who
// wants to be rid of it.
func (h *Host) Remove(ctx context.Context, id string) error {
	ctx = With(ctx)
	c, err := h.LoadContainer(ctx, id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove container %s: %w", id, err)
	}
	task, err := c.Task(ctx, nil)
	if err == nil {
		_, err = task.Delete(ctx, client.WithProcessKill)
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove the task of container %s: %w", id, err)
	}
	if err := c.Delete(ctx, client.WithSnapshotCleanup); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove container %s: %w", id, err)
	}
	return nil
}

// Collect has containerd collect its garbage, and waits for that. A daemon that
// was ended in the middle of a deletion leaves, say, a snapshot's folder to it.
func (h *Host) Collect(ctx context.Context) error {
	ctx = With(ctx)
	// It looks at a snapshotter's folders only if it has deleted one of its snapshots.
	const key = "garbage"
	s := h.SnapshotService("")
	if _, err := s.Prepare(ctx, key, ""); err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("collect garbage: %w", err)
	}
	if err := s.Remove(ctx, key); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("collect garbage: %w", err)
	}
	l, err := h.LeasesService().Create(ctx, leases.WithRandomID())
	if err == nil {
		err = h.LeasesService().Delete(ctx, l, leases.SynchronousDelete)
	}
	if err != nil {
		return fmt.Errorf("collect garbage: %w", err)
	}
	return nil
}

// Bundle is the folder of a container's bundle.
func Bundle(id string) string {
	return filepath.Join(StateDir, "io.containerd.runtime.v2.task", Namespace, id)
}

// Output collects the standard output of a process; it may be read while the
// process writes.
type Output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// Streams makes named pipes below dir for a process's output, and for its input
// if in is not nil.
func Streams(dir string, in *bytes.Reader, out *Output) cio.Creator {
	opts := []cio.Opt{cio.WithStreams(nil, out, out), cio.WithFIFODir(dir)}
	if in != nil {
		opts[0] = cio.WithStreams(in, out, out)
	}
	return cio.NewCreator(opts...)
}

// Here is this host, for inventories.
var Here = inventory.Host{Run: Command, StateDir: StateDir, RootDir: RootDir, HasXen: true}

// DaemonPID is containerd's.
func DaemonPID() (int, error) {
	b, err := os.ReadFile("/run/containerd.pid")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(bytes.TrimSpace(b)))
}

// RunProcess starts a process of a container, or a task, and waits for its end.
func RunProcess(ctx context.Context, p client.Process) (client.ExitStatus, error) {
	ended, err := p.Wait(ctx)
	if err != nil {
		return client.ExitStatus{}, err
	}
	if err := p.Start(ctx); err != nil {
		return client.ExitStatus{}, err
	}
	select {
	case st := <-ended:
		return st, nil
	case <-ctx.Done():
		return client.ExitStatus{}, ctx.Err()
	}
}

// commandTimeout bounds a command, on a machine that may be busy and emulated.
const commandTimeout = time.Minute

// Command runs a command of this host.
func Command(argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	// A daemon that the command starts keeps its pipes.
	cmd.WaitDelay = time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return string(out), fmt.Errorf("%s: %w: %s", argv[0], err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(out), nil
}
