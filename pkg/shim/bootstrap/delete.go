// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xcontainer/xcontainer/pkg/shim/bundle"
	"github.com/xcontainer/xcontainer/pkg/shim/hooks"
	"github.com/xcontainer/xcontainer/pkg/shim/hostcgroup"
	"github.com/xcontainer/xcontainer/pkg/shim/record"
)

// exitKilled is what a container gets whose shim has gone: that of SIGKILL.
const exitKilled = 137

// hooksTime is what the other steps leave to hooks, if all of the time is bounded.
const hooksTime = 1500 * time.Millisecond

// Destroy destroys the domain whose handle is uuid; one that does not exist is no
// error. The handle alone names it: it is written down before the domain exists,
// and its number only after.
type Destroy func(ctx context.Context, uuid [16]byte) error

// Delete removes all that a dead shim left of the container in the bundle, and
// reports its exit to containerd. It may be called again, and for a container
// that was never created. It tries every step even if one fails; the bundle's
// directory is containerd's. What fails of the container's hooks goes to stderr,
// which containerd logs.
func Delete(ctx context.Context, f Flags, destroy Destroy, stdout, stderr io.Writer) error {
	if err := f.need(); err != nil {
		return err
	}
	dir := f.Bundle
	if dir == "" {
		var err error
		if dir, err = os.Getwd(); err != nil {
			return fmt.Errorf("delete %s: %w", f.ID, err)
		}
	}
	resp := &taskapi.DeleteResponse{ExitStatus: exitKilled}
	r, err := record.Read(dir)
	errs := []error{err}
	if r != nil {
		resp.Pid = uint32(r.Holder.PID)
		steps, cancel := leave(ctx, r.Hooks)
		// The shim first: it would take our work for attacks on its domain.
		for _, p := range []record.Process{r.Shim, r.Backend, r.Holder} {
			errs = append(errs, p.Kill(steps))
		}
		errs = append(errs, destroy(steps, r.UUID), hostcgroup.Remove(r.Cgroups))
		cancel()
	}
	errs = append(errs, unmount(filepath.Join(dir, "rootfs")), removeSocket(dir))
	if r != nil && r.Hooks {
		// Also if something is left: nobody else will run them.
		errs = append(errs, poststop(ctx, r, dir, stderr))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("delete %s: %w", f.ID, err)
	}
	if err := record.Remove(dir); err != nil {
		return fmt.Errorf("delete %s: %w", f.ID, err)
	}
	resp.ExitedAt = timestamppb.New(time.Now())
	b, err := proto.Marshal(resp)
	if err == nil {
		_, err = stdout.Write(b)
	}
	if err != nil {
		return fmt.Errorf("delete %s: answer: %w", f.ID, err)
	}
	return nil
}

// leave takes the hooks' part off the time that ctx leaves, if there are hooks.
func leave(ctx context.Context, hooks bool) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok || !hooks {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, deadline.Add(-hooksTime))
}

// poststop runs the hooks that follow a container's end, once.
func poststop(ctx context.Context, r *record.Record, dir string, stderr io.Writer) error {
	h, err := bundle.LoadHost(dir)
	if err != nil {
		fmt.Fprintf(stderr, "poststop hooks of container %s are not run: %v\n", r.ID, err)
		return nil
	}
	run := hooks.Run{Kind: hooks.Poststop, State: specs.State{
		Version: specs.Version, ID: r.ID, Status: specs.StateStopped, Bundle: dir, Annotations: h.Annotations,
	}}
	for _, err := range run.All(ctx, h.Hooks.Poststop) {
		fmt.Fprintf(stderr, "container %s: %v\n", r.ID, err)
	}
	r.Hooks = false
	return r.Write(dir)
}

func unmount(rootfs string) error {
	if err := mount.UnmountRecursive(rootfs, 0); err != nil {
		return fmt.Errorf("unmount %s: %w", rootfs, err)
	}
	return nil
}
