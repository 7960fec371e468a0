// SPDX-License-Identifier: Apache-2.0

package stdio

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// openFIFO opens a named pipe without waiting for the other end. The file's
// reads and writes wait in the Go poller.
func openFIFO(name string, flag int) (*os.File, error) {
	f, err := os.OpenFile(name, flag|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && fi.Mode()&os.ModeNamedPipe == 0 {
		err = refuse("%s is not a named pipe", name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// reader is the reading end of a pipe, with a writing end held so that a
// writer's leaving is no end of file.
type reader struct {
	*os.File
	hold *os.File
}

func openReader(name string) (*reader, error) {
	f, err := openFIFO(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	hold, err := openFIFO(name, os.O_WRONLY)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &reader{f, hold}, nil
}

func (r *reader) Close() error {
	return errors.Join(r.hold.Close(), r.File.Close())
}

// pipeSink is the writing end of a pipe.
type pipeSink struct{ *os.File }

// fifoSink is the writing end of a named pipe. Only the writing end is held: so
// Linux itself says when the last reader has gone (EPIPE), and the pipe keeps its
// contents for the next one.
type fifoSink struct {
	pipeSink
	report func(error)
	alone  bool // nobody reads, as of the last Write
	lost   bool // as reported
}

func openWriter(name string, report func(error)) (*fifoSink, error) {
	// Without a reader O_WRONLY fails (ENXIO); a client may still be about to
	// open its end, or waits in open(2) for ours.
	rw, err := openFIFO(name, os.O_RDWR)
	if err != nil {
		return nil, err
	}
	defer rw.Close()
	f, err := openFIFO(name, os.O_WRONLY)
	if err != nil {
		return nil, err
	}
	return &fifoSink{pipeSink: pipeSink{f}, report: report}, nil
}

// Write waits for a slow reader. When there is none it keeps the newest bytes
// that the pipe can hold, and succeeds.
func (w *fifoSink) Write(p []byte) (int, error) {
	n, err := w.File.Write(p)
	if !errors.Is(err, unix.EPIPE) {
		w.alone = false
		return n, err
	}
	err = w.keep(p[n:])
	return len(p), err
}

// How often emptied looks, and how long a reader may take nothing.
const (
	emptiedFirst = time.Millisecond
	emptiedMax   = 20 * time.Millisecond
	emptiedStall = time.Second
)

// emptied waits until the reader has taken all that is in the pipe. It does not
// wait when there is no reader, for a reader that reads nothing for a second
// (some read only after the end), longer than ctx, or for a pipe that has been
// closed. Linux tells nobody when a pipe runs empty, so it looks.
func (w *pipeSink) emptied(ctx context.Context) {
	conn, err := w.File.SyscallConn()
	if err != nil {
		return
	}
	left, since := 0, time.Now()
	for wait := emptiedFirst; ; wait = min(2*wait, emptiedMax) {
		waiting := false
		err := conn.Control(func(fd uintptr) {
			n, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
			if err != nil || n == 0 {
				return
			}
			if n != left {
				left, since = n, time.Now()
			} else if time.Since(since) > emptiedStall {
				return
			}
			p := []unix.PollFd{{Fd: int32(fd)}}
			// No readers is an error of the pipe, reported unasked.
			_, err = unix.Poll(p, 0)
			waiting = err == nil && p[0].Revents&unix.POLLERR == 0 || errors.Is(err, unix.EINTR)
		})
		if err != nil || !waiting {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// detachedBytes is how much output a named pipe holds for a reader that comes
// back. Linux takes the memory as it is needed.
const detachedBytes = 1 << 20

// keep puts p into a pipe without a reader, at the cost of the oldest bytes when
// it is full. A reader that comes meanwhile may miss those too: it is as if it
// came later.
func (w *fifoSink) keep(p []byte) error {
	conn, err := w.File.SyscallConn()
	if err != nil {
		return err
	}
	var lost int
	var ioErr error
	err = conn.Control(func(fd uintptr) {
		if !w.alone {
			w.alone = true
			// Without the right to more it holds what it holds.
			_, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, detachedBytes)
		}
		lost, ioErr = keep(int(fd), p)
	})
	if lost > 0 && !w.lost {
		w.lost = true
		w.report(fmt.Errorf("nobody reads %s, and it is full; the oldest output is dropped", w.Name()))
	}
	return errors.Join(err, ioErr)
}

// keep returns how many bytes were dropped for p.
func keep(w int, p []byte) (lost int, err error) {
	// By descriptor, so that it is this pipe whatever its name is by now.
	name := fmt.Sprintf("/proc/self/fd/%d", w)
	r, err := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open pipe for reading: %w", err)
	}
	defer unix.Close(r)
	drop := make([]byte, 4096)
	for len(p) > 0 {
		n, err := unix.Write(w, p)
		switch {
		case err == nil:
			p = p[n:]
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			n, err := unix.Read(r, drop)
			if err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
				return lost, fmt.Errorf("drop from pipe: %w", err)
			}
			lost += max(n, 0)
		default:
			return lost, fmt.Errorf("write to pipe: %w", err)
		}
	}
	return lost, nil
}
