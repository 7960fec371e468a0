// SPDX-License-Identifier: Apache-2.0

package labcmd

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/xcontainer/xcontainer/integration/lab"
)

func runProfile(ctx context.Context, e *env, args []string) (int, error) {
	seconds := e.flags.Int("seconds", 10, "how long to look, in `seconds`")
	top := e.flags.Int("top", 40, "`number` of lines")
	file := e.flags.String("symbols", "", "`file` with the kernel's functions: /proc/kallsyms of a privileged container")
	if _, err := e.parse(args, 0, 0); err != nil {
		return exitFailed, err
	}
	if *seconds < 1 || *top < 1 {
		return exitFailed, fmt.Errorf("lab: %w: --seconds and --top are 1 or more", errUsage)
	}
	l, err := lab.Attach(ctx, e.opt)
	if err != nil {
		return exitFailed, err
	}
	defer l.Close()
	symbols, err := symbolsOf(ctx, l, *file)
	if err != nil {
		return exitFailed, err
	}
	e.show.step("look where the CPUs are")
	samples, err := l.Samples(ctx, time.Duration(*seconds)*time.Second)
	if err != nil {
		return exitFailed, err
	}
	lines := lab.Profile(samples, symbols)
	fmt.Printf("%d samples\n", len(samples))
	for _, line := range lines[:min(*top, len(lines))] {
		fmt.Printf("%5.1f %%  %s\n", 100*float64(line.Samples)/float64(len(samples)), line.Name)
	}
	return 0, nil
}

// symbolsOf are Xen's, if there is one, and those of the file, if it has a name.
func symbolsOf(ctx context.Context, l *lab.Lab, file string) ([]lab.Symbol, error) {
	var all []lab.Symbol
	if l.State().Xen != "" {
		var err error
		if all, err = l.XenSymbols(ctx); err != nil {
			return nil, err
		}
	}
	if file == "" {
		return all, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	defer f.Close()
	more, err := lab.ReadSymbols(f, "")
	return lab.SortSymbols(append(all, more...)), err
}
