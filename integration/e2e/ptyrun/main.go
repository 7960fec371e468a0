// SPDX-License-Identifier: Apache-2.0

// Ptyrun runs a command on a terminal of its own and holds a dialogue with it.
//
//	ptyrun COLSxROWS STEP... -- COMMAND...
//
// A step is one of
//
//	expect:TEXT     read until TEXT has come (after what the last expect took)
//	send:TEXT       type TEXT, in which \n is the return key and \xHH a byte
//	size:COLSxROWS  give the terminal a new size, which raises SIGWINCH
//	pause:TIME      wait, for example 2s
//
// The output that was read goes to standard output. The exit code is the
// command's; 97 if a step could not be done, with the reason on standard error.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds each step and the end of the command.
const patience = 90 * time.Second

func main() {
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "ptyrun:", err)
		code = 97
	}
	os.Exit(code)
}

func run(args []string) (int, error) {
	var steps []string
	for len(args) > 0 && args[0] != "--" {
		steps, args = append(steps, args[0]), args[1:]
	}
	if len(steps) == 0 || len(args) < 2 {
		return 0, errors.New("usage: ptyrun COLSxROWS STEP... -- COMMAND...")
	}
	master, slave, err := openPty(steps[0])
	if err != nil {
		return 0, err
	}
	defer master.Close()
	cmd := exec.Command(args[1], args[2:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err = cmd.Start()
	slave.Close()
	if err != nil {
		return 0, err
	}
	d := newDialogue(master)
	for _, step := range steps[1:] {
		if err = d.do(step); err != nil {
			err = fmt.Errorf("%s: %w, after %q", step, err, d.transcript.String())
			cmd.Process.Kill()
			break
		}
	}
	ended := make(chan struct{})
	go func() {
		select {
		case <-ended:
		case <-time.After(patience):
			cmd.Process.Kill()
		}
	}()
	cmd.Wait()
	close(ended)
	d.rest()
	os.Stdout.Write(d.transcript.Bytes())
	return cmd.ProcessState.ExitCode(), err
}

// openPty returns the two ends of a new terminal of the given size.
func openPty(size string) (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = setSize(master, size)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	}
	if err != nil {
		master.Close()
		return nil, nil, fmt.Errorf("open terminal: %w", err)
	}
	return master, slave, nil
}

func setSize(f *os.File, size string) error {
	cols, rows, ok := strings.Cut(size, "x")
	c, err1 := strconv.ParseUint(cols, 10, 16)
	r, err2 := strconv.ParseUint(rows, 10, 16)
	if !ok || err1 != nil || err2 != nil {
		return fmt.Errorf("size %q is not COLSxROWS", size)
	}
	return unix.IoctlSetWinsize(int(f.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(c), Row: uint16(r)})
}

// dialogue reads what a terminal prints and remembers how far it was looked at.
type dialogue struct {
	master     *os.File
	chunks     chan []byte // closed at the end of output
	transcript bytes.Buffer
	seen       int // bytes of transcript that expect has used up
}

func newDialogue(master *os.File) *dialogue {
	d := &dialogue{master: master, chunks: make(chan []byte, 1024)}
	go func() {
		defer close(d.chunks)
		for {
			b := make([]byte, 4096)
			n, err := master.Read(b)
			if n > 0 {
				d.chunks <- b[:n]
			}
			if err != nil {
				return
			}
		}
	}()
	return d
}

func (d *dialogue) do(step string) error {
	verb, arg, _ := strings.Cut(step, ":")
	switch verb {
	case "expect":
		return d.expect(arg)
	case "send":
		text, err := strconv.Unquote(`"` + strings.ReplaceAll(arg, `"`, `\"`) + `"`)
		if err != nil {
			return err
		}
		_, err = d.master.WriteString(text)
		return err
	case "size":
		return setSize(d.master, arg)
	case "pause":
		pause, err := time.ParseDuration(arg)
		time.Sleep(pause)
		return err
	}
	return errors.New("no such step")
}

func (d *dialogue) expect(text string) error {
	timeout := time.After(patience)
	for {
		if i := bytes.Index(d.transcript.Bytes()[d.seen:], []byte(text)); i >= 0 {
			d.seen += i + len(text)
			return nil
		}
		select {
		case b, ok := <-d.chunks:
			if !ok {
				return errors.New("output ended")
			}
			d.transcript.Write(b)
		case <-timeout:
			return fmt.Errorf("nothing for %v", patience)
		}
	}
}

// rest takes what is still to be read of a command that has ended.
func (d *dialogue) rest() {
	timeout := time.After(5 * time.Second)
	for {
		select {
		case b, ok := <-d.chunks:
			if !ok {
				return
			}
			d.transcript.Write(b)
		case <-timeout:
			return
		}
	}
}
