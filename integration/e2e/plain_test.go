// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// plainHost is this machine: a containerd of its own, with all its state in
// one directory, on a kernel that runs on no Xen.
type plainHost struct {
	dir    string
	bin    string
	daemon *exec.Cmd
}

// startPlainHost starts a daemon that finds its programs in bin first. The
// caller calls Close, and removes dir.
func startPlainHost(ctx context.Context, dir, bin string) (*plainHost, error) {
	h := &plainHost{dir: dir, bin: bin}
	config := `version = 3
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime",
	"io.containerd.cri.v1.images", "io.containerd.nri.v1.nri"]
[plugins."io.containerd.internal.v1.opt"]
	path = "` + filepath.Join(dir, "opt") + `"
`
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(config), 0o600); err != nil {
		return nil, fmt.Errorf("e2e: plain host: %w", err)
	}
	if err := h.startDaemon(ctx); err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

func (h *plainHost) env() []string {
	return append(os.Environ(),
		"PATH="+h.bin+":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"CONTAINERD_ADDRESS="+filepath.Join(h.StateDir(), "containerd.sock"))
}

func (h *plainHost) startDaemon(ctx context.Context) error {
	log, err := os.OpenFile(filepath.Join(h.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("e2e: plain host: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(h.bin, "containerd"), "-c", filepath.Join(h.dir, "config.toml"),
		"--root", h.RootDir(), "--state", h.StateDir(),
		"--address", filepath.Join(h.StateDir(), "containerd.sock"))
	cmd.Env, cmd.Stdout, cmd.Stderr = h.env(), log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("e2e: plain host: start containerd: %w", err)
	}
	h.daemon = cmd
	for {
		if r, err := command(h, 10*time.Second, nil, "ctr", "version"); err == nil && r.code == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("e2e: plain host: containerd does not answer, see %s: %w", log.Name(), ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (h *plainHost) stopDaemon() {
	if h.daemon == nil {
		return
	}
	h.daemon.Process.Signal(os.Interrupt)
	done := make(chan struct{})
	go func() { h.daemon.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		h.daemon.Process.Kill()
		<-done
	}
	h.daemon = nil
}

// Close stops the daemon.
func (h *plainHost) Close() { h.stopDaemon() }

func (h *plainHost) Run(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	cmd := exec.CommandContext(ctx, "env", argv...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = h.env(), stdin, stdout, stderr
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil {
		return exit.ExitCode(), nil
	}
	return 0, err
}

func (h *plainHost) RestartContainerd(ctx context.Context) error {
	h.stopDaemon()
	return h.startDaemon(ctx)
}

func (h *plainHost) StateDir() string { return filepath.Join(h.dir, "state") }

func (h *plainHost) RootDir() string { return filepath.Join(h.dir, "root") }

func (h *plainHost) HasXen() bool { return false }
