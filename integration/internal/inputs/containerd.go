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

// ContainerdVersion is the containerd that the lab runs.
const ContainerdVersion = "v2.3.7"

// containerdModule is where it comes from.
const containerdModule = "github.com/containerd/containerd/v2"

// containerdPrograms are built from it.
var containerdPrograms = []string{"containerd", "ctr", "containerd-shim-runc-v2"}

// containerdTags leave out drivers whose libraries or devices the lab has not.
const containerdTags = "no_btrfs,no_zfs"

// Containerd builds containerd's programs and returns the directory they are in.
func (b *Builder) Containerd(ctx context.Context) (string, error) {
	goVersion, err := goVersion(ctx)
	if err != nil {
		return "", err
	}
	key := cache.KeyOf(append([]string{ContainerdVersion, containerdTags, goVersion}, containerdPrograms...)...)
	return b.cache.Dir(ctx, "containerd", key, func(ctx context.Context, dir string) error {
		b.step("build containerd " + ContainerdVersion)
		ldflags := "-s -w -X " + containerdModule + "/version.Version=" + ContainerdVersion
		args := []string{"install", "-trimpath", "-tags=" + containerdTags, "-ldflags=" + ldflags}
		for _, p := range containerdPrograms {
			args = append(args, containerdModule+"/cmd/"+p+"@"+ContainerdVersion)
		}
		// dir is outside any module.
		if err := goRun(ctx, dir, []string{"GOBIN=" + dir}, args...); err != nil {
			return fmt.Errorf("inputs: build containerd %s: %w", ContainerdVersion, err)
		}
		for _, p := range containerdPrograms {
			if _, err := os.Stat(filepath.Join(dir, p)); err != nil {
				return fmt.Errorf("inputs: build containerd: %w", err)
			}
		}
		return nil
	})
}

// lastLines returns the last n lines of text.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
