package client

import (
	"context"
	"crypto/rand"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
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
// the error is ErrOutcomeUnknown; ErrUnreachable says that nothing was sent.
//
// At a full queue with OverflowBlock, Send waits until ctx ends; with a deadline it gives up a little
// earlier, so that the daemon can say for sure that nothing was stored.
func (q *Queue) Send(ctx context.Context, m ...Message) ([]Sent, error) {
	messages, _, e := batchProto(m)
	if e != nil {
		return nil, e.on(q.name)
	}
	instance, err := q.c.daemonInstance(ctx)
	if err != nil {
		return nil, err
	}
	l := q.c.lanes.take()
	request := &ipcdv1.SendRequest{Queue: q.name, Messages: messages, ProducerId: l.producer, BatchId: l.nextBatch(), Instance: instance}
	stored, e := q.sendOnce(ctx, request)
	if e != nil {
		// A lane whose last batch may still be under way at the daemon is not used again.
		if !e.is(reason.OutcomeUnknown) {
			q.c.lanes.give(l)
		}
		return nil, e
	}
	q.c.lanes.give(l)
	sent, e := sentOf(stored, len(m))
	if e != nil {
		return nil, e.on(q.name)
	}
	return sent, nil
}

// sendOnce sends a batch until it is answered, over as many connections as that takes. SEMANTICS 9: every
// repeat carries the same ids and the instance that saw the first.
func (q *Queue) sendOnce(ctx context.Context, request *ipcdv1.SendRequest) (*ipcdv1.Stored, *Error) {
	var brokenAt time.Time // when a connection broke with the batch on it; zero: none did
	for try := 0; ; try++ {
		request.Wait = blockedWait(ctx)
		var sentTo peer.Peer // set only once the call was handed to a connection
		response, err := q.c.messages.Send(ctx, request, grpc.Peer(&sentTo))
		if err == nil {
			return response.GetStored(), nil
		}
		e := q.c.rpcError(err, q.name)
		unsure := !brokenAt.IsZero() // the batch went out before and was not answered
		switch {
		case e.answered && !unsure:
			if !e.is(reason.OutcomeUnknown) || try >= instanceTries {
				return nil, e
			}
			// Another instance than the one asked for refused it; nothing was stored anywhere.
			if request.Instance, err = q.c.askInstance(ctx); err != nil {
				return nil, q.c.rpcError(err, q.name)
			}
			continue
		case e.answered && !e.broken():
			if e.leavesOpen() {
				return nil, outcomeUnknown(q.name, e)
			}
			return nil, e
		}
		unsure = unsure || sentTo.Addr != nil
		switch {
		case !unsure:
			return nil, e // no connection took it
		case ctx.Err() != nil:
			return nil, outcomeUnknown(q.name, contextError(ctx))
		case !e.broken():
			if brokenAt.IsZero() && (e.is(reason.QuotaExceeded) || e.is(reason.Unimplemented) || e.is(reason.InvalidArgument)) {
				return nil, e // refused by gRPC itself
			}
			return nil, outcomeUnknown(q.name, e)
		}
		if brokenAt.IsZero() {
			brokenAt = time.Now()
		}
		if err := q.c.reconnect(ctx, brokenAt.Add(q.c.resendWindow), try); err != nil {
			if ctx.Err() != nil {
				e = contextError(ctx)
			}
			return nil, outcomeUnknown(q.name, e)
		}
	}
}

// reconnect returns once there is a connection again, or with an error if that takes beyond the deadline.
func (c *Client) reconnect(ctx context.Context, deadline time.Time, try int) error {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	if err := pause(ctx, try); err != nil {
		return err
	}
	return c.awaitReady(ctx)
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

func (p *lanes) give(l *lane) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, l)
}
