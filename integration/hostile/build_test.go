// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/xcontainer/xcontainer/integration/internal/labrun"
	"github.com/xcontainer/xcontainer/integration/kernelbuild"
	"github.com/xcontainer/xcontainer/pkg/libos/kernel"
)

// cflags make a kernel for a PV domain out of guest/.
var cflags = []string{
	"-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-nostdlib", "-static",
	"-fno-pic", "-fno-pie", "-no-pie", "-mcmodel=kernel", "-mno-red-zone", "-mgeneral-regs-only",
	"-fno-stack-protector", "-fno-strict-aliasing",
	"-Wl,-T,link.ld", "-Wl,--build-id=none", "-Wl,--no-warn-rwx-segments",
}

// kernelFile is the kernel that a guest of one virtual CPU gets, as these are.
var kernelFile = kernel.UP.Vmlinux

// buildKernel writes the hostile kernel and an initramfs that it ignores to dir.
func buildKernel(ctx context.Context, dir, mode, canary string, seed uint64) error {
	args := append([]string{}, cflags...)
	args = append(args, "-DMODE="+mode, fmt.Sprintf("-DSEED=%dUL", seed), fmt.Sprintf("-DCANARY=%q", canary),
		"-o", filepath.Join(dir, kernelFile), "start.S", "base.c", "virtio.c", "vsock.c", "fuse.c")
	cmd := exec.CommandContext(ctx, "gcc", args...)
	cmd.Dir = "guest"
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the hostile kernel: %w\n%s", err, out)
	}
	return os.WriteFile(filepath.Join(dir, "initramfs.cpio"), make([]byte, 4096), 0o644)
}

// buildAgent returns the hostile agent without a mode.
func buildAgent(ctx context.Context, t *testing.T) ([]byte, error) {
	path := filepath.Join(t.TempDir(), "agent")
	if err := labrun.Build(ctx, "", path, "./agent"); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// writeAgent writes an initramfs with the hostile agent to dir; the kernel is
// the payload's.
func writeAgent(dir string, agent []byte, mode string) error {
	init := append(append([]byte{}, agent...), "\x00hostile-mode="+mode...)
	initramfs, err := kernelbuild.Initramfs(init, false)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "initramfs.cpio"), initramfs, 0o644)
}
