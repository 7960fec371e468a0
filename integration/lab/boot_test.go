// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// fakeQEMU puts a shell script in QEMU's place; it runs in the state directory.
func fakeQEMU(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, qemuProgram), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func TestBootRetries(t *testing.T) {
	const crash = "(XEN) Domain 0 crashed: rebooting machine in 5 seconds."
	for name, script := range map[string]string{
		"crash": "echo $$ >>pids; echo '" + crash + "' >console.log; exec sleep 1000",
		"exit":  "echo $$ >>pids; echo no such machine; exit 1",
	} {
		t.Run(name, func(t *testing.T) {
			fakeQEMU(t, script)
			dir := t.TempDir()
			var steps []string
			o := Options{Xen: "4.17", Progress: func(s string) { steps = append(steps, s) }}
			_, err := bootRetrying(context.Background(), o, dir, machine{xen: true}, nil)
			if !errors.Is(err, errNoBoot) {
				t.Fatalf("got %v", err)
			}
			want := map[string]string{"crash": crash, "exit": "no such machine"}[name]
			if !strings.Contains(err.Error(), want) {
				t.Errorf("no %q in %v", want, err)
			}
			if len(steps) != bootTries || !strings.Contains(steps[1], "again, 2 of 3") {
				t.Errorf("steps %q", steps)
			}
			pids, err := os.ReadFile(filepath.Join(dir, "pids"))
			if err != nil {
				t.Fatal(err)
			}
			if n := len(strings.Fields(string(pids))); n != bootTries {
				t.Errorf("started %d times", n)
			}
			for pid := range strings.FieldsSeq(string(pids)) {
				if _, err := procStart(pidOf(t, pid)); err == nil {
					t.Errorf("process %s is left", pid)
				}
			}
			if _, err := readState(dir); !errors.Is(err, ErrNotRunning) {
				t.Errorf("state after failure: %v", err)
			}
		})
	}
}

func TestBootCancelled(t *testing.T) {
	fakeQEMU(t, "echo $$ >>pids; exec sleep 1000")
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	o := Options{Progress: func(string) { cancel() }}
	_, err := bootRetrying(ctx, o, dir, machine{}, nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := readState(dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("the machine is left: %v", err)
	}
}

func pidOf(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
