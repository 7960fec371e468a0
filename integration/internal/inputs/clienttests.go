// SPDX-License-Identifier: Apache-2.0

package inputs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/xcontainer/xcontainer/integration/internal/cache"
)

// Files of the directory that ClientTests returns.
const (
	ClientTestsProgram = "client.test"
	ClientTestsData    = "testdata" // the program expects it in its working directory
)

// clientTestsPackage are containerd's own tests of its client.
const clientTestsPackage = "./integration/client"

// clientTestsVersion changes when the code below makes something else of the
// same sources.
const clientTestsVersion = "v1"

// longerWaits are the places where the tests bound how long a daemon may take
// to start, or to answer after it was started anew. Those bounds are for real
// machines; an emulated one is about ten times slower. Nothing else is changed.
var longerWaits = []struct{ file, from, to string }{
	{"client_test.go", "WithTimeout(ctx, 4*time.Second)", "WithTimeout(ctx, 60*time.Second)"},
	{"container_linux_test.go", "WithTimeout(ctx, 2*time.Second)\n\tserving", "WithTimeout(ctx, 30*time.Second)\n\tserving"},
	{"container_linux_test.go", "WithTimeout(ctx, 4*time.Second)", "WithTimeout(ctx, 60*time.Second)"},
	{"restart_monitor_test.go", "WithTimeout(context.TODO(), 2*time.Second)", "WithTimeout(context.TODO(), 30*time.Second)"},
}

// ClientTests builds the tests of containerd's client, of the lab's version, as
// one static program, and returns the directory it is in.
func (b *Builder) ClientTests(ctx context.Context) (string, error) {
	goVersion, err := goVersion(ctx)
	if err != nil {
		return "", err
	}
	parts := []string{clientTestsVersion, ContainerdVersion, containerdTags, goVersion}
	for _, w := range longerWaits {
		parts = append(parts, w.file, w.from, w.to)
	}
	return b.cache.Dir(ctx, "client-tests", cache.KeyOf(parts...), func(ctx context.Context, dir string) error {
		b.step("build containerd's client tests " + ContainerdVersion)
		src, err := moduleDir(ctx, containerdModule, ContainerdVersion)
		if err != nil {
			return err
		}
		// The module cache is not to be changed, hence a copy. In the module's own
		// directory its go.mod and go.sum decide on versions.
		tree := filepath.Join(dir, "src")
		if err := os.CopyFS(tree, os.DirFS(src)); err != nil {
			return fmt.Errorf("inputs: build client tests: %w", err)
		}
		pkg := filepath.Join(tree, clientTestsPackage)
		if err := waitLonger(pkg); err != nil {
			return fmt.Errorf("inputs: build client tests: %w", err)
		}
		if err := goRun(ctx, tree, nil, "test", "-c", "-mod=readonly", "-trimpath", "-ldflags=-s -w", "-tags="+containerdTags,
			"-o="+filepath.Join(dir, ClientTestsProgram), clientTestsPackage); err != nil {
			return fmt.Errorf("inputs: build client tests: %w", err)
		}
		if err := os.Rename(filepath.Join(pkg, ClientTestsData), filepath.Join(dir, ClientTestsData)); err != nil {
			return fmt.Errorf("inputs: build client tests: %w", err)
		}
		if err := os.RemoveAll(tree); err != nil {
			return fmt.Errorf("inputs: build client tests: %w", err)
		}
		return nil
	})
}

// waitLonger changes the package's files in a directory.
func waitLonger(pkg string) error {
	for _, w := range longerWaits {
		path := filepath.Join(pkg, w.file)
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if n := strings.Count(string(b), w.from); n != 1 {
			return fmt.Errorf("%s has %d places like %q, want 1", w.file, n, w.from)
		}
		// Replaced, not overwritten: the copy has the module cache's modes.
		if err := os.Remove(path); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(strings.Replace(string(b), w.from, w.to, 1)), 0o644); err != nil {
			return err
		}
	}
	return nil
}
