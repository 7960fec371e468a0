// SPDX-License-Identifier: Apache-2.0

package stdio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// bufferBytes per copy: half of what a pipe holds, so that reader and writer
// overlap.
const bufferBytes = 32 << 10

// input copies from a pipe to a stream.
type input struct {
	pipe   *reader
	stream Stream
	done   chan struct{}
}

func newInput(p *reader, s Stream) *input {
	in := &input{pipe: p, stream: s, done: make(chan struct{})}
	go in.run()
	return in
}

func (in *input) run() {
	defer close(in.done)
	buf := make([]byte, bufferBytes)
	to := io.Writer(in.stream)
	for {
		n, err := in.pipe.Read(buf)
		if n > 0 {
			if _, werr := to.Write(buf[:n]); werr != nil {
				// The process reads no more. Its writers must not wait for it.
				in.stream.Close()
				to = io.Discard
			}
		}
		if err != nil {
			// End of file comes after finish only. Another error is close's.
			if errors.Is(err, io.EOF) && to != io.Discard {
				in.stream.CloseWrite()
			}
			return
		}
	}
}

// finish lets go of the writing end: end of file comes after the last writer.
func (in *input) finish() { in.pipe.hold.Close() }

func (in *input) close() {
	in.pipe.Close()
	in.stream.Close()
	<-in.done
}

// sink takes the output of one stream.
type sink interface {
	io.WriteCloser
	// emptied waits, bounded, until a reader has taken what was written.
	emptied(ctx context.Context)
}

// output copies from a stream to a sink and counts.
type output struct {
	sink   sink
	stream Stream
	report func(error)
	done   chan struct{}

	mu        sync.Mutex
	delivered uint64        // guarded by mu
	changed   chan struct{} // guarded by mu; closed and renewed when delivered grows while somebody waits; nil otherwise
}

func newOutput(to sink, from Stream, report func(error)) *output {
	o := &output{sink: to, stream: from, report: report, done: make(chan struct{})}
	go o.run()
	return o
}

func (o *output) run() {
	defer close(o.done)
	// The sink's end tells the client that there will be no more. Whoever waits
	// for the end of the stream waits for the reader, too.
	defer o.sink.Close()
	defer o.sink.emptied(context.Background())
	defer o.stream.Close()
	buf := make([]byte, bufferBytes)
	failing := false
	for {
		n, err := o.stream.Read(buf)
		if n > 0 {
			_, werr := o.sink.Write(buf[:n])
			if errors.Is(werr, os.ErrClosed) {
				return
			}
			// What cannot be written must not stop the process. A full disk may
			// have room again later.
			if werr != nil && !failing {
				o.report(fmt.Errorf("output is dropped: %w", werr))
			}
			failing = werr != nil
		}
		o.count(n)
		if err != nil {
			return
		}
	}
}

func (o *output) count(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.delivered += uint64(n)
	if o.changed != nil {
		close(o.changed)
		o.changed = nil
	}
}

// wait returns how many bytes have been delivered: at least want, unless the
// stream ended or ctx did.
func (o *output) wait(ctx context.Context, want uint64) uint64 {
	for {
		o.mu.Lock()
		got := o.delivered
		if got < want && o.changed == nil {
			o.changed = make(chan struct{})
		}
		changed := o.changed
		o.mu.Unlock()
		if got >= want {
			return got
		}
		select {
		case <-changed:
		case <-o.done:
			o.mu.Lock()
			defer o.mu.Unlock()
			return o.delivered
		case <-ctx.Done():
			return got
		}
	}
}

// closeTimeout bounds the wait for a write to a file, which nothing can interrupt.
const closeTimeout = 2 * time.Second

func (o *output) close() {
	o.stream.Close()
	o.sink.Close()
	timeout := time.NewTimer(closeTimeout)
	defer timeout.Stop()
	select {
	case <-o.done:
	case <-timeout.C:
		o.report(errors.New("the file system does not take the output; what was not written is lost"))
	}
}
