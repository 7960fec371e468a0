// SPDX-License-Identifier: Apache-2.0

package stdio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

// Bounds of what is waited for.
const (
	readyTimeout = 30 * time.Second // a logger that starts
	endTimeout   = 10 * time.Second // its end after the end of its input
	termTimeout  = 2 * time.Second  // its end after SIGTERM
	wordsTimeout = time.Second      // the end of its stderr, which a child of it may hold
)

// maxWords bounds what is kept of a logger's last words, in bytes.
const maxWords = 512

// logger is a program that takes a process's output: containerd's binary: and
// binary-v2:. It has the output on descriptors 3 (stdout) and 4 (stderr), and
// says on 5 that it is ready. It leads a process group, so that a script's
// children end with it.
type logger struct {
	name    string // for errors
	out     *pipeSink
	err     *pipeSink // nil for a terminal
	pid     int
	report  func(error)
	ended   chan struct{} // closed when the process is reaped and its stderr read
	endOnce sync.Once
	// How long the end may take after the end of its input, and after SIGTERM.
	endWait, termWait time.Duration

	mu     sync.Mutex
	reaped bool             // guarded by mu: pid may be another process by now
	closed bool             // guarded by mu: the shim has ended its input
	words  []byte           // guarded by mu; the end of its stderr
	state  *os.ProcessState // valid after ended
}

// loggerFiles are the files of a logger that starts: ours and its.
type loggerFiles struct {
	null                       *os.File
	outW, errW, readyR, wordsR *os.File // ours
	outR, errR, readyW, wordsW *os.File // the logger's
}

func (f *loggerFiles) closeTheirs() { closeAll(f.null, f.outR, f.errR, f.readyW, f.wordsW) }

func (f *loggerFiles) closeAll() {
	f.closeTheirs()
	closeAll(f.outW, f.errW, f.readyR, f.wordsR)
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

func openLoggerFiles() (f *loggerFiles, err error) {
	f = &loggerFiles{}
	defer func() {
		if err != nil {
			f.closeAll()
		}
	}()
	if f.null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		return nil, err
	}
	for _, p := range []struct {
		r, w    **os.File
		rIsOurs bool
	}{
		{&f.outR, &f.outW, false}, {&f.errR, &f.errW, false},
		{&f.readyR, &f.readyW, true}, {&f.wordsR, &f.wordsW, true},
	} {
		if *p.r, *p.w, err = halfPipe(p.rIsOurs); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// halfPipe makes a pipe of which one end, ours, waits in the Go poller, and the
// other blocks as every program expects of its files.
func halfPipe(readerIsOurs bool) (r, w *os.File, err error) {
	var fd [2]int
	if err := unix.Pipe2(fd[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("make pipe: %w", err)
	}
	ours := fd[1]
	if readerIsOurs {
		ours = fd[0]
	}
	if err := unix.SetNonblock(ours, true); err != nil {
		unix.Close(fd[0])
		unix.Close(fd[1])
		return nil, nil, fmt.Errorf("make pipe: %w", err)
	}
	return os.NewFile(uintptr(fd[0]), "pipe"), os.NewFile(uintptr(fd[1]), "pipe"), nil
}

// startLogger starts the program that t names and waits until it is ready. After
// an error no process is left.
func startLogger(ctx context.Context, t target, c Config) (*logger, error) {
	f, err := openLoggerFiles()
	if err != nil {
		return nil, fmt.Errorf("start logger %s: %w", t.path, err)
	}
	proc, err := os.StartProcess(t.path, append([]string{t.path}, t.args...), &os.ProcAttr{
		Env:   []string{"CONTAINER_ID=" + c.ID, "CONTAINER_NAMESPACE=" + c.Namespace},
		Files: []*os.File{f.null, f.null, f.wordsW, f.outR, f.errR, f.readyW},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		f.closeAll()
		if pe := (*os.PathError)(nil); errors.As(err, &pe) {
			err = pe.Err
		}
		return nil, fmt.Errorf("start logger %s: %w", t.path, err)
	}
	f.closeTheirs()
	defer f.readyR.Close()
	l := &logger{
		name: t.path, pid: proc.Pid, report: c.report,
		out: &pipeSink{f.outW}, err: &pipeSink{f.errW},
		ended:   make(chan struct{}),
		endWait: endTimeout, termWait: termTimeout,
	}
	if c.Terminal {
		l.err.Close()
		l.err = nil
	}
	go l.reap(proc, f.wordsR)
	if err := l.waitReady(ctx, f.readyR, t.strict); err != nil {
		l.signal(unix.SIGKILL)
		l.closeInput()
		<-l.ended
		if words := l.lastWords(); words != "" {
			err = fmt.Errorf("%w: %s", err, words)
		}
		return nil, fmt.Errorf("start logger %s: %w", t.path, err)
	}
	return l, nil
}

// waitReady waits for the logger's byte. The end of the pipe without one is as
// good, as it was before binary-v2.
func (l *logger) waitReady(ctx context.Context, ready *os.File, strict bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout,
		fmt.Errorf("it has not said within %v that it is ready, by a byte on descriptor 5 or by closing it", readyTimeout))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { ready.SetReadDeadline(time.Now()) })
	defer stop()
	n, err := ready.Read(make([]byte, 1))
	switch {
	case n > 0:
		return nil
	case !errors.Is(err, io.EOF):
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return err
	case !strict:
		return nil
	}
	// The end of the process explains it best.
	select {
	case <-l.ended:
		return fmt.Errorf("it ended (%s) before it was ready", l.state)
	case <-time.After(2 * wordsTimeout):
		return errors.New("it closed descriptor 5 without the byte that says that it is ready")
	}
}

// reap waits for the process's end, whenever it comes.
func (l *logger) reap(proc *os.Process, stderr *os.File) {
	defer close(l.ended)
	read := make(chan struct{})
	go func() {
		defer close(read)
		l.listen(stderr)
	}()
	// Until it is reaped its number is its own, and may be signalled.
	for {
		err := unix.Waitid(unix.P_PID, l.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	l.mu.Lock()
	l.reaped = true
	closed := l.closed
	l.mu.Unlock()
	var err error
	if l.state, err = proc.Wait(); err != nil {
		l.report(fmt.Errorf("logger %s: wait for its end: %w", l.name, err))
		stderr.Close()
		<-read
		return
	}
	stderr.SetReadDeadline(time.Now().Add(wordsTimeout))
	<-read
	stderr.Close()
	if l.state.Success() || closed && l.state.ExitCode() < 0 {
		return
	}
	text := fmt.Sprintf("logger %s ended: %s", l.name, l.state)
	if words := l.lastWords(); words != "" {
		text += ": " + words
	}
	l.report(errors.New(text))
}

// listen keeps the last of what the logger writes to its stderr.
func (l *logger) listen(stderr *os.File) {
	buf := make([]byte, maxWords)
	for {
		n, err := stderr.Read(buf)
		l.mu.Lock()
		l.words = append(l.words, buf[:n]...)
		if over := len(l.words) - maxWords; over > 0 {
			l.words = append(l.words[:0], l.words[over:]...)
		}
		l.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// lastWords are the end of the logger's stderr, on one printable line.
func (l *logger) lastWords() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := strings.ReplaceAll(strings.TrimSpace(string(l.words)), "\n", "; ")
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}

// signal sends a signal to the logger's process group, while it is there.
func (l *logger) signal(sig syscall.Signal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.reaped {
		_ = unix.Kill(-l.pid, sig)
	}
}

// closeInput is the end of the logger's input.
func (l *logger) closeInput() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.out.Close()
	if l.err != nil {
		l.err.Close()
	}
}

// end closes the logger's input and has it end, by itself or not. It does not
// wait, and may be called twice; ended tells when it is over.
func (l *logger) end() {
	l.closeInput()
	l.endOnce.Do(func() { go l.makeEnd() })
}

func (l *logger) makeEnd() {
	for _, step := range []struct {
		wait time.Duration
		sig  syscall.Signal
	}{{l.endWait, unix.SIGTERM}, {l.termWait, unix.SIGKILL}} {
		timeout := time.NewTimer(step.wait)
		select {
		case <-l.ended:
			timeout.Stop()
			return
		case <-timeout.C:
			if step.sig == unix.SIGKILL {
				l.report(fmt.Errorf("logger %s does not end after its input did; it is killed", l.name))
			}
			l.signal(step.sig)
		}
	}
}
