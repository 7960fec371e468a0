// SPDX-License-Identifier: Apache-2.0

package clienttests

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/xcontainer/xcontainer/integration/internal/cache"
	"github.com/xcontainer/xcontainer/integration/internal/inputs"
	"github.com/xcontainer/xcontainer/integration/lab"
)

// workDir is where dom0 has the test program and what it needs.
const workDir = "/var/lib/client-tests"

// Scripts that run in dom0.
var (
	//go:embed dom0/setup
	setupScript string
	//go:embed dom0/run
	runScript string
	//go:embed dom0/clean
	cleanScript string
)

// machine is a lab in which the tests can run.
type machine struct {
	lab     *lab.Lab
	runtime string
}

// machineInputs are the folders of this host that dom0 mounts.
type machineInputs struct {
	shares map[string]string
	tests  []string // all that the program has, in its order
}

// buildInputs builds test program, images and registry. scratch is a directory
// that outlives the lab.
func buildInputs(ctx context.Context, checkout, scratch string, step func(string)) (machineInputs, error) {
	var in machineInputs
	c, err := cache.Open("")
	if err != nil {
		return in, err
	}
	b := inputs.NewBuilder(c, step)
	tests, err := b.ClientTests(ctx)
	if err != nil {
		return in, err
	}
	images, err := b.RegistryImages(ctx)
	if err != nil {
		return in, err
	}
	tools := filepath.Join(scratch, "tools")
	if err := os.MkdirAll(tools, 0o755); err != nil {
		return in, fmt.Errorf("make the folder of the tools: %w", err)
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", tools+"/", "./cmd/labregistry")
	build.Dir = filepath.Join(checkout, "integration")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := build.CombinedOutput(); err != nil {
		return in, fmt.Errorf("build the registry: %w: %s", err, bytes.TrimSpace(out))
	}
	in.shares = map[string]string{"client-tests": tests, "registry-images": images, "tools": tools}
	in.tests, err = listTests(ctx, filepath.Join(tests, inputs.ClientTestsProgram))
	return in, err
}

// listTests asks the program for its tests; that starts no daemon.
func listTests(ctx context.Context, program string) ([]string, error) {
	out, err := exec.CommandContext(ctx, program, "-test.short", "-test.list=^Test").Output()
	if err != nil {
		return nil, fmt.Errorf("list the tests: %w", err)
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "Test") {
			names = append(names, line)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("list the tests: %s names none", program)
	}
	return names, nil
}

// openMachine boots a lab and prepares it. With keep a lab that an earlier run
// kept is used again.
func openMachine(ctx context.Context, o lab.Options, in machineInputs, runtime string, keep bool) (*machine, error) {
	o.Shares = in.shares
	if keep {
		if l, err := lab.Attach(ctx, o); err == nil {
			m := &machine{lab: l, runtime: runtime}
			err := errors.Join(l.SyncPayload(ctx), m.clean(ctx))
			if err == nil {
				return m, nil
			}
			l.Close()
			return nil, err
		}
	}
	if err := lab.Down(ctx, o); err != nil && !errors.Is(err, lab.ErrNotRunning) {
		return nil, err
	}
	l, err := lab.Up(ctx, o)
	if err != nil {
		return nil, err
	}
	m := &machine{lab: l, runtime: runtime}
	for tag := range in.shares {
		if err := l.Mount(ctx, tag); err != nil {
			return nil, errors.Join(err, l.Down())
		}
	}
	if err := m.script(ctx, setupScript); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare dom0: %w", err), l.Down())
	}
	return m, nil
}

// script runs a shell script in dom0.
func (m *machine) script(ctx context.Context, text string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	r, err := m.lab.Run(ctx, text, nil)
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("exit code %d: %s", r.Code, bytes.TrimSpace(append(r.Stdout, r.Stderr...)))
	}
	return err
}

// start implements runner.
func (m *machine) start(ctx context.Context, tests []string, w io.Writer) (func() error, error) {
	c := m.lab.Command(runScript + "\nrun_tests " + lab.Quote(m.runtime, "^("+strings.Join(tests, "|")+")$"))
	c.Stdout = w
	if err := c.Start(ctx); err != nil {
		return nil, err
	}
	return func() error {
		err := c.Wait()
		var exit *lab.ExitError
		if errors.As(err, &exit) {
			return exitCode(exit.Code)
		}
		return err
	}, nil
}

// stop implements runner: the program prints its stacks and dies; if it does
// not, it is killed.
func (m *machine) stop(ctx context.Context) error {
	return m.script(ctx, "killall -q -QUIT client.test; sleep 3; killall -q -KILL client.test; true")
}

// clean implements runner.
func (m *machine) clean(ctx context.Context) error {
	if err := m.script(ctx, cleanScript); err != nil {
		return fmt.Errorf("%w: clean up: %w", errMachine, err)
	}
	return nil
}

// close ends the lab, or leaves it for the next run.
func (m *machine) close(keep bool) error {
	if keep {
		return m.lab.Close()
	}
	return m.lab.Down()
}
