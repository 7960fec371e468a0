// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/xen"
)

// Bounds of what a check waits for.
const (
	programTimeout = 10 * time.Second
	dialTimeout    = 2 * time.Second
)

// realSystem is the machine this program runs on.
func realSystem() system {
	return system{
		openXen: xen.Open, bootGuest: bootGuest, pss: readPSS, now: time.Now,
		output: output, metrics: metrics, dial: dial, feature: feature, files: "/",
		maySweep: maySweep, settle: sweepSettle,
	}
}

func output(ctx context.Context, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, programTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).Output()
	if err != nil {
		return "", fmt.Errorf("run %s: %w", program, err)
	}
	return string(out), nil
}

// metrics asks a shim by the service that containerd uses. It answers to its own
// user only, root.
func metrics(ctx context.Context, socket, id string) ([]byte, error) {
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	r, err := taskapi.NewTTRPCTaskClient(client).Stats(ctx, &taskapi.StatsRequest{ID: id})
	if err != nil {
		return nil, errgrpc.ToNative(err)
	}
	return r.GetStats().GetValue(), nil
}

func dial(path string) error {
	c, err := net.DialTimeout("unix", path, dialTimeout)
	if err != nil {
		return err
	}
	return c.Close()
}

// feature uses a system call on something harmless.
func feature(name string) error {
	switch name {
	case "openat2":
		fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{
			Flags:   unix.O_PATH | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
		})
		if err == nil {
			unix.Close(fd)
		}
		return err
	case "pidfd_open":
		fd, err := unix.PidfdOpen(os.Getpid(), 0)
		if err == nil {
			unix.Close(fd)
		}
		return err
	case "pidfd_send_signal":
		fd, err := unix.PidfdOpen(os.Getpid(), 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.PidfdSendSignal(fd, 0, nil, 0)
	case "close_range":
		// The last number that a descriptor can have, which none has.
		return unix.CloseRange(^uint(0)>>32, ^uint(0)>>32, 0)
	}
	return fmt.Errorf("unknown feature %s", name)
}
