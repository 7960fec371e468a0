// SPDX-License-Identifier: Apache-2.0

// Taskupdate changes the limits of a running container, which ctr has no command
// for.
//
//	taskupdate ID RESOURCES
//
// The resources are linux.resources of the OCI runtime specification, in JSON.
package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/anypb"
)

// resources is how typeurl names them.
const resources = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "taskupdate:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: taskupdate ID RESOURCES")
	}
	conn, err := grpc.NewClient("unix://"+cmp.Or(os.Getenv("CONTAINERD_ADDRESS"), "/run/containerd/containerd.sock"),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "containerd-namespace", "default")
	_, err = tasks.NewTasksClient(conn).Update(ctx, &tasks.UpdateTaskRequest{
		ContainerID: args[0],
		Resources:   &anypb.Any{TypeUrl: resources, Value: []byte(args[1])},
	})
	return err
}
