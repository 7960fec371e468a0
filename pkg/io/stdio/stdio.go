// SPDX-License-Identifier: Apache-2.0

package stdio

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
)

// ErrUnsupported is the identity of the error for a kind of stdio that is not a
// named pipe.
var ErrUnsupported = errors.New("stdio is not a named pipe")

// refusal is ErrUnsupported in words for the user.
type refusal struct{ text string }

func (r *refusal) Error() string { return r.text }

// Unwrap gives the identity.
func (r *refusal) Unwrap() error { return ErrUnsupported }

// Config names the three named pipes; an empty name means none.
type Config struct {
	Stdin, Stdout, Stderr string
	// Terminal says that stdin and stdout are one terminal; Stderr is not used.
	Terminal bool
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
	numbers  [3]uint64
	close    sync.Once
}

// Open opens the pipes that c names and a stream for each. It never waits for
// the other end of a pipe. After an error nothing stays open.
func Open(ctx context.Context, c Config, dial Dial) (_ *IO, retErr error) {
	s := &IO{}
	defer func() {
		if retErr != nil {
			s.Close()
		}
	}()
	if c.Terminal {
		c.Stderr = ""
	}
	for _, name := range []string{c.Stdin, c.Stdout, c.Stderr} {
		if err := check(name); err != nil {
			return nil, err
		}
	}
	if c.Stdin != "" {
		p, err := openReader(c.Stdin)
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
		name, path string
		to         **output
	}{{"stdout", c.Stdout, &s.out}, {"stderr", c.Stderr, &s.err}} {
		if o.path == "" {
			continue
		}
		p, err := openWriter(o.path)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", o.name, err)
		}
		n, conn, err := dial(ctx)
		if err != nil {
			p.Close()
			return nil, fmt.Errorf("open %s's stream: %w", o.name, err)
		}
		s.numbers[i+1], *o.to = n, newOutput(p, conn)
	}
	return s, nil
}

// check refuses the kinds of stdio that are not built.
func check(name string) error {
	if scheme, _, ok := strings.Cut(name, "://"); ok {
		return &refusal{fmt.Sprintf("stdio through %s: is not supported yet (%s); use named pipes", scheme, name)}
	}
	if name != "" && name[0] != '/' {
		return &refusal{fmt.Sprintf("stdio name %q is not an absolute path", name)}
	}
	return nil
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
			o.pipe.emptied(ctx)
		}
	}
	return nil
}

// Close closes pipes and streams; what is not delivered is lost. It waits for
// the copying to end, and may be called twice.
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
	})
}
