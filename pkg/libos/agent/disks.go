// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// disks are the guest's virtio block devices.
	disks = "/sys/block/vd*"

	// unmountTimeout bounds the wait for a disk that nobody uses any more: its
	// file system writes its last when its last user has gone, which is after
	// the end of the container's processes.
	unmountTimeout = 5 * time.Second
	unmountPoll    = 2 * time.Millisecond
)

// syncDisks writes back what the guest holds of its disks. When no container is
// left it also waits until none is mounted, so that the file systems on them are
// marked clean.
func (a *Agent) syncDisks() error {
	names, err := filepath.Glob(disks)
	if err != nil || len(names) == 0 {
		return err
	}
	unix.Sync()
	a.mu.Lock()
	left := len(a.containers)
	a.mu.Unlock()
	if left > 0 {
		return nil
	}
	deadline := time.Now().Add(unmountTimeout)
	for _, name := range names {
		name = filepath.Base(name)
		if err := awaitUnmounted("/dev/"+name, deadline); err != nil {
			return fmt.Errorf("sync disk %s: %w", name, err)
		}
	}
	return nil
}

// awaitUnmounted waits until a block device belongs to no file system.
func awaitUnmounted(dev string, deadline time.Time) error {
	for {
		// With O_EXCL it can be opened only when nobody has claimed it.
		fd, err := unix.Open(dev, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
		if err == nil {
			return unix.Close(fd)
		}
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("its file system is complete, but still in use after %v and so not marked clean: %w", unmountTimeout, err)
		}
		time.Sleep(unmountPoll)
	}
}
