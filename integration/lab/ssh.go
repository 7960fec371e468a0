// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// handshakeTimeout bounds one attempt to connect. Emulated machines are slow.
const handshakeTimeout = 20 * time.Second

// connect dials until it succeeds, up to five times: the server refuses more
// than a few connections that are logging in at once.
func connect(ctx context.Context, dir string, s *State) (*ssh.Client, error) {
	for n := 1; ; n++ {
		c, err := dial(ctx, dir, s)
		if err == nil || n == 5 || !s.alive() {
			return c, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(time.Duration(n) * 500 * time.Millisecond):
		}
	}
}

// dial connects to the dom0 of a state.
func dial(ctx context.Context, dir string, s *State) (*ssh.Client, error) {
	pemKey, err := os.ReadFile(filepath.Join(dir, keyFile))
	if err != nil {
		return nil, fmt.Errorf("lab: connect: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(pemKey)
	if err != nil {
		return nil, fmt.Errorf("lab: connect: user key: %w", err)
	}
	hostKey, _, _, _, err := ssh.ParseAuthorizedKey([]byte(s.HostKey))
	if err != nil {
		return nil, fmt.Errorf("lab: connect: host key: %w", err)
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port))
	d := net.Dialer{Timeout: handshakeTimeout}
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("lab: connect: %w", err)
	}
	nc.SetDeadline(time.Now().Add(handshakeTimeout))
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	defer stop()
	c, chans, reqs, err := ssh.NewClientConn(nc, addr, &ssh.ClientConfig{
		User:              "root",
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback:   ssh.FixedHostKey(hostKey),
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
	})
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("lab: connect to dom0: %w", err)
	}
	nc.SetDeadline(time.Time{})
	return ssh.NewClient(c, chans, reqs), nil
}

// Cmd is a command to run in dom0. Set the fields, then call Run, or Start and
// Wait. A Cmd is used once.
type Cmd struct {
	// Stdin, if not nil, is copied to the command; its end ends the command's
	// input. A reader that blocks does not delay Wait.
	Stdin io.Reader
	// Stdout and Stderr, if not nil, get the command's output. With a Terminal
	// all output goes to Stdout.
	Stdout, Stderr io.Writer
	// Terminal, if not nil, gives the command a terminal.
	Terminal *Terminal

	lab     *Lab
	line    string
	session *ssh.Session
	stop    func() bool
}

// Terminal describes a terminal to be made in dom0.
type Terminal struct {
	Type       string // as in $TERM
	Rows, Cols int
}

// ExitError means that a command ran and ended with a code other than 0.
type ExitError struct {
	Line string // the command line
	Code int    // 128 plus the signal's number after a signal
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("lab: %s: exit code %d", shorten(e.Line), e.Code)
}

// shorten cuts a command line to a length that fits a message.
func shorten(s string) string {
	const limit = 80
	if len(s) > limit {
		return s[:limit] + "..."
	}
	return s
}

// Command prepares a shell command line to run in dom0.
func (l *Lab) Command(line string) *Cmd { return &Cmd{lab: l, line: line} }

// Start starts the command. When ctx ends the command is killed.
func (c *Cmd) Start(ctx context.Context) error {
	s, err := c.lab.client.NewSession()
	if err != nil {
		return fmt.Errorf("lab: run %s: %w", shorten(c.line), err)
	}
	c.session = s
	s.Stdout, s.Stderr = c.Stdout, c.Stderr
	in, err := s.StdinPipe()
	if err == nil && c.Terminal != nil {
		err = s.RequestPty(c.Terminal.Type, c.Terminal.Rows, c.Terminal.Cols, ssh.TerminalModes{})
	}
	if err == nil && c.line == "" {
		err = s.Shell()
	} else if err == nil {
		err = s.Start(c.line)
	}
	if err != nil {
		s.Close()
		return fmt.Errorf("lab: run %s: %w", shorten(c.line), err)
	}
	go func() {
		// A write fails when the command ended without reading everything.
		if c.Stdin != nil {
			io.Copy(in, c.Stdin)
		}
		in.Close()
	}()
	c.stop = context.AfterFunc(ctx, func() {
		s.Signal(ssh.SIGKILL)
		s.Close()
	})
	return nil
}

// Resize tells the command's terminal its new size.
func (c *Cmd) Resize(rows, cols int) error {
	if err := c.session.WindowChange(rows, cols); err != nil {
		return fmt.Errorf("lab: resize terminal: %w", err)
	}
	return nil
}

// Signal sends a signal to the command, by its name without SIG.
func (c *Cmd) Signal(name string) error {
	if err := c.session.Signal(ssh.Signal(name)); err != nil {
		return fmt.Errorf("lab: signal %s: %w", name, err)
	}
	return nil
}

// Wait waits for the end of the command and of its output. A code other than 0
// is an *ExitError.
func (c *Cmd) Wait() error {
	err := c.session.Wait()
	cancelled := !c.stop()
	c.session.Close()
	var exit *ssh.ExitError
	switch {
	case err == nil:
		return nil
	case cancelled:
		return fmt.Errorf("lab: run %s: %w", shorten(c.line), context.Canceled)
	case errors.As(err, &exit):
		return &ExitError{Line: c.line, Code: exitCode(exit)}
	}
	return fmt.Errorf("lab: run %s: connection lost: %w", shorten(c.line), err)
}

// exitCode is what a shell would report.
func exitCode(e *ssh.ExitError) int {
	if e.Signal() == "" {
		return e.ExitStatus()
	}
	return 128 + signalNumbers[e.Signal()]
}

// signalNumbers has the signals that SSH can report (RFC 4254, 6.10).
var signalNumbers = map[string]int{
	"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "ABRT": 6, "FPE": 8, "KILL": 9,
	"USR1": 10, "SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15,
}

// Run starts the command and waits for it.
func (c *Cmd) Run(ctx context.Context) error {
	if err := c.Start(ctx); err != nil {
		return err
	}
	return c.Wait()
}

// Result is what a command left.
type Result struct {
	Stdout, Stderr []byte
	Code           int
}

// Run runs a shell command line in dom0 and collects its output. stdin may be
// nil. A command that ran is no error, whatever its code.
func (l *Lab) Run(ctx context.Context, line string, stdin io.Reader) (Result, error) {
	var out, errOut bytes.Buffer
	c := l.Command(line)
	c.Stdin, c.Stdout, c.Stderr = stdin, &out, &errOut
	err := c.Run(ctx)
	r := Result{Stdout: out.Bytes(), Stderr: errOut.Bytes()}
	var exit *ExitError
	if errors.As(err, &exit) {
		r.Code = exit.Code
		return r, nil
	}
	return r, err
}

// Quote renders arguments as a command line of the shell that yields exactly
// these arguments.
func Quote(args ...string) string {
	q := make([]string, len(args))
	for i, a := range args {
		q[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
	}
	return strings.Join(q, " ")
}
