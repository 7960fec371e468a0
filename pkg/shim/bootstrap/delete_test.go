// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/xcontainer/xcontainer/pkg/shim/hostcgroup"
	"github.com/xcontainer/xcontainer/pkg/shim/record"
)

// TestDeleteRunsPoststop has two hooks, of which the first fails.
func TestDeleteRunsPoststop(t *testing.T) {
	dir := t.TempDir()
	script := func(name, text string) specs.Hook {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
			t.Fatal(err)
		}
		return specs.Hook{Path: file, Env: []string{"PATH=/usr/bin:/bin"}}
	}
	spec := specs.Spec{
		Annotations: map[string]string{"a": "b"},
		Hooks: &specs.Hooks{Poststop: []specs.Hook{
			script("first", "echo out of order >&2; exit 1"),
			script("second", "cat >>states; echo >>states"),
		}},
	}
	data, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	r := record.Record{ID: "c", UUID: record.UUID{1}, Hooks: true}
	if err := r.Write(dir); err != nil {
		t.Fatal(err)
	}
	fail := errors.New("Xen is not there")
	// However long this takes, the hooks have their time.
	ctx, cancel := context.WithTimeout(t.Context(), hooksTime+time.Minute)
	defer cancel()
	destroy := func(steps context.Context, _ [16]byte) error {
		all, _ := ctx.Deadline()
		if d, ok := steps.Deadline(); !ok || all.Sub(d) != hooksTime {
			t.Errorf("all has to end %v, this %v", all, d)
		}
		return fail
	}
	var out, stderr bytes.Buffer
	f := Flags{ID: "c", Namespace: "ns", Bundle: dir}
	if err := Delete(ctx, f, destroy, &out, &stderr); !errors.Is(err, fail) {
		t.Fatal(err)
	}
	none := func(context.Context, [16]byte) error { return nil }
	if err := Delete(t.Context(), f, none, &out, &stderr); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("container c: the poststop hook %s/first failed (exit status 1): out of order\n", dir)
	if stderr.String() != want {
		t.Errorf("stderr %q, want %q", stderr.String(), want)
	}
	states, err := os.ReadFile(filepath.Join(dir, "states"))
	if err != nil {
		t.Fatal(err)
	}
	var got specs.State
	lines := strings.Split(strings.TrimSpace(string(states)), "\n")
	if err := json.Unmarshal([]byte(lines[0]), &got); err != nil || len(lines) != 1 {
		t.Fatalf("%q, %v", lines, err)
	}
	if got.ID != "c" || got.Status != specs.StateStopped || got.Pid != 0 || got.Bundle != dir || got.Annotations["a"] != "b" || got.Version == "" {
		t.Errorf("state %+v", got)
	}
}

// TestDeleteRemovesTheCgroup makes a real one, where that can be.
func TestDeleteRemovesTheCgroup(t *testing.T) {
	g, err := hostcgroup.At(fmt.Sprintf("/xcontainer-delete-test-%d", os.Getpid()))
	if err == nil {
		err = g.Make()
	}
	if errors.Is(err, hostcgroup.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer g.Delete()
	folders, err := g.Folders()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	r := record.Record{ID: "c", UUID: record.UUID{1}, Cgroups: folders}
	if err := r.Write(dir); err != nil {
		t.Fatal(err)
	}
	var out, stderr bytes.Buffer
	none := func(context.Context, [16]byte) error { return nil }
	if err := Delete(t.Context(), Flags{ID: "c", Namespace: "ns", Bundle: dir}, none, &out, &stderr); err != nil || stderr.Len() != 0 {
		t.Fatal(err, stderr.String())
	}
	for _, f := range folders {
		if _, err := os.Stat(f); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", f, err)
		}
	}
}
