// SPDX-License-Identifier: Apache-2.0

// Diskrun runs a container whose root file system is made of given mounts, as a
// snapshotter would give them, which ctr has no command for.
//
//	diskrun RUNTIME ID MOUNTS [KEY=VALUE...] -- COMMAND...
//
// MOUNTS is a list in JSON: [{"Type": "ext4", "Source": "/image", "Options":
// ["loop"]}]. A key with a value is an annotation of the container. The exit code
// is the command's; 125 if the container could not be run, with the reason on
// standard error. Nothing of the container is left.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
)

// patience bounds a container's life; the caller has a limit too.
const patience = 5 * time.Minute

func main() {
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "diskrun:", err)
		code = 125
	}
	os.Exit(code)
}

func run(args []string) (code int, err error) {
	if len(args) < 5 {
		return 0, errors.New("usage: diskrun RUNTIME ID MOUNTS [KEY=VALUE...] -- COMMAND...")
	}
	runtime, id := args[0], args[1]
	var mounts []mount.Mount
	if err := json.Unmarshal([]byte(args[2]), &mounts); err != nil {
		return 0, fmt.Errorf("mounts: %w", err)
	}
	annotations := map[string]string{}
	for args = args[3:]; len(args) > 0 && args[0] != "--"; args = args[1:] {
		k, v, _ := strings.Cut(args[0], "=")
		annotations[k] = v
	}
	if len(args) < 2 {
		return 0, errors.New("no command")
	}
	client, err := containerd.New(cmp.Or(os.Getenv("CONTAINERD_ADDRESS"), "/run/containerd/containerd.sock"))
	if err != nil {
		return 0, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(context.Background(), "default"), patience)
	defer cancel()
	c, err := client.NewContainer(ctx, id,
		containerd.WithRuntime(runtime, nil),
		containerd.WithNewSpec(oci.WithProcessArgs(args[1:]...), oci.WithRootFSPath("rootfs"),
			oci.WithEnv([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}), oci.WithAnnotations(annotations)))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Delete(context.WithoutCancel(ctx))) }()
	return runTask(ctx, c, mounts)
}

func runTask(ctx context.Context, c containerd.Container, mounts []mount.Mount) (code int, err error) {
	task, err := c.NewTask(ctx, cio.NewCreator(cio.WithStreams(nil, os.Stdout, os.Stderr)), containerd.WithRootFS(mounts))
	if err != nil {
		return 0, err
	}
	defer func() {
		_, derr := task.Delete(context.WithoutCancel(ctx), containerd.WithProcessKill)
		err = errors.Join(err, derr)
	}()
	exit, err := task.Wait(ctx)
	if err != nil {
		return 0, err
	}
	if err := task.Start(ctx); err != nil {
		return 0, err
	}
	select {
	case status := <-exit:
		task.IO().Wait()
		code, _, err := status.Result()
		return int(code), err
	case <-ctx.Done():
		return 0, errors.Join(ctx.Err(), task.Kill(context.WithoutCancel(ctx), syscall.SIGKILL))
	}
}
