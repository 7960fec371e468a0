// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/xcontainer/xcontainer/integration/internal/labrun"
	"github.com/xcontainer/xcontainer/integration/lab"
)

// labName keeps the tests' machine apart from the one a user plays with.
const labName = "test"

// labHost is the dom0 of a lab.
type labHost struct{ lab *lab.Lab }

// openLab boots a lab, or attaches to one, and makes it the machine under test.
func openLab(ctx context.Context) (close func(), err error) {
	o := lab.Options{Name: cmp.Or(os.Getenv(lab.EnvName), labName), Xen: os.Getenv("LAB_XEN")}
	o.Progress = func(what string) { fmt.Fprintf(os.Stderr, "[%3.0fs] %s\n", time.Since(started).Seconds(), what) }
	if os.Getenv("LAB_ATTACH") != "" {
		o.Name = os.Getenv(lab.EnvName) // without one the lab that a user plays with
	}
	l, end, err := labrun.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	under = labHost{l}
	return func() {
		if err := end(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}, nil
}

func (h labHost) Run(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	c := h.lab.Command(lab.Quote(append(labrun.Env(), argv...)...))
	c.Stdin, c.Stdout, c.Stderr = stdin, stdout, stderr
	err := c.Run(ctx)
	var exit *lab.ExitError
	if errors.As(err, &exit) {
		return exit.Code, nil
	}
	return 0, err
}

func (h labHost) RestartContainerd(ctx context.Context) error {
	return must(nil, "lab-containerd", "restart")
}

func (h labHost) StateDir() string { return "/run/containerd" }

func (h labHost) RootDir() string { return "/var/lib/containerd" }

// HasXen is false for runc's sake: without our runtime in the payload there is
// nothing that lists domains.
func (h labHost) HasXen() bool { return xen() }
