// SPDX-License-Identifier: Apache-2.0

package stdio

import (
	"context"
	"fmt"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// Config says where a process's streams go and come from. An empty name means
// nowhere; a path is a named pipe; file:///path appends to a file; binary:///path?k=v
// and binary-v2: run a logger for stdout and stderr with the arguments k and v.
type Config struct {
	Stdin, Stdout, Stderr string
	// Terminal says that stdin and stdout are one terminal; Stderr is not used.
	Terminal bool
	// ID and Namespace are what a logger is told of whom it serves. As with
	// runc, ID is that of the exec if it is one.
	ID, Namespace string
	// Report is told once of each thing that the log should know, such as output
	// that is lost. It may be nil.
	Report func(error)
}

func (c Config) report(err error) {
	if c.Report != nil {
		c.Report(err)
	}
}

// Stream is one stream into the domain.
type Stream interface {
	net.Conn
	CloseWrite() error
}

// Dial opens a new stream and says by which number the agent knows it.
type Dial func(ctx context.Context) (number uint64, stream Stream, err error)

// IO is the stdio of one process.
type IO struct {
	in       *input
	out, err *output
	logger   *logger // nil without one
	numbers  [3]uint64
	close    sync.Once
}

// Open opens what c names and a stream for each. It never waits for the other
// end of a pipe; it waits, bounded, until a logger is ready. After an error
// nothing stays open and no logger is left.
func Open(ctx context.Context, c Config, dial Dial) (_ *IO, retErr error) {
	t, err := resolve(c)
	if err != nil {
		return nil, err
	}
	s := &IO{}
	defer func() {
		if retErr != nil {
			s.abandon()
		}
	}()
	// First, as it may take long and streams want to be used.
	if t.out.kind == binary {
		if s.logger, err = startLogger(ctx, t.out, c); err != nil {
			return nil, err
		}
	}
	if t.in.kind != null {
		p, err := openReader(t.in.path)
		if err != nil {
			return nil, fmt.Errorf("open stdin: %w", err)
		}
		n, conn, err := dial(ctx)
		if err != nil {
			p.Close()
			return nil, fmt.Errorf("open stdin's stream: %w", err)
		}
		s.numbers[0], s.in = n, newInput(p, conn)
	}
	for i, o := range []struct {
		name string
		t    target
		to   **output
	}{{"stdout", t.out, &s.out}, {"stderr", t.err, &s.err}} {
		p, err := s.openSink(i, o.t, c)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", o.name, err)
		}
		if p == nil {
			continue
		}
		n, conn, err := dial(ctx)
		if err != nil {
			p.Close()
			return nil, fmt.Errorf("open %s's stream: %w", o.name, err)
		}
		s.numbers[i+1], *o.to = n, newOutput(p, conn, c.report)
	}
	return s, nil
}

// openSink opens where stdout (0) or stderr (1) goes; nil is nowhere.
func (s *IO) openSink(i int, t target, c Config) (sink, error) {
	if s.logger != nil {
		if p := []*pipeSink{s.logger.out, s.logger.err}[i]; p != nil {
			return p, nil
		}
		return nil, nil
	}
	switch t.kind {
	case fifo:
		return openWriter(t.path, c.report)
	case file:
		return openFile(t.path)
	default:
		return nil, nil
	}
}

// Streams are the numbers of stdin, stdout and stderr; 0 for none.
func (s *IO) Streams() (in, out, err uint64) { return s.numbers[0], s.numbers[1], s.numbers[2] }

// CloseStdin ends the input once every writer has closed its end and what they
// wrote is delivered. It does not wait. It may be called twice, and without
// stdin.
func (s *IO) CloseStdin() {
	if s.in != nil {
		s.in.finish()
	}
}

// Drain waits until as many bytes of stdout and stderr as given have been
// delivered and a reader, if there is one, has taken them out of the pipe; or
// until ctx ends, and then its error says what is missing. Clients close their
// end when they hear that the process has ended, and what is in the pipe then
// is lost.
func (s *IO) Drain(ctx context.Context, out, err uint64) error {
	for _, o := range []struct {
		o    *output
		want uint64
	}{{s.out, out}, {s.err, err}} {
		if o.o == nil {
			continue
		}
		if got := o.o.wait(ctx, o.want); ctx.Err() != nil && got < o.want {
			return fmt.Errorf("deliver output: %d of %d bytes: %w", got, o.want, context.Cause(ctx))
		}
	}
	for _, o := range []*output{s.out, s.err} {
		if o != nil {
			o.sink.emptied(ctx)
		}
	}
	return nil
}

// Close closes streams and what they go to; what is not delivered is lost. It
// waits for the copying to end, but not for a logger, which has seconds to end by
// itself: see Wait. It may be called twice.
func (s *IO) Close() {
	s.close.Do(func() {
		if s.in != nil {
			s.in.close()
		}
		for _, o := range []*output{s.out, s.err} {
			if o != nil {
				o.close()
			}
		}
		if s.logger != nil {
			s.logger.end()
		}
	})
}

// Wait waits until the logger, if there is one, has ended, which it does some
// seconds after Close at the latest; or until ctx ends.
func (s *IO) Wait(ctx context.Context) {
	if s.logger == nil {
		return
	}
	select {
	case <-s.logger.ended:
	case <-ctx.Done():
	}
}

// abandon takes everything back, at once.
func (s *IO) abandon() {
	if s.logger != nil {
		s.logger.closeInput()
		s.logger.signal(unix.SIGKILL)
	}
	s.Close()
	s.Wait(context.Background())
}
