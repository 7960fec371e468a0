// SPDX-License-Identifier: Apache-2.0

// Fuzz runs every fuzz target of the project for a time each, one after the
// other, and ends with the line N passed, N failed, N skipped. What a target
// finds is in its package's testdata/fuzz, to be kept as a seed with the fix.
//
//	fuzz [-time 30s] [-run REGEXP] [DIR]
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strings"
	"time"

	"github.com/xcontainer/xcontainer/integration/internal/tally"
)

// grace is how long a target may take besides its time: to be built, to gather
// what is known, to end.
const grace = 5 * time.Minute

func main() {
	d := flag.Duration("time", 30*time.Second, "of each target")
	filter := flag.String("run", "", "only targets whose `name` matches")
	flag.Parse()
	dir := "."
	if flag.NArg() > 0 {
		dir = flag.Arg(0)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, dir, *filter, *d, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		os.Exit(1)
	}
}

// target is one fuzz function.
type target struct{ pkg, name string }

func run(ctx context.Context, dir, filter string, d time.Duration, out io.Writer) error {
	match, err := regexp.Compile(filter)
	if err != nil {
		return err
	}
	list, err := targets(ctx, dir)
	if err != nil {
		return err
	}
	var n tally.Tally
	for i, t := range list {
		if !match.MatchString(t.name) {
			n.Skipped++
			continue
		}
		begin := time.Now()
		text, err := t.fuzz(ctx, dir, d)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		word := "passed"
		if err != nil {
			word = "FAILED"
			n.Failed++
			fmt.Fprintf(out, "%s\n", text)
		} else {
			n.Passed++
		}
		fmt.Fprintf(out, "[%2d/%d] %s %s %s, %s, %.0f s\n", i+1, len(list), word, t.pkg, t.name, executions(text), time.Since(begin).Seconds())
	}
	fmt.Fprintln(out, n)
	if n.Failed > 0 || n.Passed == 0 {
		return errors.New("not every target passed")
	}
	return nil
}

// targets asks the go command for all fuzz functions.
func targets(ctx context.Context, dir string) ([]target, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-trimpath", "-list", "^Fuzz", "./...")
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	b, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list the targets: %w\n%s%s", err, b, stderr.String())
	}
	list := parse(bytes.NewReader(b))
	if len(list) == 0 {
		return nil, errors.New("no fuzz target found")
	}
	return list, nil
}

// parse reads names, each list of which a line "ok PACKAGE ..." closes.
func parse(r io.Reader) []target {
	var list []target
	var names []string
	for s := bufio.NewScanner(r); s.Scan(); {
		f := strings.Fields(s.Text())
		switch {
		case len(f) == 1 && strings.HasPrefix(f[0], "Fuzz"):
			names = append(names, f[0])
		case len(f) >= 2 && f[0] == "ok":
			for _, n := range names {
				list = append(list, target{f[1], n})
			}
			names = nil
		}
	}
	return list
}

// fuzz is try, again where what ended it was the end of its time.
func (t target) fuzz(ctx context.Context, dir string, d time.Duration) (string, error) {
	for n := 1; ; n++ {
		text, err := t.try(ctx, dir, d)
		if err == nil || n == tries || !t.onlyLate(text) {
			return text, err
		}
	}
}

// tries bounds how often a target is begun anew because of go.dev/issue/75804.
const tries = 3

// onlyLate says whether a failed run says nothing but that its time was over.
// Go before 1.27 takes its own deadline for a failure where it sees it between
// the context's end and its children's (go.dev/issue/75804). A target that
// finds something, hangs or panics always says so in other words.
func (t target) onlyLate(text string) bool {
	var rest []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "fuzz: elapsed: ") {
			rest = append(rest, line)
		}
	}
	return len(rest) == 5 && strings.HasPrefix(rest[0], "--- FAIL: "+t.name+" (") &&
		rest[1] == "context deadline exceeded" && rest[2] == "FAIL" &&
		rest[3] == "exit status 1" && strings.HasPrefix(rest[4], "FAIL\t"+t.pkg+"\t")
}

func (t target) try(ctx context.Context, dir string, d time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, d+grace)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "test", "-trimpath", "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", d.String(), t.pkg)
	cmd.Dir = dir
	b, err := cmd.CombinedOutput()
	return string(b), err
}

var execs = regexp.MustCompile(`execs: (\d+)`)

// executions is what the last progress line says.
func executions(text string) string {
	all := execs.FindAllStringSubmatch(text, -1)
	if len(all) == 0 {
		return "no executions counted"
	}
	return all[len(all)-1][1] + " executions"
}
