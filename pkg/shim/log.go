// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"fmt"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"
)

// logPipe writes to the named pipe that containerd reads the shim's log from. It
// never waits: a line that finds the pipe full is lost.
type logPipe struct{ fd int }

// openLog sends the log, and what the Go runtime writes on a crash, to the pipe
// called name. It is opened for reading too: so it opens without containerd, and
// what is written while containerd restarts waits in it. level is one that
// containerd's log package knows.
func openLog(name, level string) error {
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := unix.Dup3(fd, 2, 0); err != nil {
		unix.Close(fd)
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := log.SetFormat(log.TextFormat); err != nil {
		return err
	}
	if err := log.SetLevel(level); err != nil {
		return err
	}
	log.L.Logger.SetOutput(logPipe{fd})
	log.L = log.L.WithField("runtime", "io.containerd.xcontainer.v2")
	return nil
}

func (l logPipe) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n, err := unix.Write(l.fd, rest)
		switch err {
		case nil:
			rest = rest[n:]
		case unix.EINTR:
		default:
			return len(p), nil
		}
	}
	return len(p), nil
}
