// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// Where the agent keeps its things in the guest.
const (
	newRoot    = "/newroot"
	mountPoint = "/run/xcontainer/root"
	cgroupRoot = "/sys/fs/cgroup"
)

// controllers limit a container in the guest.
var controllers = []string{"cpu", "cpuset", "memory", "pids"}

// maxOpenFiles is the limit of the agent and the highest that a container's
// process can ask for: fs.nr_open's default.
const maxOpenFiles = 1 << 20

// helloTimeout bounds the connection to the host and its answer.
const helloTimeout = 30 * time.Second

// flushTimeout bounds the last write-back before the power-off.
const flushTimeout = 10 * time.Second

// Limits of the agent's own heap, which every guest pays for.
const (
	gcPercent   = 40
	memoryLimit = 24 << 20 // bytes, soft
)

// Boot runs the guest from its first instruction in user space to its power-off.
// It returns only when this process is not the first of its system.
func Boot() error {
	started := bootClock()
	if os.Getpid() != 1 {
		return errors.New("xcontainer-agent: runs as the first process of a guest only")
	}
	debug.SetGCPercent(gcPercent)
	debug.SetMemoryLimit(memoryLimit)
	err := bootAndServe(started)
	if err != nil {
		complain(err)
	}
	flush()
	return powerOff()
}

// flush writes back what the guest holds, unless the host no longer answers.
func flush() {
	done := make(chan struct{})
	go func() {
		unix.Sync()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(flushTimeout):
	}
}

// bootAndServe returns when the host has gone, or with what went wrong.
func bootAndServe(started time.Duration) error {
	if err := prepareGuest(); err != nil {
		return err
	}
	calls, err := vsock.ListenContextID(unix.VMADDR_CID_ANY, agentapi.PortAgent, nil)
	if err != nil {
		return fmt.Errorf("listen on vsock port %d: %w", agentapi.PortAgent, err)
	}
	streams, err := vsock.ListenContextID(unix.VMADDR_CID_ANY, agentapi.PortStream, nil)
	if err != nil {
		return fmt.Errorf("listen on vsock port %d: %w", agentapi.PortStream, err)
	}
	a, err := New(Config{
		Exports:     agentapi.FSRoot,
		MountPoint:  mountPoint,
		CgroupRoot:  cgroupRoot,
		Controllers: controllers,
		OwnKernel:   true,
		Log:         complain,
		Calls:       calls,
		Streams:     streams,
	})
	if err != nil {
		return err
	}
	host, err := callHost(started)
	if err != nil {
		return err
	}
	defer host.Close()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		// The host sends nothing more: any return means that it has gone.
		var b [1]byte
		_, _ = host.Read(b[:])
	}()
	return a.Serve(ctx)
}

// callHost connects to the host and greets it.
func callHost(started time.Duration) (net.Conn, error) {
	conn, err := dialHello()
	if err != nil {
		return nil, fmt.Errorf("connect to the host at vsock port %d: %w", agentapi.PortHello, err)
	}
	if err := conn.SetDeadline(time.Now().Add(helloTimeout)); err != nil {
		return nil, err
	}
	if err := greet(conn, started); err != nil {
		return nil, err
	}
	return conn, conn.SetDeadline(time.Time{})
}

// bootMounts are the file systems of the guest itself.
var bootMounts = []struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
}{
	{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"sysfs", "/sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, ""},
	// The options that systemd gives a host: a container cannot change its own
	// limits even where it may write to its cgroups, and what memory.low
	// protects is protected in the cgroups below too.
	{"cgroup2", cgroupRoot, "cgroup2", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "nsdelegate,memory_recursiveprot"},
	{agentapi.FSTag, agentapi.FSRoot, "virtiofs", 0, ""},
}

// prepareGuest makes the surroundings that an Agent needs.
func prepareGuest() error {
	unix.Umask(0o022)
	if err := leaveRootfs(); err != nil {
		return err
	}
	for _, m := range bootMounts {
		// Those below another file system exist already, and only there.
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return fmt.Errorf("make %s: %w", m.target, err)
		}
		if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s (%s) at %s: %w", m.source, m.fstype, m.target, err)
		}
	}
	if err := os.MkdirAll(mountPoint, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", mountPoint, err)
	}
	if err := syscall.Setrlimit(unix.RLIMIT_NOFILE, &syscall.Rlimit{Cur: maxOpenFiles, Max: maxOpenFiles}); err != nil {
		return fmt.Errorf("raise the limit of open files: %w", err)
	}
	return linkUp("lo")
}

// leaveRootfs puts a bind mount of the initramfs on top of it. The initramfs
// itself has no parent mount, and pivot_root refuses to leave such a root.
func leaveRootfs() error {
	if err := os.MkdirAll(newRoot, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", newRoot, err)
	}
	steps := []struct {
		what string
		do   func() error
	}{
		{"bind the initramfs", func() error { return unix.Mount("/", newRoot, "", unix.MS_BIND, "") }},
		{"enter its mount", func() error { return unix.Chdir(newRoot) }},
		{"move it to the root", func() error { return unix.Mount(".", "/", "", unix.MS_MOVE, "") }},
		{"make it the root", func() error { return unix.Chroot(".") }},
		{"enter the root", func() error { return unix.Chdir("/") }},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			return fmt.Errorf("prepare the root: %s: %w", s.what, err)
		}
	}
	return nil
}

// linkUp sets a network interface up.
func linkUp(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req); err != nil {
		return fmt.Errorf("read flags of %s: %w", name, err)
	}
	req.SetUint16(req.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

// complain writes one line to the guest's console, which the host keeps.
func complain(err error) {
	line := []byte("xcontainer-agent: " + err.Error() + "\n")
	f, openErr := os.OpenFile("/dev/console", os.O_WRONLY|unix.O_NOCTTY, 0)
	if openErr != nil {
		_, _ = os.Stderr.Write(line)
		return
	}
	defer f.Close()
	_, _ = f.Write(line)
}

// powerOff ends the guest. It returns only when the kernel refuses.
func powerOff() error {
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		return fmt.Errorf("power off: %w", err)
	}
	select {}
}
