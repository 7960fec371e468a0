// SPDX-License-Identifier: Apache-2.0

package xlibos

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/xcontainer/xcontainer/integration/internal/labrun"
	"github.com/xcontainer/xcontainer/integration/lab"
)

// machine is the lab that all tests share, set by TestMain.
var machine *lab.Lab

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	l, end, err := labrun.Open(ctx, lab.Options{
		Name:     cmp.Or(os.Getenv(lab.EnvName), "xlibos"),
		Xen:      os.Getenv("LAB_XEN"),
		Progress: func(what string) { fmt.Fprintln(os.Stderr, what) },
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "xlibos:", err)
		return 1
	}
	machine = l
	defer func() {
		if err := end(); err != nil {
			fmt.Fprintln(os.Stderr, "xlibos:", err)
		}
	}()
	return m.Run()
}
