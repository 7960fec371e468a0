// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// Config is where an Agent finds its surroundings. All fields are needed but
// Controllers, OwnKernel, StageExe and Log.
type Config struct {
	Exports     string   // directory whose entries are the exports
	MountPoint  string   // empty directory, for the container's root in its own namespace
	CgroupRoot  string   // cgroup v2 directory below which the containers' are made
	Controllers []string // controllers that can limit them
	OwnKernel   bool     // the kernel is a guest's, in which all processes are the Agent's
	StageExe    string   // this program; default /proc/self/exe

	Log func(error) // hears what no answer can say

	Calls   net.Listener // ttrpc; the Agent closes it
	Streams net.Listener // process streams; the Agent closes it
}

// Agent runs containers for the host.
type Agent struct {
	cfg     Config
	cgroups *cgroupTree
	reaper  *reaper
	streams *streamTable
	server  *ttrpc.Server

	mu         sync.Mutex
	containers map[string]*container
}

// New makes an Agent and takes over the waiting for this process's children.
func New(cfg Config) (*Agent, error) {
	if cfg.StageExe == "" {
		cfg.StageExe = "/proc/self/exe"
	}
	cgroups, err := newCgroupTree(cfg.CgroupRoot, cfg.Controllers, cfg.OwnKernel)
	if err != nil {
		return nil, err
	}
	server, err := ttrpc.NewServer()
	if err != nil {
		return nil, fmt.Errorf("make ttrpc server: %w", err)
	}
	a := &Agent{
		cfg:        cfg,
		cgroups:    cgroups,
		reaper:     newReaper(),
		streams:    newStreamTable(),
		server:     server,
		containers: make(map[string]*container),
	}
	agentapi.RegisterAgentService(server, service{a})
	go a.reaper.run()
	return a, nil
}

// Serve answers calls and takes streams until ctx ends or a listener fails.
func (a *Agent) Serve(ctx context.Context) error {
	result := make(chan error, 2)
	go func() { result <- a.streams.serve(a.cfg.Streams) }()
	go func() { result <- a.server.Serve(ctx, a.cfg.Calls) }()
	var err error
	select {
	case <-ctx.Done():
	case err = <-result:
	}
	a.cfg.Streams.Close()
	a.server.Close()
	if err != nil && !errors.Is(err, ttrpc.ErrServerClosed) {
		return fmt.Errorf("agent: serve: %w", err)
	}
	return nil
}

// insert adds a new container under its id.
func (a *Agent) insert(c *container) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.containers[c.id]; ok {
		return status.Errorf(codes.AlreadyExists, "container %q exists", c.id)
	}
	a.containers[c.id] = c
	return nil
}

// forget drops a container from the table.
func (a *Agent) forget(c *container) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.containers, c.id)
}

func (a *Agent) find(id string) (*container, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c, ok := a.containers[id]
	if ok {
		c.mu.Lock()
		ok = c.state != creating
		c.mu.Unlock()
	}
	if !ok {
		return nil, status.Errorf(codes.NotFound, "container %q not found", id)
	}
	return c, nil
}

// sync writes back what the guest holds of its exports and disks. The exports
// are one file system: every bind mount of a container is a part of it.
func (a *Agent) sync() error {
	f, err := os.Open(a.cfg.Exports)
	if err != nil {
		return fmt.Errorf("sync exports: %w", err)
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("sync exports: %w", err)
	}
	return a.syncDisks()
}

// readStats reads the guest's memory, in bytes, and uptime.
func readStats() (*agentapi.StatsResponse, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return nil, fmt.Errorf("read memory statistics: %w", err)
	}
	var r agentapi.StatsResponse
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		kib, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 54)
		if err != nil {
			continue
		}
		switch key {
		case "MemTotal":
			r.MemoryTotal = kib << 10
		case "MemAvailable":
			r.MemoryAvailable = kib << 10
		}
	}
	r.UptimeNs = uint64(bootClock().Nanoseconds())
	return &r, nil
}
