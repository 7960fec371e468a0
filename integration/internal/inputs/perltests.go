// SPDX-License-Identifier: Apache-2.0

package inputs

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/xcontainer/xcontainer/integration/internal/apt"
	"github.com/xcontainer/xcontainer/integration/internal/cache"
)

// perlTestsVersion changes when the code below makes something else of the same
// sources.
const perlTestsVersion = "v1"

// perlSource is the source of the Perl that dom0Release has, without Debian's
// changes, which follow security updates and do not touch the tests.
var perlSource = apt.SourcePackage{Name: "perl", Version: "5.36.0", Files: []apt.SourceFile{{
	Path: "pool/main/p/perl/perl_5.36.0.orig.tar.xz", Size: 13051500,
	Hash: "SHA256:0f386dccbee8e26286404b2cca144e1005be65477979beb9b1ba272d4819bcf0",
}}}

// perlTestsFolder is the folder of tests in Perl's source.
const perlTestsFolder = "t"

// PerlTests unpacks the tests of Perl's core from the source of the Perl that the
// images have, and returns the directory, which is that source's folder "t".
// They are changed in one thing: they take Perl's modules from where Debian has
// them, and not from a source tree in which Perl was built.
func (b *Builder) PerlTests(ctx context.Context) (string, error) {
	a, err := b.apt(ctx, dom0Release)
	if err != nil {
		return "", err
	}
	source, err := a.Archives(ctx, perlSource)
	if err != nil {
		return "", err
	}
	archive := source.Files[0]
	key := cache.KeyOf(perlTestsVersion, filepath.Base(archive.Path), archive.Hash)
	return b.cache.Dir(ctx, "perl-tests", key, func(ctx context.Context, dir string) error {
		b.step("unpack Perl's tests")
		out, err := exec.CommandContext(ctx, "tar", "-xf", archive.Path, "-C", dir, "--strip-components=2", "--no-same-owner",
			"--wildcards", "--no-wildcards-match-slash", "perl-*/"+perlTestsFolder).CombinedOutput()
		if err != nil {
			return fmt.Errorf("inputs: unpack Perl's tests: %w: %s", err, lastLines(string(out), 5))
		}
		return useInstalledPerl(filepath.Join(dir, "test.pl"))
	})
}

// perlModules is where tests say that modules are to be found: in ../lib alone.
const perlModules = "sub set_up_inc {\n"

// useInstalledPerl changes test.pl, which the tests have in common.
func useInstalledPerl(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("inputs: Perl's tests: %w", err)
	}
	if n := strings.Count(string(text), perlModules); n != 1 {
		return fmt.Errorf("inputs: Perl's test.pl has %d places like %q, want 1", n, perlModules)
	}
	changed := strings.Replace(string(text), perlModules, perlModules+"    return;\n", 1)
	if err := os.WriteFile(path, []byte(changed), 0o644); err != nil {
		return fmt.Errorf("inputs: Perl's tests: %w", err)
	}
	return nil
}
