// SPDX-License-Identifier: Apache-2.0

package inputs

import (
	"context"
	"slices"

	"github.com/xcontainer/xcontainer/integration/internal/apt"
	"github.com/xcontainer/xcontainer/integration/internal/cache"
)

// Paths below the directory that Musl returns.
const (
	MuslLibc    = "lib/x86_64-linux-musl/libc.so" // the dynamic linker, too
	MuslLib     = "usr/lib/x86_64-linux-musl"
	MuslInclude = "usr/include/x86_64-linux-musl"
)

// Musl unpacks the musl C library of Debian, with what is needed to link with it, and
// returns the directory.
func (b *Builder) Musl(ctx context.Context) (string, error) {
	a, err := b.apt(ctx, dom0Release)
	if err != nil {
		return "", err
	}
	debs, err := a.Download(ctx, "musl", "musl-dev")
	if err != nil {
		return "", err
	}
	key := cache.KeyOf(slices.Concat([]string{"v1"}, debKey(debs))...)
	return b.cache.Dir(ctx, "musl", key, func(ctx context.Context, dir string) error {
		for _, d := range debs {
			if err := apt.Extract(ctx, d, dir); err != nil {
				return err
			}
		}
		return nil
	})
}
