// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	scheme        = "unix://"
	maxSocketPath = 106 // bytes, of sockaddr_un less what other tools add
)

// DefaultSocketDir is where shims listen unless containerd says otherwise.
const DefaultSocketDir = "/run/containerd/s"

// SocketPrefix begins the name of every socket of ours: the folder is shared with
// other runtimes' shims, whose dead sockets are not ours to remove.
const SocketPrefix = "xc-"

// socketPath is the same for the same container of the same daemon.
func socketPath(dir, grpcAddress, namespace, id string) (string, error) {
	if dir == "" {
		dir = DefaultSocketDir
	}
	sum := sha256.Sum256([]byte(filepath.Join(grpcAddress, namespace, id)))
	p := filepath.Join(dir, fmt.Sprintf("%s%x", SocketPrefix, sum))
	if len(p) > maxSocketPath {
		return "", fmt.Errorf("socket directory %s is too long: a socket's path has at most %d bytes; set a shorter one in containerd's configuration", dir, maxSocketPath)
	}
	return p, nil
}

// errServed says that another shim listens.
var errServed = errors.New("a shim serves this socket already")

// listen makes the socket; one that a dead shim left is replaced.
func listen(path string) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make socket directory: %w", err)
	}
	for try := 0; ; try++ {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err == nil {
			l.SetUnlinkOnClose(false)
			if err := os.Chmod(path, 0o600); err != nil {
				l.Close()
				os.Remove(path)
				return nil, fmt.Errorf("make socket: %w", err)
			}
			return l, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) || try > 0 {
			return nil, fmt.Errorf("make socket: %w", err)
		}
		if c, err := net.DialTimeout("unix", path, 100*time.Millisecond); err == nil {
			c.Close()
			return nil, errServed
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("replace socket of a dead shim: %w", err)
		}
	}
}

// addressFile holds the socket's address in the bundle: containerd 1.6 reads it
// after a restart, and `delete` to find the socket.
const addressFile = "address"

// SocketOf is the path of the socket of the shim that was started in the bundle
// dir, "" if none was.
func SocketOf(dir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, addressFile))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	path, ok := strings.CutPrefix(string(b), scheme)
	if !ok {
		return "", fmt.Errorf("%s holds no address", filepath.Join(dir, addressFile))
	}
	return path, nil
}

func removeSocket(dir string) error {
	path, err := SocketOf(dir)
	if err == nil && path != "" {
		err = RemoveSockets(path)
	}
	if err != nil {
		return fmt.Errorf("remove socket: %w", err)
	}
	return nil
}

// DebugSocket is the profiler's socket of the shim that listens at path.
func DebugSocket(path string) string { return path + ".debug" }

// RemoveSockets removes both sockets of a shim, as far as they are there.
func RemoveSockets(path string) error {
	var errs []error
	for _, p := range []string{path, DebugSocket(path)} {
		if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
