// SPDX-License-Identifier: Apache-2.0

package srcbuild

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// ErrTools means that programs or headers are missing on this machine.
var ErrTools = errors.New("missing build tools")

// Tool is a program that a build runs, or a header by its absolute path, and the
// Debian package that has it.
type Tool struct{ Name, Package string }

// Check names the packages of everything that is missing, at once. The error
// wraps ErrTools.
func Check(tools []Tool) error {
	var pkgs []string
	for _, t := range tools {
		if !t.there() && !slices.Contains(pkgs, t.Package) {
			pkgs = append(pkgs, t.Package)
		}
	}
	if len(pkgs) == 0 {
		return nil
	}
	return fmt.Errorf("%w: run `sudo apt-get install %s`", ErrTools, strings.Join(pkgs, " "))
}

func (t Tool) there() bool {
	var err error
	if filepath.IsAbs(t.Name) {
		_, err = os.Stat(t.Name)
	} else {
		_, err = exec.LookPath(t.Name)
	}
	return err == nil
}

// Command prepares a program without the user's environment, of which much
// changes a build: CC, CFLAGS, MAKEFLAGS, ARCH. env is added to what is left.
func Command(ctx context.Context, dir string, env []string, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "LC_ALL=C", "TZ=UTC"}, env...)
	return cmd
}

// errorTail bounds how much of a program's messages an error carries, in bytes.
const errorTail = 2000

// Output runs cmd and returns its standard output. An error carries the end of
// what it printed.
func Output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(stdout.String() + "\n" + stderr.String())
		if n := len(text); n > errorTail {
			text = "..." + text[n-errorTail:]
		}
		return "", fmt.Errorf("run %s: %w: %s", filepath.Base(cmd.Path), err, text)
	}
	return stdout.String(), nil
}

// FirstLine runs a program and returns the first line that it prints.
func FirstLine(ctx context.Context, name string, args ...string) (string, error) {
	text, err := Output(Command(ctx, "", nil, name, args...))
	line, _, _ := strings.Cut(text, "\n")
	return line, err
}

// SeriesFile names a folder's patches in the order of their application.
const SeriesFile = "series"

// ApplySeries applies the patches that a folder of fsys has for the tree, in
// the order of its SeriesFile. Comments and quilt's "-p1" are understood.
func ApplySeries(ctx context.Context, tree string, fsys fs.FS, folder string) error {
	names, err := Series(fsys, folder)
	if err != nil {
		return err
	}
	for _, name := range names {
		text, err := fs.ReadFile(fsys, path.Join(folder, name))
		if err != nil {
			return fmt.Errorf("read patch: %w", err)
		}
		// Fuzz would let a patch land in the wrong place unseen.
		cmd := Command(ctx, tree, nil, "patch", "-p1", "--fuzz=0", "--batch", "--forward")
		cmd.Stdin = bytes.NewReader(text)
		if _, err := Output(cmd); err != nil {
			return fmt.Errorf("apply %s: %w", name, err)
		}
	}
	return nil
}

// Series returns the names of the patches in a folder of fsys, in the order of
// its SeriesFile.
func Series(fsys fs.FS, folder string) ([]string, error) {
	text, err := fs.ReadFile(fsys, path.Join(folder, SeriesFile))
	if err != nil {
		return nil, fmt.Errorf("read series: %w", err)
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) > 2 || len(f) == 2 && f[1] != "-p1" || !fs.ValidPath(f[0]) {
			return nil, fmt.Errorf("series of %s: line %q is not understood", folder, strings.TrimSpace(line))
		}
		names = append(names, f[0])
	}
	return names, nil
}
