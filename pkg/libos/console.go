// SPDX-License-Identifier: Apache-2.0

package libos

import (
	"bytes"
	"io"
	"os"
	"strings"
	"sync"
)

const (
	consoleTail = 16 << 10 // bytes of the kernel log kept in memory for the reason of a death
	consoleMax  = 1 << 20  // bytes of the kernel log kept in the file; a guest may print for ever
	maxLine     = 200      // bytes of a line that is shown
)

// console keeps the guest's kernel log: all of it up to a bound in a file, the
// end of it in memory. The bytes are the guest's and may be anything.
type console struct {
	done chan struct{} // closed when the source has ended

	mu      sync.Mutex
	tail    []byte // guarded by mu
	file    *os.File
	written int64

	line    func(string) // nil: nobody wants lines
	partial []byte       // of a line that has not ended
}

// startConsole copies src to the file at path until src ends. line, if it is not
// nil, gets each line as far as the file gets it.
func startConsole(src io.ReadCloser, path string, line func(string)) (*console, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	c := &console{done: make(chan struct{}), file: f, line: line}
	go c.copy(src)
	return c, nil
}

func (c *console) copy(src io.ReadCloser) {
	defer close(c.done)
	defer c.file.Close()
	defer src.Close()
	buf := make([]byte, 4096)
	for {
		n, err := src.Read(buf)
		c.add(buf[:n])
		if err != nil {
			return
		}
	}
}

func (c *console) add(b []byte) {
	c.mu.Lock()
	c.tail = append(c.tail, b...)
	if over := len(c.tail) - consoleTail; over > 0 {
		c.tail = append(c.tail[:0], c.tail[over:]...)
	}
	c.mu.Unlock()
	if room := consoleMax - c.written; int64(len(b)) > room {
		b = b[:max(room, 0)]
	}
	// A full disk loses lines of this log, not the container.
	n, _ := c.file.Write(b)
	c.written += int64(n)
	if c.line != nil {
		c.tell(b)
	}
}

// tell gives away the lines that b ends. One that is too long comes in parts.
func (c *console) tell(b []byte) {
	for len(b) > 0 {
		part, rest, ended := bytes.Cut(b, []byte("\n"))
		if room := maxLine - len(c.partial); len(part) > room {
			part, rest, ended = b[:room], b[room:], true
		}
		c.partial, b = append(c.partial, part...), rest
		if !ended {
			return
		}
		if s := printable(c.partial); s != "" {
			c.line(s)
		}
		c.partial = c.partial[:0]
	}
}

// Last gives the most telling line at the end of the log: the panic if there
// is one, else the last line; printable and at most 200 bytes long.
func (c *console) Last() string {
	var last string
	for _, l := range c.lines() {
		last = l
		if strings.Contains(l, "Kernel panic") {
			break
		}
	}
	return last
}

// Tail gives the end of the log, printable, line by line.
func (c *console) Tail() string {
	var b strings.Builder
	for _, l := range c.lines() {
		b.WriteString(l)
		b.WriteByte('\n')
	}
	return b.String()
}

// lines gives the printable lines at the end of the log that are not empty.
func (c *console) lines() []string {
	c.mu.Lock()
	tail := bytes.Clone(c.tail)
	c.mu.Unlock()
	var lines []string
	for l := range bytes.SplitSeq(tail, []byte("\n")) {
		if s := printable(l); s != "" {
			lines = append(lines, s)
		}
	}
	return lines
}

func printable(b []byte) string {
	s := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, string(b))
	if len(s) > maxLine {
		s = s[:maxLine]
	}
	return strings.TrimSpace(s)
}
