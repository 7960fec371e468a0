// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"go/version"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// minGo is the oldest Go that can build containerd (its go.mod).
const minGo = "go1.26.8"

// hostTools are the programs that the lab runs, and the package of each.
var hostTools = []struct{ program, pkg string }{
	{qemuProgram, "qemu-system-x86"},
	{"apt-get", "apt"},
	{"dpkg-deb", "dpkg"},
	{"mke2fs", "e2fsprogs"},
	{"unshare", "util-linux"},
}

// ErrMissing means that something has to be installed first.
var ErrMissing = errors.New("missing on this machine")

// CheckHost reports in one error everything that must be installed before the
// lab can be built, with the commands that do it.
func CheckHost(ctx context.Context) error {
	var missing, pkgs []string
	for _, t := range hostTools {
		if _, ok := findTool(t.program); !ok {
			missing = append(missing, t.program)
			pkgs = append(pkgs, t.pkg)
		}
	}
	var errs []error
	if len(pkgs) > 0 {
		errs = append(errs, fmt.Errorf("lab: %w: %s; install with: sudo apt-get install --no-install-recommends %s",
			ErrMissing, strings.Join(missing, ", "), strings.Join(pkgs, " ")))
	}
	errs = append(errs, checkGo(ctx))
	return errors.Join(errs...)
}

// checkGo looks for a Go that is new enough, or that fetches one that is.
func checkGo(ctx context.Context) error {
	const remedy = "install it as https://go.dev/doc/install says"
	out, err := exec.CommandContext(ctx, "go", "env", "GOVERSION", "GOTOOLCHAIN").Output()
	if err != nil {
		return fmt.Errorf("lab: %w: go (%s or newer); %s", ErrMissing, minGo, remedy)
	}
	f := strings.Fields(string(out))
	if len(f) > 0 && version.IsValid(f[0]) && version.Compare(f[0], minGo) < 0 && (len(f) < 2 || f[1] == "local") {
		return fmt.Errorf("lab: %w: go %s or newer (found %s); %s", ErrMissing, minGo, f[0], remedy)
	}
	return nil
}

// findTool looks for a program in PATH and where root's programs are.
func findTool(name string) (string, bool) {
	if p, err := exec.LookPath(name); err == nil {
		return p, true
	}
	for _, d := range []string{"/usr/sbin", "/sbin"} {
		p := filepath.Join(d, name)
		if st, err := os.Stat(p); err == nil && st.Mode()&0o111 != 0 {
			return p, true
		}
	}
	return "", false
}
