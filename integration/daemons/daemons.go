// SPDX-License-Identifier: Apache-2.0

package daemons

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/xcontainer/xcontainer/integration/internal/cache"
	"github.com/xcontainer/xcontainer/integration/internal/inputs"
	"github.com/xcontainer/xcontainer/integration/internal/tally"
	"github.com/xcontainer/xcontainer/integration/lab"
)

//go:embed dom0/story
var story string

// storyLimit is how long one daemon's story may take.
const storyLimit = 6 * time.Minute

// checks are what the story says something of with every daemon, in order.
var checks = storyChecks(story)

// storyChecks reads the names of the checks out of the script.
func storyChecks(script string) []string {
	var names []string
	for line := range strings.Lines(script) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "check" {
			names = append(names, f[1])
		}
	}
	return names
}

// Daemon is one containerd to try.
type Daemon struct {
	Name string // release line, like 1.7
	// version is the module's, or empty for Debian's package.
	version string
	// handshake is what it leaves in the bundle of a container: a file with the
	// shim's address, or one that tells the version of the task API.
	handshake string
	// snapshotters are those that make block images: blockfile since 1.7, erofs
	// since 2.1.
	snapshotters []string
}

// All are the daemons, oldest first. What they keep of the handshake changed with
// 2.0, the handshake itself with 2.3.
var All = []Daemon{
	{"1.6", "", "address", nil},
	{"1.7", "v1.7.35", "address", []string{"blockfile"}},
	{"2.0", "v2.0.14", "2", []string{"blockfile"}},
	{"2.2", "v2.2.9", "2", []string{"blockfile", "erofs"}},
	{"2.3", inputs.ContainerdVersion, "3", []string{"blockfile", "erofs"}},
	{"2.4", "v2.4.2", "3", []string{"blockfile", "erofs"}},
}

// Run tries the daemons in one lab and tells say what it finds, one line for
// each thing. logs is a directory for what the daemons and stories print.
func Run(ctx context.Context, o lab.Options, ds []Daemon, logs string, say func(format string, args ...any)) (tally.Tally, error) {
	var t tally.Tally
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return t, fmt.Errorf("make the folder of the logs: %w", err)
	}
	versions, err := build(ctx, &o, ds)
	if err != nil {
		return t, err
	}
	l, err := lab.Fresh(ctx, o)
	if err != nil {
		return t, err
	}
	// The lab's own daemon only takes memory.
	if _, err := l.Run(ctx, "lab-containerd stop", nil); err != nil {
		return t, errors.Join(err, l.Down())
	}
	for _, d := range ds {
		one, err := d.run(ctx, l, versions[d.Name], filepath.Join(logs, d.Name+".log"), say)
		t.Passed, t.Failed, t.Skipped = t.Passed+one.Passed, t.Failed+one.Failed, t.Skipped+one.Skipped
		if err != nil {
			return t, errors.Join(fmt.Errorf("containerd %s: %w", d.Name, err), l.Down())
		}
	}
	return t, l.Down()
}

// Build makes the daemons, so that Run finds them in the cache.
func Build(ctx context.Context, o lab.Options, ds []Daemon) error {
	_, err := build(ctx, &o, ds)
	return err
}

// build makes the daemons and adds them to o's shares; it returns their
// versions, by name.
func build(ctx context.Context, o *lab.Options, ds []Daemon) (map[string]string, error) {
	c, err := cache.Open(o.Cache)
	if err != nil {
		return nil, err
	}
	b := inputs.NewBuilder(c, o.Progress)
	images, err := b.Busybox(ctx)
	if err != nil {
		return nil, err
	}
	o.Shares = map[string]string{"daemon-images": images}
	versions := map[string]string{}
	for _, d := range ds {
		dir, version := "", strings.TrimPrefix(d.version, "v")
		if d.version == "" {
			dir, version, err = b.DebianDaemon(ctx)
		} else {
			dir, err = b.Daemon(ctx, d.version)
		}
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(version, d.Name+".") {
			return nil, fmt.Errorf("the daemon for containerd %s is %s", d.Name, version)
		}
		o.Shares["daemon-"+d.Name] = dir
		versions[d.Name] = version
	}
	return versions, nil
}

// run lets one daemon play the story.
func (d Daemon) run(ctx context.Context, l *lab.Lab, version, log string, say func(string, ...any)) (tally.Tally, error) {
	say("containerd %s (%s)", d.Name, version)
	ctx, cancel := context.WithTimeout(ctx, storyLimit)
	defer cancel()
	var out bytes.Buffer
	images := "/run/lab/daemon-images/" + inputs.BusyboxFile
	c := l.Command("exec sh -s " + lab.Quote(d.Name, version, d.handshake, images, strings.Join(d.snapshotters, " ")) + " 2>&1")
	c.Stdin, c.Stdout = strings.NewReader(story), &out
	err := c.Run(ctx)
	var exit *lab.ExitError
	if errors.As(err, &exit) {
		err = nil // the checks say what failed
	}
	if werr := os.WriteFile(log, out.Bytes(), 0o644); werr != nil {
		return tally.Tally{}, fmt.Errorf("write the log: %w", werr)
	}
	return judge(out.String(), slices.Concat(checks, d.snapshotters), say), err
}

// judge counts what the story said. A check of which it said nothing has failed.
func judge(out string, checks []string, say func(string, ...any)) tally.Tally {
	var t tally.Tally
	said := map[string]string{}
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "ok "); ok {
			said[name] = "ok"
		} else if rest, ok := strings.CutPrefix(line, "not ok "); ok {
			name, why, _ := strings.Cut(rest, ": ")
			said[name] = why
		}
	}
	for _, name := range checks {
		switch why, ok := said[name]; {
		case !ok:
			t.Failed++
			say("FAIL %s: the story did not come to it", name)
		case why != "ok":
			t.Failed++
			say("FAIL %s: %s", name, why)
		default:
			t.Passed++
			say("PASS %s", name)
		}
	}
	return t
}
