// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/xcontainer/xcontainer/pkg/shim/record"
)

// logPoll is how often a log that is followed is looked at.
const logPoll = 200 * time.Millisecond

// identifier is what containerd takes as a namespace or a container's id.
var identifier = regexp.MustCompile(`^[A-Za-z0-9]+(?:[._-]+[A-Za-z0-9]+)*$`)

// bundleOf is where the bundle of a container would be.
func (c *command) bundleOf(id string) (string, error) {
	for what, name := range map[string]string{"namespace": c.namespace, "container": id} {
		if !identifier.MatchString(name) {
			return "", fmt.Errorf("%q is no name of a %s", name, what)
		}
	}
	return filepath.Join(c.root, c.namespace, id), nil
}

func (c *command) errNoContainer(id string) error {
	return fmt.Errorf("no X-Container %s runs in namespace %s; xcontainerctl ps lists them, and what a crashed guest said last is in containerd's log", id, c.namespace)
}

// logs prints what a guest's kernel logged. The bytes are the guest's: what is no
// printable character does not get to the user's terminal.
func (c *command) logs(ctx context.Context) error {
	id := c.args[0]
	dir, err := c.bundleOf(id)
	if err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(dir, record.ConsoleName))
	if errors.Is(err, fs.ErrNotExist) {
		return c.errNoContainer(id)
	}
	if err != nil {
		return fmt.Errorf("logs of container %s: %w", id, err)
	}
	defer f.Close()
	p := printer{out: c.out, json: c.json}
	for last := false; ; {
		if err := p.copy(f); err != nil {
			return fmt.Errorf("logs of container %s: %w", id, err)
		}
		if !c.follow || last {
			return p.finish()
		}
		// Once more after the end: what was written between the two.
		last = ended(dir)
		select {
		case <-ctx.Done():
			return p.finish()
		case <-time.After(logPoll):
		}
	}
}

// ended tells whether the container in the bundle dir has ended: its shim forgets
// the record last of all.
func ended(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, record.Name))
	return errors.Is(err, fs.ErrNotExist)
}

// printer prints lines.
type printer struct {
	out    io.Writer
	json   bool
	offset int64
	part   string // a line without its end
}

// copy prints what is new in f. A file that was made anew, for a second boot,
// begins again.
func (p *printer) copy(f *os.File) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if fi.Size() < p.offset {
		p.offset = 0
	}
	r := bufio.NewReader(io.NewSectionReader(f, p.offset, fi.Size()-p.offset))
	for {
		text, err := r.ReadString('\n')
		p.offset += int64(len(text))
		p.part += text
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := p.line(); err != nil {
			return err
		}
	}
}

// finish prints a last line that has no end.
func (p *printer) finish() error {
	if p.part == "" {
		return nil
	}
	return p.line()
}

func (p *printer) line() error {
	text := strings.Map(printable, strings.TrimRight(p.part, "\r\n"))
	p.part = ""
	if !p.json {
		_, err := fmt.Fprintln(p.out, text)
		return err
	}
	return json.NewEncoder(p.out).Encode(map[string]string{"line": text})
}

func printable(r rune) rune {
	if r == '\t' || r >= ' ' && r <= '~' {
		return r
	}
	return '?'
}
