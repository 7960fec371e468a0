// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

// machine is a host on which containerd runs and tests run commands as root.
type machine interface {
	// Run runs argv and waits for it. The exit code is the command's; an
	// error means that the command could not be run or was cut off.
	Run(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) (int, error)
	// RestartContainerd stops the daemon, starts it again and waits until
	// it answers. Containers go on.
	RestartContainerd(ctx context.Context) error
	// StateDir and RootDir are the daemon's directories.
	StateDir() string
	RootDir() string
	// HasXen says whether domains can be looked at there.
	HasXen() bool
}

// result is what a finished command left.
type result struct {
	code           int
	stdout, stderr string
}

func (r result) String() string {
	return fmt.Sprintf("exit code %d\nstdout: %s\nstderr: %s", r.code, clip(r.stdout), clip(r.stderr))
}

// clip shortens s for a report, keeping both ends.
func clip(s string) string {
	const half = 2000
	if len(s) <= 2*half {
		return s
	}
	return fmt.Sprintf("%s\n[%d bytes left out]\n%s", s[:half], len(s)-2*half, s[len(s)-half:])
}

// command runs argv on m for at most limit.
func command(m machine, limit time.Duration, stdin io.Reader, argv ...string) (result, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var stdout, stderr bytes.Buffer
	code, err := m.Run(ctx, argv, stdin, &stdout, &stderr)
	r := result{code: code, stdout: stdout.String(), stderr: stderr.String()}
	if err != nil {
		return r, fmt.Errorf("e2e: run %s: %w (%v)", clip(strings.Join(argv, " ")), err, r)
	}
	return r, nil
}

// quote makes one shell word of each argument and joins them.
func quote(args ...string) string {
	words := make([]string, len(args))
	for i, a := range args {
		words[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
	}
	return strings.Join(words, " ")
}
