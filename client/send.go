package client

import (
	"context"
	"crypto/rand"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

const (
	// resendWindow is how long after its connection broke a batch may still be sent again. The daemon
	// remembers batches for limits.ProducerWindow; the rest of that covers the time in which a dead
	// connection went unnoticed, which is at most KeepaliveTime + KeepaliveTimeout.
	resendWindow = limits.ProducerWindow / 2
	// instanceTries bounds how often a batch that was never sent follows the daemon to a new instance.
	instanceTries = 4
)

// Send stores a batch, all of it or nothing, and returns the outcome of each message once it is
// committed.
//
// Should the connection break meanwhile, the batch is sent again under the ids under which the daemon
// stores it once, for a minute at most. Where it remains open whether it was stored, also because ctx ended,
// the error is ErrOutcomeUnknown; ErrUnreachable says that nothing was sent. A daemon that is stopping stores nothing: where
// ctx has a deadline, Send waits that long, and for a minute at most, for the one that comes next, else it fails with
// ErrShuttingDown.
//
// At a full queue with OverflowBlock, Send waits until ctx ends; with a deadline it gives up a little
// earlier, so that the daemon can say for sure that nothing was stored.
func (q *Queue) Send(ctx context.Context, m ...Message) ([]Sent, error) {
	messages, _, e := batchProto(m)
	if e != nil {
		return nil, e.on(q.name)
	}
	request := &ipcdv1.SendRequest{Queue: q.name, Messages: messages}
	return q.store(ctx, len(m), func(producer string, batch uint64) storeCall {
		request.ProducerId, request.BatchId = producer, batch
		return func(instance string, opts ...grpc.CallOption) (*ipcdv1.Stored, error) {
			request.Instance, request.Wait = instance, blockedWait(ctx)
			r, err := q.c.messages.Send(ctx, request, opts...)
			return r.GetStored(), err
		}
	})
}

// storeCall stores a batch, for the daemon's instance that saw the first try.
type storeCall func(instance string, opts ...grpc.CallOption) (*ipcdv1.Stored, error)

// store stores a batch of so many messages once. identify is told the ids of the batch and returns the call.
func (q *Queue) store(ctx context.Context, messages int, identify func(producer string, batch uint64) storeCall) ([]Sent, error) {
	instance, err := q.c.daemonInstance(ctx)
	if err != nil {
		return nil, err
	}
	l := q.c.lanes.take()
	call := identify(l.producer, l.nextBatch())
	var stored *ipcdv1.Stored
	e := q.c.once(ctx, &exchange{
		queue: q.name,
		call: func(instance string, opts ...grpc.CallOption) (err error) {
			stored, err = call(instance, opts...)
			return err
		},
		instance:   instance,
		leavesOpen: (*Error).leavesOpen,
		unknown:    func(cause *Error) *Error { return outcomeUnknown(q.name, cause) },
	})
	q.c.lanes.giveUnless(l, e)
	if e != nil {
		return nil, e
	}
	sent, e := sentOf(stored, messages)
	if e != nil {
		return nil, e.on(q.name)
	}
	return sent, nil
}

// blockedWait is how long a full queue may keep a send waiting, a little less than the context has left;
// nil: as long as it likes.
func blockedWait(ctx context.Context) *durationpb.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return nil
	}
	left := time.Until(deadline)
	left -= min(left/10, time.Second)
	return durationpb.New(min(max(left, time.Millisecond), limits.WaitMax))
}

// lane is a producer as the daemon sees it, with one batch under way at a time, so that its batch ids rise.
type lane struct {
	producer string
	batch    uint64
}

func (l *lane) nextBatch() uint64 {
	l.batch++
	return l.batch
}

// lanes are a client's free lanes.
type lanes struct {
	mu     sync.Mutex // guards all below
	client string     // what the client's producer ids begin with
	made   int
	free   []*lane
}

func (p *lanes) take() *lane {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		l := p.free[n-1]
		p.free = p.free[:n-1]
		return l
	}
	if p.client == "" {
		p.client = rand.Text()
	}
	p.made++
	return &lane{producer: p.client + "/" + strconv.Itoa(p.made)}
}

// giveUnless gives a lane back after a call that ended with e, unless its last batch may still be under way
// at the daemon: such a lane is not used again.
func (p *lanes) giveUnless(l *lane, e *Error) {
	if e != nil && e.is(reason.OutcomeUnknown) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, l)
}
