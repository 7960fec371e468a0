// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/xcontainer/xcontainer/integration/internal/ctrd"
)

// life is one container's.
type life struct {
	*chaos
	id   string
	blow blow

	begun  [steps]chan struct{} // closed at the beginning of each step
	over   chan struct{}        // closed at the end of the last
	struck chan struct{}        // closed when the blow has fallen, or cannot

	// Valid after struck: what was hit, "" if it was too late for that.
	what      string
	strikeErr error

	answers  []string // of calls that gave an error
	problems []string
}

// answerGrace is for a client that has had no answer to notice that it gives up.
const answerGrace = 15 * time.Second

// call makes one call of the client and wants an answer.
func (l *life) call(ctx context.Context, name string, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctrd.With(ctx), callLimit)
	defer cancel()
	begin := time.Now()
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	var err error
	select {
	case err = <-done:
	case <-time.After(callLimit + answerGrace):
		err = context.DeadlineExceeded
	}
	took := time.Since(begin)
	l.calls++
	if took > l.longest {
		l.longest, l.slow = took, fmt.Sprintf("%s of %s", name, l.id)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		l.problems = append(l.problems, fmt.Sprintf("%s: no answer in %v", name, took.Round(time.Second)))
	}
	if err != nil {
		l.answers = append(l.answers, fmt.Sprintf("%s: %v", name, err))
	}
	return err
}

// summary is what the client was told.
func (l *life) summary() string {
	if len(l.answers) == 0 {
		return "every call succeeded"
	}
	return fmt.Sprintf("%d calls failed, the first: %s", len(l.answers), clip(l.answers[0]))
}

func clip(s string) string {
	const limit = 200
	if len(s) > limit {
		s = s[:limit] + "..."
	}
	return strings.ReplaceAll(s, "\n", " ")
}

// dwell bounds the wait for a blow between two steps.
const dwell = 10 * time.Second

// begin begins a step. The one before lasts until its blow has fallen: a blow
// that is meant for it may come when all is answered, but not too late.
func (l *life) begin(s step) {
	if s == l.blow.step+1 {
		select {
		case <-l.struck:
		case <-time.After(dwell):
		}
	}
	close(l.begun[s])
}

// live goes through all steps, whatever they answer: a user who is told of an
// error still deletes.
func (l *life) live(ctx context.Context) {
	var c client.Container
	err := l.call(ctx, "new container", func(ctx context.Context) (err error) {
		c, err = l.host.New(ctx, l.id, true, "sleep", "100000")
		return err
	})
	if err != nil {
		l.problems = append(l.problems, err.Error()) // nothing was hit yet
		return
	}
	l.begin(stepCreate)
	out := new(ctrd.Output)
	var task client.Task
	err = l.call(ctx, "create", func(ctx context.Context) (err error) {
		task, err = c.NewTask(ctx, ctrd.Streams(fifoDir, nil, out))
		return err
	})
	if err == nil {
		l.use(ctx, c, task)
	}
	l.begin(stepDelete)
	if err == nil {
		l.call(ctx, "delete", func(ctx context.Context) error {
			_, err := task.Delete(ctx)
			return err
		})
		// Whatever delete said: nobody reads on.
		task.IO().Cancel()
		task.IO().Close()
	}
	l.call(ctx, "delete container", func(ctx context.Context) error {
		return c.Delete(ctx, client.WithSnapshotCleanup)
	})
}

// use is what happens between create and delete.
func (l *life) use(ctx context.Context, c client.Container, task client.Task) {
	var ended <-chan client.ExitStatus
	waitErr := l.call(ctx, "wait", func(context.Context) (err error) {
		// For as long as the container lives, not for one call.
		ended, err = task.Wait(ctrd.With(context.WithoutCancel(ctx)))
		return err
	})
	l.begin(stepStart)
	l.call(ctx, "start", func(ctx context.Context) error { return task.Start(ctx) })
	l.begin(stepExec)
	for n := range 2 {
		l.exec(ctx, c, task, fmt.Sprintf("x%d", n), "echo said")
	}
	l.begin(stepAttach)
	l.call(ctx, "attach", func(ctx context.Context) error {
		again, err := c.Task(ctx, cio.NewAttach(cio.WithStreams(nil, new(ctrd.Output), new(ctrd.Output))))
		if err == nil && again.IO() != nil {
			// Not closed: that would remove the pipes of the first one.
			again.IO().Cancel()
		}
		return err
	})
	l.begin(stepKill)
	killed := l.call(ctx, "kill", func(ctx context.Context) error { return task.Kill(ctx, syscall.SIGKILL) })
	if waitErr != nil {
		return
	}
	l.call(ctx, "end", func(ctx context.Context) error {
		if killed != nil {
			// By a daemon that was away, perhaps: once more for the end's sake.
			l.killAgain(ctx, task, ended)
		}
		select {
		case st := <-ended:
			return st.Error()
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

// killAgain repeats a kill that failed until the task has ended.
func (l *life) killAgain(ctx context.Context, task client.Task, ended <-chan client.ExitStatus) {
	for len(ended) == 0 && ctx.Err() == nil {
		// The answer does not matter: that there is no task any more is one.
		if err := task.Kill(ctx, syscall.SIGKILL); err == nil {
			return
		}
		time.Sleep(settlePoll)
		if st, err := task.Status(ctx); err != nil && !errdefs.IsUnavailable(err) || st.Status == client.Stopped {
			return
		}
	}
}

// exec runs a shell command to its end.
func (l *life) exec(ctx context.Context, c client.Container, task client.Task, id, command string) {
	var p client.Process
	err := l.call(ctx, "exec", func(ctx context.Context) error {
		spec, err := c.Spec(ctx)
		if err != nil {
			return err
		}
		p, err = task.Exec(ctx, id, shell(spec.Process, command), ctrd.Streams(fifoDir, nil, new(ctrd.Output)))
		return err
	})
	if err != nil {
		return
	}
	l.call(ctx, "exec's life", func(ctx context.Context) error { return runExec(ctx, p) })
	l.call(ctx, "exec's delete", func(ctx context.Context) error {
		_, err := p.Delete(ctx, client.WithProcessKill)
		return err
	})
	p.IO().Cancel()
	p.IO().Close()
}

func shell(like *specs.Process, command string) *specs.Process {
	p := *like
	p.Args = []string{"sh", "-c", command}
	return &p
}

func runExec(ctx context.Context, p client.Process) error {
	st, err := ctrd.RunProcess(ctx, p)
	if err != nil {
		return err
	}
	return st.Error()
}
