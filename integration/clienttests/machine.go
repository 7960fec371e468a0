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
	"slices"
	"strings"
	"time"

	"github.com/xcontainer/xcontainer/integration/internal/cache"
	"github.com/xcontainer/xcontainer/integration/internal/inputs"
	"github.com/xcontainer/xcontainer/integration/internal/labrun"
	"github.com/xcontainer/xcontainer/integration/lab"
)

// workDir is where dom0 has the test program and what it needs; the scripts know
// it too.
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
	log     io.Writer // gets what clean found
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
	if err := labrun.Build(ctx, filepath.Join(checkout, "integration"), tools+"/", "./cmd/labregistry"); err != nil {
		return in, err
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
	mark := in.mark()
	if keep {
		if m := attachMachine(ctx, o, mark, runtime); m != nil {
			return m, nil
		}
	}
	l, err := lab.Fresh(ctx, o)
	if err != nil {
		return nil, err
	}
	m := &machine{lab: l, runtime: runtime, log: io.Discard}
	if _, err := m.script(ctx, setupScript+"\necho "+mark+" >"+workDir+"/inputs"); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare dom0: %w", err), l.Down())
	}
	return m, nil
}

// mark names the inputs. Their folders are named after what they are made from,
// but for the tools', which hardly change.
func (in machineInputs) mark() string {
	var parts []string
	for tag, dir := range in.shares {
		parts = append(parts, tag+filepath.Base(dir))
	}
	slices.Sort(parts)
	return string(cache.KeyOf(parts...))
}

// attachMachine returns the running lab if it was prepared with the same inputs,
// or nil.
func attachMachine(ctx context.Context, o lab.Options, mark, runtime string) *machine {
	l, err := lab.Attach(ctx, o)
	if err != nil {
		return nil
	}
	m := &machine{lab: l, runtime: runtime, log: io.Discard}
	has, err := m.script(ctx, "cat "+workDir+"/inputs")
	if err == nil && strings.TrimSpace(string(has)) == mark {
		err = errors.Join(l.SyncPayload(ctx), m.clean(ctx))
	} else if err == nil {
		err = errors.New("other inputs")
	}
	if err != nil {
		l.Close()
		return nil
	}
	return m
}

// script runs a shell script in dom0 and returns its output.
func (m *machine) script(ctx context.Context, text string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, scriptLimit)
	defer cancel()
	r, err := m.lab.Run(ctx, text, nil)
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("exit code %d: %s", r.Code, bytes.TrimSpace(append(r.Stdout, r.Stderr...)))
	}
	return r.Stdout, err
}

// scriptLimit bounds what is done to dom0 between tests.
const scriptLimit = 3 * time.Minute

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
	_, err := m.script(ctx, "killall -q -QUIT client.test; sleep 3; killall -q -KILL client.test; true")
	return err
}

// clean implements runner.
func (m *machine) clean(ctx context.Context) error {
	out, err := m.script(ctx, cleanScript)
	if err != nil {
		return fmt.Errorf("%w: clean up: %w", errMachine, err)
	}
	if _, err := m.log.Write(out); err != nil {
		return fmt.Errorf("write the log: %w", err)
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
