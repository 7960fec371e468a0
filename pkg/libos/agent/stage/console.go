// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"fmt"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// openTerminal allocates a pty from the container's own devpts, sends its
// master to the agent and makes its slave this session's controlling terminal
// and its stdio.
func openTerminal(ctl control, p *agentapi.Process, id identity, console bool) error {
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/ptmx: %w", err)
	}
	defer unix.Close(master)
	// The name is the container's to give; the device behind it must be the
	// pty multiplexer (5, 2).
	var st unix.Stat_t
	if err := unix.Fstat(master, &st); err != nil {
		return fmt.Errorf("stat /dev/ptmx: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(5, 2) {
		return failf(codes.FailedPrecondition, "/dev/ptmx is not the pty multiplexer")
	}
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return fmt.Errorf("unlock pty: %w", err)
	}
	// By descriptor, not by a path under /dev/pts that could be anything.
	peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return fmt.Errorf("open pty slave: %w", errno)
	}
	slave := int(peer)
	defer unix.Close(slave)
	size := unix.Winsize{Row: uint16(p.GetRows()), Col: uint16(p.GetColumns())}
	if size.Row != 0 && size.Col != 0 {
		if err := unix.IoctlSetWinsize(slave, unix.TIOCSWINSZ, &size); err != nil {
			return fmt.Errorf("set terminal size: %w", err)
		}
	}
	if console {
		if err := mountConsole(slave); err != nil {
			return fmt.Errorf("mount /dev/console: %w", err)
		}
	}
	for fd := range 3 {
		if err := unix.Dup3(slave, fd, 0); err != nil {
			return fmt.Errorf("use terminal as stdio: %w", err)
		}
	}
	if err := unix.IoctlSetInt(0, unix.TIOCSCTTY, 0); err != nil {
		return fmt.Errorf("set controlling terminal: %w", err)
	}
	return ctl.sendFD(Terminal, master)
}

// mountConsole mounts the terminal on /dev/console, if fillDev has made one.
func mountConsole(slave int) error {
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	tree, err := cloneTree(slave, false)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	return attach(root, "/dev/console", tree, false)
}
