// SPDX-License-Identifier: Apache-2.0

package inputs

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

func TestPauseRunsUntilASignal(t *testing.T) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		t.Skip("the program is for Linux on amd64")
	}
	exe := filepath.Join(t.TempDir(), "pause")
	if err := os.WriteFile(exe, amd64Pause(), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signal() != syscall.SIGTERM {
		t.Errorf("ended by %v", ws)
	}
}

func TestWaitLongerNeedsEveryPlace(t *testing.T) {
	dir := t.TempDir()
	texts := map[string]string{}
	for _, w := range longerWaits {
		texts[w.file] += w.from + "\n"
	}
	write := func() {
		for name, text := range texts {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o444); err != nil {
				t.Fatal(err)
			}
		}
	}
	write()
	if err := waitLonger(dir); err != nil {
		t.Fatal(err)
	}
	for _, w := range longerWaits {
		b, err := os.ReadFile(filepath.Join(dir, w.file))
		if err != nil || !strings.Contains(string(b), w.to) {
			t.Errorf("%s: %q is not changed, %v", w.file, w.from, err)
		}
	}
	// A version of the tests without one of the places must not go unnoticed.
	if err := waitLonger(dir); err == nil {
		t.Error("no error where the places are missing")
	}
}
