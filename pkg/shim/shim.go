// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/libos"
	"github.com/xcontainer/xcontainer/pkg/shim/bootstrap"
	"github.com/xcontainer/xcontainer/pkg/shim/holder"
	"github.com/xcontainer/xcontainer/pkg/shim/task"
)

// deleteTimeout is a little less than what containerd gives `delete`.
const deleteTimeout = 4500 * time.Millisecond

// Parts are what the shim needs to have domains. Libos gives the real ones.
type Parts struct {
	Boot    task.Boot
	Destroy bootstrap.Destroy
	Backend func() error // the back-end's whole life
}

// Main runs the program with the command line args and returns its exit status.
// Errors are one line on stderr, which containerd shows to its user.
func Main(args []string, p Parts) int {
	if err := run(args, p); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", bootstrap.RuntimeName, err)
		return 1
	}
	return 0
}

func run(args []string, p Parts) error {
	// What our parents left open by mistake goes no further. A kernel before 5.11
	// cannot do that.
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	// Roles of our own come without flags.
	if len(args) > 1 {
		switch args[1] {
		case holder.Role:
			return holder.Run()
		case libos.BackendRole:
			return p.Backend()
		}
	}
	f, err := bootstrap.ParseFlags(args[1:])
	if err != nil {
		return err
	}
	switch {
	case f.Version:
		return bootstrap.Version(filepath.Base(args[0]), os.Stdout)
	case f.Info:
		return bootstrap.Info(os.Stdout)
	case f.Action == bootstrap.ActionStart:
		return bootstrap.Start(f, os.Stdin, os.Stdout)
	case f.Action == bootstrap.ActionDelete:
		ctx, cancel := context.WithTimeout(context.Background(), deleteTimeout)
		defer cancel()
		return bootstrap.Delete(ctx, f, p.Destroy, os.Stdout, os.Stderr)
	}
	if err := f.Serving(); err != nil {
		return err
	}
	return serve(f, p)
}
