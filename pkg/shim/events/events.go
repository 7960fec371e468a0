// SPDX-License-Identifier: Apache-2.0

package events

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	eventsapi "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/log"
	"github.com/containerd/ttrpc"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	// maxQueued bounds the events that wait for a containerd that is down.
	maxQueued = 2048
	// sendTimeout bounds one attempt, giveUp all attempts for one event. After
	// a restart containerd asks for states anyway.
	sendTimeout = 5 * time.Second
	giveUp      = time.Minute
	firstRetry  = 100 * time.Millisecond
	lastRetry   = 5 * time.Second

	// header by which ttrpc services of containerd know the namespace.
	namespaceHeader = "containerd-namespace-ttrpc"
)

// Queue is the events on their way to containerd.
type Queue struct {
	namespace string
	address   string
	conn      *connection // the sender's own

	mu     sync.Mutex
	queued []*types.Envelope // guarded by mu
	closed bool              // guarded by mu

	wake chan struct{} // holds one token when queued or closed changed
	stop context.CancelFunc
	done chan struct{} // closed when the sender has ended
}

// New starts a queue to the ttrpc events service at address, a socket's path
// with or without unix://. With an empty address, as CRI-O gives it, events go
// nowhere.
func New(address, namespace string) *Queue {
	ctx, cancel := context.WithCancel(context.Background())
	q := &Queue{
		namespace: namespace,
		address:   strings.TrimPrefix(address, "unix://"),
		wake:      make(chan struct{}, 1),
		stop:      cancel,
		done:      make(chan struct{}),
	}
	q.conn = &connection{path: q.address}
	go q.run(ctx)
	return q
}

// Publish queues an event. Calls that do not overlap keep their order.
func (q *Queue) Publish(topic string, event proto.Message) {
	if q.address == "" {
		return
	}
	body, err := typeurl.MarshalAnyToProto(event)
	if err != nil {
		log.L.WithError(err).WithField("topic", topic).Error("event cannot be encoded")
		return
	}
	e := &types.Envelope{
		Timestamp: timestamppb.New(time.Now()),
		Namespace: q.namespace,
		Topic:     topic,
		Event:     body,
	}
	q.mu.Lock()
	full := q.closed || len(q.queued) >= maxQueued
	if !full {
		q.queued = append(q.queued, e)
	}
	q.mu.Unlock()
	if full {
		log.L.WithField("topic", topic).Error("event dropped: the queue is full or closed")
		return
	}
	q.kick()
}

// Close sends what is queued, for as long as ctx allows, and ends the queue.
func (q *Queue) Close(ctx context.Context) {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.kick()
	select {
	case <-q.done:
	case <-ctx.Done():
	}
	q.stop()
	<-q.done
}

func (q *Queue) kick() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *Queue) run(ctx context.Context) {
	defer close(q.done)
	defer q.conn.close()
	for {
		q.mu.Lock()
		var e *types.Envelope
		if len(q.queued) > 0 {
			e = q.queued[0]
			q.queued = q.queued[1:]
		}
		closed := q.closed
		q.mu.Unlock()
		switch {
		case e != nil:
			q.send(ctx, e)
		case closed:
			return
		default:
			select {
			case <-q.wake:
			case <-ctx.Done():
				return
			}
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// send tries until the event has arrived, or it is time to give up.
func (q *Queue) send(ctx context.Context, e *types.Envelope) {
	ctx, cancel := context.WithTimeout(ctx, giveUp)
	defer cancel()
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		err := q.conn.forward(ctx, q.namespace, e)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			log.L.WithError(err).WithField("topic", e.Topic).Error("event dropped")
			return
		case <-time.After(wait):
		}
	}
}

// connection is a client that is made when needed and dropped on an error.
type connection struct {
	path   string
	client *ttrpc.Client
}

func (c *connection) forward(ctx context.Context, namespace string, e *types.Envelope) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	if c.client == nil {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", c.path)
		if err != nil {
			return fmt.Errorf("connect to containerd: %w", err)
		}
		c.client = ttrpc.NewClient(conn)
	}
	ctx = ttrpc.WithMetadata(ctx, ttrpc.MD{namespaceHeader: {namespace}})
	_, err := eventsapi.NewTTRPCEventsClient(c.client).Forward(ctx, &eventsapi.ForwardRequest{Envelope: e})
	if err != nil {
		c.close()
		return fmt.Errorf("send event to containerd: %w", err)
	}
	return nil
}

func (c *connection) close() {
	if c.client != nil {
		c.client.Close()
		c.client = nil
	}
}
