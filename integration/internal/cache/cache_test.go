// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

func TestKeyOfBoundaries(t *testing.T) {
	if KeyOf("ab", "c") == KeyOf("a", "bc") {
		t.Error("keys of differently cut parts are equal")
	}
	if KeyOf("a") != KeyOf("a") {
		t.Error("keys of equal parts differ")
	}
}

func TestDirBuildsOnce(t *testing.T) {
	c, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var builds atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			dir, err := c.Dir(context.Background(), "thing", KeyOf("x"), func(_ context.Context, dir string) error {
				builds.Add(1)
				return os.WriteFile(filepath.Join(dir, "f"), []byte("data"), 0o644)
			})
			if err != nil {
				t.Error(err)
				return
			}
			if b, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || string(b) != "data" {
				t.Errorf("entry holds %q, %v", b, err)
			}
		})
	}
	wg.Wait()
	if n := builds.Load(); n != 1 {
		t.Errorf("built %d times, want 1", n)
	}
}

func TestDirFailedAndInterruptedBuild(t *testing.T) {
	c, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	key := KeyOf("y")
	boom := errors.New("boom")
	_, err = c.Dir(context.Background(), "thing", key, func(context.Context, string) error { return boom })
	if !errors.Is(err, boom) {
		t.Fatalf("error = %v, want boom", err)
	}
	if _, ok := c.Lookup("thing", key); ok {
		t.Error("a failed build left an entry")
	}
	// What a killed process leaves must not show up in the next build.
	left := filepath.Join(c.Root(), "tmp", "thing-"+string(key), "half")
	if err := os.MkdirAll(left, 0o755); err != nil {
		t.Fatal(err)
	}
	_, err = c.Dir(context.Background(), "thing", key, func(_ context.Context, dir string) error {
		ents, err := os.ReadDir(dir)
		if len(ents) != 0 {
			t.Errorf("build directory holds %v", ents)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestBadNames(t *testing.T) {
	c, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", ".", "..", "a/b", "a\x00"} {
		if _, err := c.Dir(context.Background(), name, KeyOf(), nil); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("Dir(%q) = %v, want fs.ErrInvalid", name, err)
		}
	}
}

func TestLockWaitEndsWithContext(t *testing.T) {
	c, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := c.Lock(context.Background(), "l")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Lock(ctx, "l"); !errors.Is(err, context.Canceled) {
		t.Errorf("second lock: %v, want context.Canceled", err)
	}
	unlock()
	again, err := c.Lock(context.Background(), "l")
	if err != nil {
		t.Fatal(err)
	}
	again()
}
