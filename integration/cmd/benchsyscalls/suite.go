// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/xcontainer/xcontainer/integration/internal/cache"
	"github.com/xcontainer/xcontainer/integration/internal/inputs"
	"github.com/xcontainer/xcontainer/integration/internal/labrun"
)

// suite is what is measured in one run, and shown in one table.
type suite struct {
	file      string // name of the table and of the plot, without an end
	legend    string // below what machine says
	seconds   int    // for each workload, unless the user says
	only      string // environments and configurations, unless the user says
	workloads []workload
	// images is a folder with an archive of images that the lab does not have, or "".
	images string
	// onCPU has workloads run on the container's first CPU. If not, they see to it
	// themselves.
	onCPU bool
	// shares has each cell tell the share of direct calls, too.
	shares bool
	libc   string // that the programs are linked with, if there is one
}

const (
	programName   = "sysbench"
	muslName      = programName + "-musl"
	muslLinker    = "ld-musl-x86_64.so.1"
	serverName    = "goserver"
	programSource = "integration/xlibos/bench" // in the checkout
)

// syscallSuite measures single system calls. What containers need of it goes to the
// folder dir.
func syscallSuite(ctx context.Context, checkout, dir string) (*suite, error) {
	if err := buildProgram(ctx, filepath.Join(checkout, programSource), filepath.Join(dir, programName)); err != nil {
		return nil, err
	}
	return &suite{
		file: "syscalls", legend: syscallLegend, seconds: 2, workloads: workloads, libc: libcVersion(ctx),
	}, nil
}

// serverSuite measures servers. What containers need of it goes to the folder dir.
func serverSuite(ctx context.Context, checkout, dir string) (*suite, error) {
	c, err := cache.Open("")
	if err != nil {
		return nil, err
	}
	b := inputs.NewBuilder(c, func(what string) { say("%s", what) })
	archive, images, err := b.ServerImages(ctx)
	if err != nil {
		return nil, err
	}
	musl, err := b.Musl(ctx)
	if err != nil {
		return nil, err
	}
	source := filepath.Join(checkout, programSource)
	if err := buildMusl(ctx, musl, source, dir); err != nil {
		return nil, err
	}
	if err := labrun.Build(ctx, source, filepath.Join(dir, serverName), "./"+serverName); err != nil {
		return nil, err
	}
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(source, "servers"))); err != nil {
		return nil, fmt.Errorf("copy the servers' files: %w", err)
	}
	return &suite{
		file: "servers", legend: serverLegend, seconds: 5, only: "runc-pti,runc-nopti,xen-off-up,xen-full-up,xkernel-full-up",
		workloads: serverWorkloads(images), images: archive, onCPU: true, shares: true,
	}, nil
}

// keep drops the workloads that are not named. With rows empty it keeps all.
func (s *suite) keep(rows string) error {
	if rows == "" {
		return nil
	}
	var known []string
	for _, w := range s.workloads {
		known = append(known, w.name)
	}
	wanted := strings.Split(rows, ",")
	for _, name := range wanted {
		if !slices.Contains(known, name) {
			return fmt.Errorf("-rows: no %q; there are: %s", name, strings.Join(known, " "))
		}
	}
	s.workloads = slices.DeleteFunc(slices.Clone(s.workloads), func(w workload) bool { return !slices.Contains(wanted, w.name) })
	return nil
}

// buildProgram compiles the program that is run in containers.
func buildProgram(ctx context.Context, source, out string) error {
	return compile(ctx, source, out, "-static")
}

// buildMusl compiles the same for musl as a shared library, whose folder musl is, and
// copies that beside it into dir: containers have it at a place of ours.
func buildMusl(ctx context.Context, musl, source, dir string) error {
	own, err := exec.CommandContext(ctx, "gcc", "-print-file-name=include").Output()
	if err != nil {
		return fmt.Errorf("build %s: ask gcc for its headers: %w", muslName, err)
	}
	lib := filepath.Join(musl, inputs.MuslLib)
	// The kernel's headers are this machine's; those of glibc must not be found.
	err = compile(ctx, source, filepath.Join(dir, muslName), "-nostdinc",
		"-isystem", filepath.Join(musl, inputs.MuslInclude), "-isystem", string(bytes.TrimSpace(own)),
		"-idirafter", "/usr/include", "-idirafter", "/usr/include/x86_64-linux-gnu",
		"-nostdlib", filepath.Join(lib, "Scrt1.o"), filepath.Join(lib, "crti.o"), filepath.Join(lib, "crtn.o"),
		"-Wl,-dynamic-linker,"+mount+"/"+muslLinker, "-L"+filepath.Join(musl, filepath.Dir(inputs.MuslLibc)), "-lc")
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(musl, inputs.MuslLibc))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, muslLinker), text, 0o755)
	}
	if err != nil {
		return fmt.Errorf("build %s: %w", muslName, err)
	}
	return nil
}

// compile calls the compiler for all sources in a folder.
func compile(ctx context.Context, source, out string, args ...string) error {
	files, err := filepath.Glob(filepath.Join(source, "*.c"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("build %s: no source in %s", filepath.Base(out), source)
	}
	args = slices.Concat([]string{"-O2", "-Wall", "-Wextra", "-Werror", "-o", out}, files, args)
	if text, err := exec.CommandContext(ctx, "gcc", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", filepath.Base(out), err, bytes.TrimSpace(text))
	}
	return nil
}

// libcVersion is the C library of this machine, which the program is linked with,
// or "" if that does not tell.
func libcVersion(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "getconf", "GNU_LIBC_VERSION").Output()
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(out))
}
