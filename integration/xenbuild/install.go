// SPDX-License-Identifier: Apache-2.0

package xenbuild

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/xcontainer/xcontainer/integration/internal/cache"
	"github.com/xcontainer/xcontainer/pkg/xen/xkernel"
)

// Options say what Install makes.
type Options struct {
	// Dir receives the files. It is made if it does not exist.
	Dir string
	// Cache is the cache's folder; see cache.Open.
	Cache string
	// Progress, if not nil, is called with what happens before it happens.
	Progress func(what string)
}

// Install makes the X-Kernels of all versions and puts them into o.Dir, each as
// xen-VERSION-xkernel.gz with its configuration and manifest beside it: .config,
// .json. Each file is replaced as a whole.
func Install(ctx context.Context, o Options) ([]Manifest, error) {
	c, err := cache.Open(o.Cache)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("xenbuild: install: %w", err)
	}
	var all []Manifest
	for _, v := range xkernel.Versions {
		dir, m, err := Build(ctx, c, v.Xen, o.Progress)
		if err != nil {
			return nil, err
		}
		to := filepath.Join(o.Dir, "xen-"+v.Xen+vendor)
		for from, ext := range map[string]string{GzipFile: ".gz", ConfigFile: ".config"} {
			if err := replace(to+ext, filepath.Join(dir, from)); err != nil {
				return nil, fmt.Errorf("xenbuild: install %s: %w", to+ext, err)
			}
		}
		if err := writeManifest(to+".json", m); err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

// replace makes the file to a copy of from, at once.
func replace(to, from string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return writeFile(to, b)
}

// writeFile gives the file at path the contents b, at once.
func writeFile(path string, b []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
