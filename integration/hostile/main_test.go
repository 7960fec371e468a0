// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/xcontainer/xcontainer/integration/lab"
)

// machine is the lab that all tests share, set by TestMain.
var machine *lab.Lab

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	closeLab, err := openLab(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "hostile:", err)
		return 1
	}
	defer closeLab()
	return m.Run()
}

// openLab boots a lab, or attaches to the one that LAB_ATTACH asks for.
func openLab(ctx context.Context) (closeLab func(), err error) {
	o := lab.Options{
		Name:     cmp.Or(os.Getenv(lab.EnvName), "hostile"),
		Xen:      os.Getenv("LAB_XEN"),
		Progress: func(what string) { fmt.Fprintln(os.Stderr, what) },
	}
	if os.Getenv("LAB_ATTACH") != "" {
		if machine, err = lab.Attach(ctx, o); err != nil {
			return nil, err
		}
		return func() { machine.Close() }, machine.SyncPayload(ctx)
	}
	if err := lab.Down(ctx, o); err != nil && !errors.Is(err, lab.ErrNotRunning) {
		return nil, err
	}
	if machine, err = lab.Up(ctx, o); err != nil {
		return nil, err
	}
	return func() {
		if err := machine.Down(); err != nil {
			fmt.Fprintln(os.Stderr, "hostile:", err)
		}
	}, nil
}
