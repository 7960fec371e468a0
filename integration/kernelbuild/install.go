// SPDX-License-Identifier: Apache-2.0

package kernelbuild

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/xcontainer/xcontainer/integration/internal/cache"
	"github.com/xcontainer/xcontainer/pkg/libos/kernel"
)

// Options say what Install and InstallDebug make.
type Options struct {
	// Checkout is the top of the project tree that the agent is built from.
	Checkout string
	// Dir receives the files. It is made if it does not exist.
	Dir string
	// Cache is the cache's folder; see cache.Open.
	Cache string
	// Compress makes the initramfs smaller and the boot longer.
	Compress bool
	// Progress, if not nil, is called with what happens before it happens.
	Progress func(what string)
}

// Install makes the kernels that guests run on and the initramfs and puts them
// into o.Dir, with the kernels' configurations and a manifest. Each file is
// replaced as a whole, and only if it has changed.
func Install(ctx context.Context, o Options) (Manifest, error) {
	m, err := o.kernels(ctx, Standard)
	if err != nil {
		return m, err
	}
	if o.Progress != nil {
		o.Progress("build the agent")
	}
	agent, err := Agent(ctx, o.Checkout)
	if err != nil {
		return m, err
	}
	initramfs, err := Initramfs(agent, o.Compress)
	if err != nil {
		return m, err
	}
	if m.Initramfs, err = describeAgent(ctx, o.Checkout, agent, initramfs); err != nil {
		return m, err
	}
	if err := replace(filepath.Join(o.Dir, InitramfsFile), initramfs); err != nil {
		return m, fmt.Errorf("kernelbuild: install %s: %w", InitramfsFile, err)
	}
	return m, o.manifest(ManifestFile, m)
}

// InstallDebug makes the kernel for tests and puts it into o.Dir, with its
// configuration and a manifest of its own. Checkout and Compress are not used.
func InstallDebug(ctx context.Context, o Options) (Manifest, error) {
	m, err := o.kernels(ctx, Debug)
	if err != nil {
		return m, err
	}
	return m, o.manifest(ManifestDebugFile, m)
}

// kernels builds the flavours and puts their files into o.Dir.
func (o Options) kernels(ctx context.Context, flavours []kernel.Flavour) (Manifest, error) {
	c, err := cache.Open(o.Cache)
	if err != nil {
		return Manifest{}, err
	}
	dir, m, err := Build(ctx, c, flavours, o.Progress)
	if err != nil {
		return m, err
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return m, fmt.Errorf("kernelbuild: install: %w", err)
	}
	for _, f := range flavours {
		for _, name := range []string{f.Vmlinux, f.FullConfig} {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err == nil {
				err = replace(filepath.Join(o.Dir, name), b)
			}
			if err != nil {
				return m, fmt.Errorf("kernelbuild: install %s: %w", name, err)
			}
		}
	}
	return m, nil
}

// manifest puts m into o.Dir.
func (o Options) manifest(name string, m Manifest) error {
	tmp := filepath.Join(o.Dir, name+".new")
	if err := writeManifest(tmp, m); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(o.Dir, name)); err != nil {
		return fmt.Errorf("kernelbuild: install manifest: %w", err)
	}
	return nil
}

// replace gives the file at path the contents b, at once.
func replace(path string, b []byte) error {
	if old, err := os.ReadFile(path); err == nil && string(old) == string(b) {
		return nil
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
