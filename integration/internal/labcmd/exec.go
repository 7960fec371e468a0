// SPDX-License-Identifier: Apache-2.0

package labcmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"github.com/xcontainer/xcontainer/integration/lab"
)

func runExec(_ context.Context, e *env, args []string) (int, error) {
	tty := e.flags.Bool("t", false, "give the command a terminal")
	rest, err := e.parse(args, 1, -1)
	if err != nil {
		return exitLab, err
	}
	return remote(e, lab.Quote(rest...), *tty)
}

func runShell(_ context.Context, e *env, args []string) (int, error) {
	if _, err := e.parse(args, 0, 0); err != nil {
		return exitLab, err
	}
	return remote(e, "", true)
}

// remote runs a command line with this process's standard streams, and passes
// its signals on. The context of signals is not used: what a signal does is the
// command's business.
func remote(e *env, line string, tty bool) (int, error) {
	ctx := context.Background()
	l, err := lab.Attach(ctx, e.opt)
	if err != nil {
		return exitLab, err
	}
	defer l.Close()
	c := l.Command(line)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	if tty {
		restore, err := rawTerminal(c)
		if err != nil {
			return exitLab, err
		}
		defer restore()
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGWINCH)
	defer signal.Stop(signals)
	if err := c.Start(ctx); err != nil {
		return exitLab, err
	}
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	for {
		select {
		case s := <-signals:
			forward(c, s, tty)
		case err := <-done:
			var exit *lab.ExitError
			if errors.As(err, &exit) {
				return exit.Code, nil
			}
			if err != nil {
				return exitLab, err
			}
			return 0, nil
		}
	}
}

// rawTerminal asks for a terminal of the size of ours, and makes ours raw.
func rawTerminal(c *lab.Cmd) (restore func(), err error) {
	c.Terminal = &lab.Terminal{Type: os.Getenv("TERM"), Rows: 24, Cols: 80}
	if c.Terminal.Type == "" {
		c.Terminal.Type = "dumb"
	}
	if cols, rows, err := term.GetSize(int(os.Stdout.Fd())); err == nil {
		c.Terminal.Rows, c.Terminal.Cols = rows, cols
	}
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		return func() {}, nil
	}
	old, err := term.MakeRaw(fd)
	if err != nil {
		return nil, fmt.Errorf("lab: prepare the terminal: %w", err)
	}
	return func() { term.Restore(fd, old) }, nil
}

// signalNames are the names that SSH has for signals.
var signalNames = map[os.Signal]string{
	syscall.SIGINT: "INT", syscall.SIGTERM: "TERM", syscall.SIGHUP: "HUP", syscall.SIGQUIT: "QUIT",
}

// forward passes a signal or a new window size on. A connection that is gone
// shows in Wait.
func forward(c *lab.Cmd, s os.Signal, tty bool) {
	if s != syscall.SIGWINCH {
		c.Signal(signalNames[s])
		return
	}
	if cols, rows, err := term.GetSize(int(os.Stdout.Fd())); tty && err == nil {
		c.Resize(rows, cols)
	}
}
