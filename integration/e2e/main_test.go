// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/xcontainer/xcontainer/integration/internal/inputs"
)

// The test images, as the lab imports them.
const (
	busybox = inputs.BusyboxImage
	debian  = inputs.DebianImage
	python  = inputs.PythonImage
)

// Set by TestMain.
var (
	under       machine // the machine under test
	runtimeName = cmp.Or(os.Getenv("RUNTIME"), ourRuntime)
	started     = time.Now()
)

func TestMain(m *testing.M) {
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
	defer cancel()
	close, err := openMachine(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer close()
	if err := prepare(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// openMachine sets under; the caller calls close when the tests are over.
func openMachine(ctx context.Context) (close func(), err error) {
	if os.Getenv("E2E_HOST") == "plain" {
		return openPlain(ctx)
	}
	return openLab(ctx)
}

func openPlain(ctx context.Context) (func(), error) {
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		return nil, err
	}
	h, err := startPlainHost(ctx, dir, os.Getenv("E2E_BIN"))
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	under = h
	done := func() { h.Close(); os.RemoveAll(dir) }
	tars, err := filepath.Glob(os.Getenv("E2E_IMAGES") + "/*.tar")
	if err != nil {
		done()
		return nil, err
	}
	for _, tar := range tars {
		if r, err := command(h, 2*time.Minute, nil, "ctr", "images", "import", tar); err != nil || r.code != 0 {
			done()
			return nil, fmt.Errorf("e2e: import %s: %v, %v", tar, err, r)
		}
	}
	return done, nil
}
