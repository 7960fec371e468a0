// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// EnvRoot names the environment variable that moves the cache.
const EnvRoot = "XCONTAINER_CACHE"

// lockPoll is how often a waiting process looks whether a lock is free. flock
// has no way to wait with a context, so waiting is polling.
const lockPoll = 100 * time.Millisecond

// Cache is a root directory with entries <root>/<kind>/<key>.
// Its methods may be called from several goroutines and processes.
type Cache struct {
	root string
}

// Key identifies the inputs of an entry. Make one with KeyOf.
type Key string

// KeyOf returns the key for a list of inputs: names, versions, hashes, option
// strings. The boundaries between parts count, so ("ab", "c") and ("a", "bc")
// differ.
func KeyOf(parts ...string) Key {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:", len(p))
		io.WriteString(h, p)
	}
	return Key(hex.EncodeToString(h.Sum(nil)[:16]))
}

// HashFile returns the hex SHA-256 of the contents of the file at path, to be
// used as a part of a key.
func HashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("cache: hash file: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("cache: hash %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Open returns the cache at root, creating the directory. With an empty root
// it is $XCONTAINER_CACHE, or else xcontainer in the user's cache directory.
func Open(root string) (*Cache, error) {
	if root == "" {
		root = os.Getenv(EnvRoot)
	}
	if root == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("cache: find the user's cache directory (set %s to choose one): %w", EnvRoot, err)
		}
		root = filepath.Join(base, "xcontainer")
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("cache: resolve root: %w", err)
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return nil, fmt.Errorf("cache: create root: %w", err)
	}
	return &Cache{root: root}, nil
}

// Root is the absolute path of the cache's directory.
func (c *Cache) Root() string { return c.root }

// Lookup returns the directory of an entry and whether it is complete.
func (c *Cache) Lookup(kind string, key Key) (dir string, ok bool) {
	dir = filepath.Join(c.root, kind, string(key))
	_, err := os.Lstat(dir)
	return dir, err == nil
}

// Dir returns the directory of the entry (kind, key). If it does not exist yet,
// build is called once with an empty directory to fill; the directory is moved
// to its final path after build returned nil, so nothing in it may hold its
// own absolute path. Another process that builds the same entry is waited for.
// The caller must not change the files of the result.
func (c *Cache) Dir(ctx context.Context, kind string, key Key, build func(ctx context.Context, dir string) error) (string, error) {
	if !goodName(kind) || !goodName(string(key)) {
		return "", fmt.Errorf("cache: entry %q/%q: %w", kind, key, fs.ErrInvalid)
	}
	final, ok := c.Lookup(kind, key)
	if ok {
		return final, nil
	}
	unlock, err := c.Lock(ctx, kind+"-"+string(key))
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, ok := c.Lookup(kind, key); ok {
		return final, nil
	}
	// The lock is ours, so what an earlier owner left is rubbish.
	tmp := filepath.Join(c.root, "tmp", kind+"-"+string(key))
	if err := os.RemoveAll(tmp); err != nil {
		return "", fmt.Errorf("cache: remove interrupted build of %s: %w", kind, err)
	}
	for _, d := range []string{tmp, filepath.Dir(final)} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return "", fmt.Errorf("cache: prepare %s: %w", kind, err)
		}
	}
	if err := build(ctx, tmp); err != nil {
		os.RemoveAll(tmp)
		return "", err
	}
	if err := os.Rename(tmp, final); err != nil {
		return "", fmt.Errorf("cache: put %s in place: %w", kind, err)
	}
	return final, nil
}

// Lock takes the exclusive lock called name, waiting until ctx ends. The lock
// ends with the returned function or with the process. Locks of one process
// exclude each other too.
func (c *Cache) Lock(ctx context.Context, name string) (unlock func(), err error) {
	if !goodName(name) {
		return nil, fmt.Errorf("cache: lock %q: %w", name, fs.ErrInvalid)
	}
	dir := filepath.Join(c.root, "locks")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("cache: lock %s: %w", name, err)
	}
	return LockFile(ctx, filepath.Join(dir, name))
}

// LockFile takes an exclusive lock on the file at path, which is created and
// stays; it waits until ctx ends.
func LockFile(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cache: open lock: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("cache: lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("cache: wait for lock %s: %w", path, context.Cause(ctx))
		case <-time.After(lockPoll):
		}
	}
}

// goodName reports whether s can be one component of a path.
func goodName(s string) bool {
	return s != "" && s != "." && s != ".." && !strings.ContainsAny(s, "/\x00")
}
