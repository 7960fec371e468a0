// SPDX-License-Identifier: Apache-2.0

package inputs

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// goVersion returns the version of the go command, which is part of the key of
// whatever it builds.
func goVersion(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOVERSION").Output()
	if err != nil {
		return "", fmt.Errorf("inputs: ask go for its version: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// goRoot returns the folder of the go command's own files.
func goRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("inputs: ask go for its root: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// goRun runs the go command in dir, for a static program of the lab's platform.
func goRun(ctx context.Context, dir string, env []string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=", "GOWORK=off")
	cmd.Env = append(cmd.Env, env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go %s: %w: %s", args[0], err, lastLines(out.String(), 5))
	}
	return nil
}

// moduleDir fetches a module, whose sum the go command checks, and returns the
// read-only directory of its sources.
func moduleDir(ctx context.Context, module, version string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", module+"@"+version)
	cmd.Dir = os.TempDir() // outside any module
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "GO111MODULE=on")
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	var m struct{ Dir, Error string }
	if jerr := json.Unmarshal(out, &m); err == nil {
		err = jerr
	}
	switch {
	case m.Error != "":
		return "", fmt.Errorf("inputs: fetch module %s %s: %s", module, version, m.Error)
	case err != nil:
		return "", fmt.Errorf("inputs: fetch module %s %s: %w: %s", module, version, err, lastLines(errOut.String(), 5))
	case !filepath.IsAbs(m.Dir):
		return "", fmt.Errorf("inputs: fetch module %s %s: no directory in %q", module, version, out)
	}
	return m.Dir, nil
}
