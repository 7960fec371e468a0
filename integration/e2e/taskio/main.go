// SPDX-License-Identifier: Apache-2.0

// Taskio runs a process in a running container with any stdio, which ctr allows
// only in part.
//
//	taskio [-t] ID EXEC URL COMMAND...
//
// Its stdout and stderr go to URL; with -t it has a terminal. The exit code is the
// process's; 97 if it could not be run, with the reason on standard error.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/anypb"
)

// process is how typeurl names it.
const process = "types.containerd.io/opencontainers/runtime-spec/1/Process"

// patience bounds the whole.
const patience = 5 * time.Minute

func main() {
	terminal := flag.Bool("t", false, "with a terminal")
	flag.Parse()
	code, err := run(*terminal, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "taskio:", err)
		code = 97
	}
	os.Exit(code)
}

func run(terminal bool, args []string) (int, error) {
	if len(args) < 4 {
		return 0, errors.New("usage: taskio [-t] ID EXEC URL COMMAND...")
	}
	id, exec, url := args[0], args[1], args[2]
	spec, err := json.Marshal(&specs.Process{Terminal: terminal, Args: args[3:], Cwd: "/", Env: []string{"PATH=/bin:/usr/bin"}})
	if err != nil {
		return 0, err
	}
	conn, err := grpc.NewClient("unix://"+cmp.Or(os.Getenv("CONTAINERD_ADDRESS"), "/run/containerd/containerd.sock"),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "containerd-namespace", "default")
	c := tasks.NewTasksClient(conn)
	if _, err := c.Exec(ctx, &tasks.ExecProcessRequest{
		ContainerID: id, ExecID: exec, Stdout: url, Stderr: url, Terminal: terminal,
		Spec: &anypb.Any{TypeUrl: process, Value: spec},
	}); err != nil {
		return 0, fmt.Errorf("exec: %w", err)
	}
	_, err = c.Start(ctx, &tasks.StartRequest{ContainerID: id, ExecID: exec})
	code := 0
	if err == nil {
		var r *tasks.WaitResponse
		if r, err = c.Wait(ctx, &tasks.WaitRequest{ContainerID: id, ExecID: exec}); err == nil {
			code = int(r.ExitStatus)
		}
	}
	if _, derr := c.DeleteProcess(ctx, &tasks.DeleteProcessRequest{ContainerID: id, ExecID: exec}); err == nil {
		err = derr
	}
	return code, err
}
