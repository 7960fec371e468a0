// SPDX-License-Identifier: Apache-2.0

package events

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/api/events"
	eventsapi "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/ttrpc"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/types/known/emptypb"
)

// server is containerd's end. It refuses the first fail events.
type server struct {
	got chan string

	mu   sync.Mutex
	fail int // guarded by mu
}

func (s *server) Forward(ctx context.Context, r *eventsapi.ForwardRequest) (*emptypb.Empty, error) {
	s.mu.Lock()
	fail := s.fail > 0
	s.fail--
	s.mu.Unlock()
	if fail {
		return nil, errors.New("not now")
	}
	e, err := typeurl.UnmarshalAny(r.Envelope.Event)
	if err != nil {
		return nil, err
	}
	ns, _ := ttrpc.GetMetadataValue(ctx, namespaceHeader)
	s.got <- fmt.Sprintf("%s %s %s %s", r.Envelope.Namespace, ns, r.Envelope.Topic, e.(*events.TaskStart).ContainerID)
	return &emptypb.Empty{}, nil
}

func serve(t *testing.T, path string, s *server) (stop func()) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	eventsapi.RegisterTTRPCEventsService(srv, s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(context.Background(), l)
	}()
	return func() {
		srv.Close()
		<-done
	}
}

// expect takes the events from..to-1 in order. One that the server got while its
// connection broke may come again: delivery is at least once.
func expect(t *testing.T, s *server, from, to int) {
	t.Helper()
	name := func(i int) string { return fmt.Sprintf("ns ns /tasks/start c%d", i) }
	for i := from; i < to; {
		select {
		case got := <-s.got:
			if got == name(i) {
				i++
			} else if got != name(i-1) {
				t.Fatalf("got %q, want %q", got, name(i))
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("no %q", name(i))
		}
	}
}

func publish(q *Queue, from, to int) {
	for i := from; i < to; i++ {
		q.Publish("/tasks/start", &events.TaskStart{ContainerID: fmt.Sprintf("c%d", i)})
	}
}

func TestOrderSurvivesErrorsAndRestarts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	q := New("unix://"+path, "ns")
	publish(q, 0, 10) // nobody listens yet

	s := &server{got: make(chan string, 100), fail: 2}
	stop := serve(t, path, s)
	expect(t, s, 0, 10)

	stop()
	publish(q, 10, 20)
	stop = serve(t, path, s)
	defer stop()
	expect(t, s, 10, 20)

	publish(q, 20, 60)
	q.Close(t.Context())
	expect(t, s, 20, 60)
	publish(q, 60, 61) // dropped, with a log line
}

func TestCloseDoesNotWaitForEver(t *testing.T) {
	q := New(filepath.Join(t.TempDir(), "none"), "ns")
	publish(q, 0, 3)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	q.Close(ctx)
}

func TestNoAddress(t *testing.T) {
	q := New("", "ns")
	publish(q, 0, maxQueued+1)
	q.Close(t.Context())
}

func TestBound(t *testing.T) {
	q := New(filepath.Join(t.TempDir(), "none"), "ns")
	publish(q, 0, 2*maxQueued)
	q.mu.Lock()
	n := len(q.queued)
	q.mu.Unlock()
	if n > maxQueued {
		t.Errorf("%d events queued", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	q.Close(ctx)
}
