// SPDX-License-Identifier: Apache-2.0

package inputs

import (
	"context"
	"path/filepath"
	"slices"
	"sync"

	"github.com/xcontainer/xcontainer/integration/internal/apt"
	"github.com/xcontainer/xcontainer/integration/internal/cache"
)

// dom0Release is the Debian release of the dom0's kernel and programs. Fixed,
// so that the lab is the same machine wherever it runs.
const dom0Release = "bookworm"

// Builder makes inputs. The zero value is not usable; see NewBuilder.
type Builder struct {
	cache *cache.Cache
	step  func(what string)

	mu   sync.Mutex
	apts map[string]*apt.Apt // by release
}

// NewBuilder returns a builder that keeps its products in c and calls step
// before each thing that takes time. step may be nil.
func NewBuilder(c *cache.Cache, step func(what string)) *Builder {
	if step == nil {
		step = func(string) {}
	}
	return &Builder{cache: c, step: step, apts: map[string]*apt.Apt{}}
}

// Update renews the package lists of all releases that anything is made from: those of
// the lab and its images, which are those of the X-Kernels, too, and the machine's own,
// which the guest's kernel is of.
func (b *Builder) Update(ctx context.Context) error {
	renewed := map[string]bool{}
	for _, release := range slices.Concat([]string{dom0Release, ""}, serverReleases) {
		a, err := b.apt(ctx, release)
		if err != nil {
			return err
		}
		if renewed[a.Release()] {
			continue
		}
		renewed[a.Release()] = true
		if err := a.Update(ctx); err != nil {
			return err
		}
	}
	return nil
}

// apt opens the private apt configuration of a release once.
func (b *Builder) apt(ctx context.Context, release string) (*apt.Apt, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a, ok := b.apts[release]; ok {
		return a, nil
	}
	a, err := apt.Open(ctx, b.cache, release)
	if err != nil {
		return nil, err
	}
	a.OnFetch(b.step)
	b.apts[release] = a
	return a, nil
}

// debKey identifies package files in a key.
func debKey(debs []apt.Deb) []string {
	out := make([]string, len(debs))
	for i, d := range debs {
		out[i] = filepath.Base(d.Path)
	}
	return out
}
