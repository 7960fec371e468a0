// SPDX-License-Identifier: Apache-2.0

package vfs

import (
	"fmt"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/backend/iovec"
)

// Config bounds what a guest can make the file service hold. Zero values mean
// the defaults.
type Config struct {
	// NodeFDs is the number of O_PATH descriptors kept for nodes that could
	// be opened again by name. Default 1024.
	NodeFDs int
	// OrphanFDs is the number kept for nodes whose last name is gone.
	// Default 512.
	OrphanFDs int
	// Handles is the number of files and directories the guest may have open
	// at once; beyond it open answers ENFILE. Default 32768.
	Handles int
	// Nodes is the number of files the guest may remember; beyond it lookup
	// answers ENFILE. Each takes about 200 bytes here and a kilobyte of the
	// guest's memory. Default 2^21.
	Nodes int
}

// spareFDs are descriptors that the service needs besides those of nodes and
// handles: exports, queues, and those open for a moment.
const spareFDs = 256

// fit fills in defaults and makes the bounds keep to a limit of so many
// descriptors.
func (c Config) fit(limit uint64) (Config, error) {
	for _, d := range []struct {
		v   *int
		def int
	}{{&c.NodeFDs, 1024}, {&c.OrphanFDs, 512}, {&c.Handles, 32768}, {&c.Nodes, 1 << 21}} {
		if *d.v <= 0 {
			*d.v = d.def
		}
	}
	if limit < 2*spareFDs {
		return c, fmt.Errorf("vfs: descriptor limit is %d, at least %d are needed", limit, 2*spareFDs)
	}
	left := int(min(limit-spareFDs, 1<<30))
	c.NodeFDs = min(c.NodeFDs, left/4)
	c.OrphanFDs = min(c.OrphanFDs, left/4)
	c.Handles = min(c.Handles, left-c.NodeFDs-c.OrphanFDs)
	return c, nil
}

// FS is a file system: a synthetic root and its exports. It implements
// fuse.RawFileSystem; every method may be called from any goroutine.
type FS struct {
	// What a method below does not implement answers ENOSYS, upon which the
	// kernel does without or does it itself (locks, poll, access).
	fuse.RawFileSystem

	cfg    Config
	procFD int // O_PATH descriptor of /proc/self/fd
	born   time.Time

	// rename is held while a name changes its place, so that a node found
	// missing can be looked for once more after the change is recorded.
	rename sync.RWMutex

	nodeTable
	handleTable
	io iovec.Counts

	closeOnce sync.Once
}

// New returns a file system without exports. It opens /proc/self/fd, so it must
// be called before the process gives up its mount namespace. Close frees it.
func New(cfg Config) (*FS, error) {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return nil, fmt.Errorf("vfs: read descriptor limit: %w", err)
	}
	cfg, err := cfg.fit(lim.Cur)
	if err != nil {
		return nil, err
	}
	proc, err := unix.Open("/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("vfs: open /proc/self/fd: %w", err)
	}
	fs := &FS{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		cfg:           cfg,
		procFD:        proc,
		born:          time.Now(),
	}
	fs.initNodes(cfg)
	fs.initHandles(cfg.Handles)
	return fs, nil
}

// String names the file system in mount tables.
func (fs *FS) String() string { return "xcontainer" }

// Close removes every export and closes every descriptor. It may be called
// twice; requests under way end first.
func (fs *FS) Close() error {
	fs.closeOnce.Do(func() {
		for _, e := range fs.takeExports() {
			fs.dismantle(e)
		}
		fs.Reset()
		unix.Close(fs.procFD)
		fs.procFD = -1
	})
	return nil
}

// Reset forgets everything that the guest holds, open files and nodes, as after
// an unmount. Exports stay. No request may be under way.
func (fs *FS) Reset() {
	fs.closeHandles(nil)
	fs.forgetAll()
}

// Descriptors returns how many descriptors nodes and handles hold at present.
func (fs *FS) Descriptors() int {
	fs.nodeTable.mu.Lock()
	n := fs.lru.n + fs.orphans.n
	fs.nodeTable.mu.Unlock()
	return n + fs.openHandles()
}

// SetDebug does nothing: no request of a guest is worth a line of log.
func (fs *FS) SetDebug(bool) {}
