// SPDX-License-Identifier: Apache-2.0

package suites

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/xcontainer/xcontainer/integration/lab"
)

// perlFolders are the parts of Perl's core tests that are run. A unit is a file.
// Left out are those that only compute: regular expressions, Unicode, and so on.
var perlFolders = []string{"base", "cmd", "io", "lib", "op"}

// perlNeedsSource are tests that cannot begin without a tree in which Perl was built.
var perlNeedsSource = []string{
	"io/crlf_through.t", "lib/commonsense.t", "lib/croak.t", "lib/deprecate.t", "lib/mypragma.t", "lib/no_load.t",
	"lib/overload_fallback.t", "lib/overload_nomethod.t", "op/chdir.t", "op/coresubs.t", "op/goto_xs.t", "op/stat_errors.t",
	"op/threads-dirh.t",
}

// perl is Perl's core tests, run with Debian's perl.
func perl() *Suite {
	return &Suite{
		Name: "perl", About: "Perl's core tests, with Debian's perl",
		Build:   buildPerl,
		Command: perlCommand,
		// Its descriptions have names of files, addresses and keys of hashes in them.
		Parse: ParseNumbers,
		Limit: 10 * time.Minute,
		Short: []string{"base/num.t", "io/pipe.t", "op/alarm.t", "op/fork.t", "op/kill0.t", "op/sigdispatch.t", "op/sleep.t",
			"op/stat.t", "op/sysio.t"},
		MemoryMB: 768,
	}
}

func buildPerl(ctx context.Context, b Builder) (Material, error) {
	dir, err := b.Inputs.PerlTests(ctx)
	if err != nil {
		return Material{}, err
	}
	var units []string
	for _, f := range perlFolders {
		files, err := filepath.Glob(filepath.Join(dir, f, "*.t"))
		if err != nil || len(files) == 0 {
			return Material{}, fmt.Errorf("suites: Perl has no tests in %s: %v", f, err)
		}
		for _, path := range files {
			if u := f + "/" + filepath.Base(path); !slices.Contains(perlNeedsSource, u) {
				units = append(units, u)
			}
		}
	}
	image, archive, err := b.Inputs.SuiteImage(ctx, "perl", "perl")
	return Material{Image: image, Archive: archive, Folder: dir, Units: units}, err
}

// perlCommand runs a file as Perl's own harness does: in the folder above, with the
// options of its first line, of which -T is refused unless perl is called with it.
func perlCommand(unit string) string {
	return fmt.Sprintf(`mkdir -p %[1]s && cd %[1]s || exit
[ -d t ] || cp -a %[2]s t || exit
cd t || exit
[ -e perl ] || ln -s /usr/bin/perl perl
export PERL_CORE=1 LC_ALL=C HOME=/root PERL_HASH_SEED=0
case $(head -n 1 %[3]s) in
'#!'*perl*' '-*T*) exec perl -T %[3]s ;;
'#!'*perl*' '-*t*) exec perl -t %[3]s ;;
esac
exec perl %[3]s`, Work, Mount, lab.Quote(unit))
}
