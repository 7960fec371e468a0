// SPDX-License-Identifier: Apache-2.0

// Package labrun runs this very program in a lab's dom0, and has what programs
// that work on a lab share.
package labrun

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/xcontainer/xcontainer/integration/internal/tally"
	"github.com/xcontainer/xcontainer/integration/lab"
)

// Payload is where dom0 has our programs.
const Payload = "/opt/xcontainer"

// kept is how much of containerd's log is worth keeping after a failure.
const kept = "16000000"

// Main is a program whose work is done in dom0: there it is inDom0, which tells
// whether all was well, and anywhere else it is Run with args, by which it finds
// the same work there. It returns the exit code.
func Main(ctx context.Context, name string, inDom0 func(context.Context) bool, args ...string) int {
	if isDom0() {
		if inDom0(ctx) {
			return 0
		}
		return 1
	}
	code, err := Run(ctx, name, args...)
	if err != nil {
		tally.Tally{}.End(name, err)
		code = max(code, 1)
	}
	return code
}

// isDom0 tells whether this process runs on a lab's dom0.
func isDom0() bool {
	_, err := os.Stat("/usr/lib/lab/env")
	return err == nil
}

// Run boots the lab called name, runs this program there with args, and shows its
// output. With LAB_ATTACH set it takes a running lab, whose name is in
// XCONTAINER_LAB. It returns the program's exit code; after one that is not 0,
// containerd's log is in build/name.
func Run(ctx context.Context, name string, args ...string) (code int, err error) {
	var c Checks
	c.Begin()
	o, err := Options(name, &c)
	if err != nil {
		return 1, err
	}
	l, end, err := Open(ctx, o)
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, end()) }()
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	program := "/var/tmp/" + name
	if err := l.CopyTo(ctx, self, program); err != nil {
		return 1, err
	}
	cmd := l.Command(lab.Quote(append(append(Env(), program), args...)...))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err = cmd.Run(ctx)
	logs := filepath.Join(o.Checkout, "build", name)
	var exit *lab.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.Code, keepLog(ctx, l, logs)
	case err != nil:
		return 1, errors.Join(err, keepLog(context.WithoutCancel(ctx), l, logs))
	}
	return 0, nil
}

// Options are those of the lab called name, or as XCONTAINER_LAB says, on the Xen
// that LAB_XEN says. What is being done goes to c.
func Options(name string, c *Checks) (lab.Options, error) {
	checkout, err := lab.FindCheckout("..") // integration is a module of its own
	return lab.Options{
		Checkout: checkout, Name: cmp.Or(os.Getenv(lab.EnvName), name), Xen: os.Getenv("LAB_XEN"),
		Progress: func(what string) { c.Say("%s", what) },
	}, err
}

// Env begins a command line in dom0: env(1) with our programs first in PATH and
// the library OS named. Not every login shell knows.
func Env() []string {
	return []string{"env", "PATH=" + Payload + "/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"XCONTAINER_SHARE=" + Payload + "/share/xcontainer"}
}

// Open boots a new lab, or with LAB_ATTACH set takes the running one and gives it
// the newest programs; end gives it up.
func Open(ctx context.Context, o lab.Options) (l *lab.Lab, end func() error, err error) {
	if os.Getenv("LAB_ATTACH") != "" {
		if l, err = lab.Attach(ctx, o); err != nil {
			return nil, nil, err
		}
		if err := asked(o, l.State().Xen); err != nil {
			return nil, nil, errors.Join(err, l.Close())
		}
		return l, l.Close, l.SyncPayload(ctx)
	}
	if l, err = lab.Fresh(ctx, o); err != nil {
		return nil, nil, err
	}
	return l, l.Down, nil
}

// asked is an error if a running lab has another Xen than o asks for, if it does.
func asked(o lab.Options, xen string) error {
	if o.NoXen && xen != "" || o.Xen != "" && o.Xen != xen {
		return fmt.Errorf("the running lab has Xen %s, and %s is asked for: take that one, or a new lab without LAB_ATTACH",
			cmp.Or(xen, "none"), cmp.Or(o.Xen, "none"))
	}
	return nil
}

// Build builds the package pkg as a static program for dom0. pkg may be relative
// to the folder dir, or to the working directory if that is "".
func Build(ctx context.Context, dir, out, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, pkg)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", pkg, err, bytes.TrimSpace(text))
	}
	return nil
}

// keepLog saves the end of containerd's log, which has the shims' lines.
func keepLog(ctx context.Context, l *lab.Lab, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	r, err := l.Run(ctx, "tail -c "+kept+" /var/log/containerd.log", nil)
	if err != nil {
		return fmt.Errorf("keep containerd's log: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("keep containerd's log: %w", err)
	}
	path := filepath.Join(dir, "containerd.log")
	if err := os.WriteFile(path, bytes.ToValidUTF8(r.Stdout, []byte("?")), 0o644); err != nil {
		return fmt.Errorf("keep containerd's log: %w", err)
	}
	// Not to stdout, whose last line is the program's tally.
	fmt.Fprintln(os.Stderr, "containerd's log is in", path)
	return nil
}

// Checks prints one line for each check, and counts.
type Checks struct {
	tally.Tally
	begin time.Time
}

// Begin starts the clock of the lines.
func (c *Checks) Begin() { c.begin = time.Now() }

// Say prints what is going on.
func (c *Checks) Say(format string, args ...any) {
	fmt.Printf("[%4.0fs] %s\n", time.Since(c.begin).Seconds(), fmt.Sprintf(format, args...))
}

// Check counts a check that found ok, and prints it.
func (c *Checks) Check(ok bool, format string, args ...any) {
	word := "ok  "
	if ok {
		c.Passed++
	} else {
		c.Failed++
		word = "FAIL"
	}
	c.Say("%s %s", word, fmt.Sprintf(format, args...))
}

// End prints the tally, with err, if it is not nil, as one more failed check, and
// tells whether all was well.
func (c *Checks) End(err error) bool {
	if err != nil {
		c.Check(false, "%v", err)
	}
	fmt.Println(c.Tally)
	return c.Failed == 0
}

// testsLimit bounds how long a lab for tests takes to be up.
const testsLimit = 20 * time.Minute

// Tests gives the lab called name, or as XCONTAINER_LAB says, to the tests of a
// package: use hears of it, run runs the tests. It returns the exit code.
func Tests(name string, use func(*lab.Lab), run func() int) int {
	ctx, cancel := context.WithTimeout(context.Background(), testsLimit)
	defer cancel()
	l, end, err := Open(ctx, lab.Options{
		Name:     cmp.Or(os.Getenv(lab.EnvName), name),
		Xen:      os.Getenv("LAB_XEN"),
		Progress: func(what string) { fmt.Fprintln(os.Stderr, what) },
	})
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	defer func() {
		if err := end(); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		}
	}()
	use(l)
	return run()
}
