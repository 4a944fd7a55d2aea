package client

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// RingMessage is a message of a ring.
type RingMessage struct {
	Type    int64 // positive; 0 stands for 1
	Payload []byte
}

// RingPublished says under which sequences messages were published: FirstSequence and on, in order.
type RingPublished struct {
	LaneID        uint64 // of the daemon's lane
	FirstSequence uint64
	Count         int
}

// RingPublisher publishes to a ring through the daemon. Its methods may be called concurrently; calls are
// published in the order in which they were made. A stream that broke is opened again by the next call;
// nothing is ever published twice.
type RingPublisher struct {
	r      *Ring
	ctx    context.Context
	cancel context.CancelFunc
	ended  sync.WaitGroup // of the goroutines that read streams
	turn   chan struct{}  // holds a token while somebody opens a stream or writes; guards stream
	stream *publishStream // the latest, or nil
}

// Publisher returns a publisher to the ring that lives until Close or until ctx ends. It fails with
// ErrUnreachable where no daemon answers. Whether the ring exists, and whether the caller may publish,
// the first Publish tells.
func (r *Ring) Publisher(ctx context.Context) (*RingPublisher, error) {
	if _, err := r.c.askInstance(ctx); err != nil {
		return nil, err
	}
	p := &RingPublisher{r: r, turn: make(chan struct{}, 1)}
	p.ctx, p.cancel = context.WithCancel(ctx)
	return p, nil
}

// Publish publishes messages and returns once they are in the ring: in the order in which they stand, all
// of them or, where something is wrong with one, none. There may be 1 to 16384, of 24 MiB together. The
// payloads may be changed afterwards.
//
// In a lossless ring it waits for the slowest consumer. When ctx ends meanwhile, or the connection breaks, the
// error is ErrOutcomeUnknown: some or all may have been published. That holds for all calls that the
// publisher has under way: goroutines that give up early had better have a publisher each.
func (p *RingPublisher) Publish(ctx context.Context, m ...RingMessage) (RingPublished, error) {
	messages, e := ringMessagesProto(m)
	if e != nil {
		return RingPublished{}, e.on(p.r.name)
	}
	w, e := p.write(ctx, messages)
	if e != nil {
		return RingPublished{}, e
	}
	// To give up is to tell the daemon, so that nothing of it is published at some later time.
	stop := context.AfterFunc(ctx, w.stream.cancel)
	<-w.done
	stop()
	if w.err == nil {
		return w.published, nil
	}
	if w.err.is(reason.OutcomeUnknown) && ctx.Err() != nil {
		return RingPublished{}, publishUnknown(p.r.name, contextError(ctx))
	}
	return RingPublished{}, w.err
}

// Close ends the publisher. Calls of Publish that are under way end with ErrOutcomeUnknown.
func (p *RingPublisher) Close() error {
	p.cancel()
	p.turn <- struct{}{}
	p.ended.Wait()
	<-p.turn
	return nil
}

func ringMessagesProto(m []RingMessage) ([]*ipcdv1.RingMessage, *Error) {
	if len(m) == 0 {
		return nil, newError(reason.InvalidArgument, "no messages: there must be 1 to %d", limits.RingPublishMessages)
	}
	if len(m) > limits.RingPublishMessages {
		return nil, newError(reason.InvalidArgument, "%d messages: %d may be published at once; publish them in several calls", len(m), limits.RingPublishMessages)
	}
	out := make([]*ipcdv1.RingMessage, len(m))
	block := make([]ipcdv1.RingMessage, len(m))
	size := 0
	for i := range m {
		if m[i].Type < 0 {
			e := newError(reason.InvalidArgument, "type %d: types are positive", m[i].Type)
			e.Index, e.Field = i, "type"
			return nil, e
		}
		size += len(m[i].Payload)
		block[i].Type, block[i].Payload = m[i].Type, m[i].Payload
		out[i] = &block[i]
	}
	if size > limits.BatchBytes {
		return nil, newError(reason.InvalidArgument, "%d bytes of payloads: %d may be published at once; publish them in several calls", size, limits.BatchBytes)
	}
	return out, nil
}

func publishUnknown(ring string, cause *Error) *Error {
	return newError(reason.OutcomeUnknown, "it is not known whether the messages were published (%s)", cause.Message).on(ring).because(cause)
}

// publishStream is one stream of a RingPublisher.
type publishStream struct {
	name   string // the ring's
	c      *Client
	stream grpc.BidiStreamingClient[ipcdv1.PublishRequest, ipcdv1.PublishResponse]
	cancel context.CancelFunc
	named  bool // the ring was named; guarded by the publisher's turn

	mu      sync.Mutex // guards all below
	waiting []*publishing
	err     *Error // why it ended
}

// publishing is a call of Publish that waits for its answer.
type publishing struct {
	stream *publishStream
	count  int
	done   chan struct{}
	// Set before done is closed.
	published RingPublished
	err       *Error
}

// write sends a request on a stream that has not ended. An error says that nothing was sent.
func (p *RingPublisher) write(ctx context.Context, messages []*ipcdv1.RingMessage) (*publishing, *Error) {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return nil, contextError(ctx).on(p.r.name)
	}
	for {
		if ctx.Err() != nil {
			return nil, contextError(ctx).on(p.r.name)
		}
		s, e := p.open(ctx)
		if e != nil {
			return nil, e
		}
		w := &publishing{stream: s, count: len(messages), done: make(chan struct{})}
		if !s.expect(w) {
			continue // it ended just now
		}
		request := &ipcdv1.PublishRequest{Messages: messages}
		if !s.named {
			request.Ring, s.named = s.name, true
		}
		stop := context.AfterFunc(ctx, s.cancel)
		_ = s.stream.Send(request) // an error shows with its cause at the reader
		stop()
		return w, nil
	}
}

// open returns the stream in use, or another where that has ended. Who calls it has the turn.
func (p *RingPublisher) open(ctx context.Context) (*publishStream, *Error) {
	if p.ctx.Err() != nil {
		if ctx.Err() != nil { // of which the publisher's may be made
			return nil, contextError(ctx).on(p.r.name)
		}
		return nil, newError(reason.Cancelled, "the publisher is closed").on(p.r.name)
	}
	if p.stream != nil && !p.stream.over() {
		return p.stream, nil
	}
	s := &publishStream{name: p.r.name, c: p.r.c}
	var streamCtx context.Context
	streamCtx, s.cancel = context.WithCancel(p.ctx)
	defer context.AfterFunc(ctx, s.cancel)()
	var err error
	if s.stream, err = s.c.rings.Publish(streamCtx); err != nil {
		s.cancel()
		if ctx.Err() != nil {
			return nil, contextError(ctx).on(s.name)
		}
		return nil, s.c.rpcError(err, s.name)
	}
	p.stream = s
	p.ended.Go(s.read)
	return s, nil
}

func (s *publishStream) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err != nil
}

// expect takes w among those that wait, unless the stream has ended.
func (s *publishStream) expect(w *publishing) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return false
	}
	s.waiting = append(s.waiting, w)
	return true
}

// read takes answers until the stream ends.
func (s *publishStream) read() {
	defer s.cancel()
	for {
		response, err := s.stream.Recv()
		s.mu.Lock()
		if err == nil {
			err = s.answerLocked(response)
		}
		if err != nil {
			s.endLocked(err)
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
	}
}

func (s *publishStream) answerLocked(p *ipcdv1.PublishResponse) error {
	if len(s.waiting) == 0 {
		return newError(reason.Internal, "an answer came to which there was no request").on(s.name)
	}
	w := s.waiting[0]
	if int(p.GetCount()) != w.count {
		return newError(reason.Internal, "%d messages were published, the answer is about %d", w.count, p.GetCount()).on(s.name)
	}
	s.waiting = s.waiting[1:]
	w.published = RingPublished{LaneID: p.GetLaneId(), FirstSequence: p.GetFirstSequence(), Count: w.count}
	close(w.done)
	return nil
}

// endLocked gives all that wait their error. What the daemon says is about the first of them, and means that
// it did not come to the others.
func (s *publishStream) endLocked(err error) {
	if errors.Is(err, io.EOF) {
		err = newError(reason.Unreachable, "the daemon at %s ended the stream", s.c.target)
	}
	s.err = s.c.rpcError(err, s.name)
	for i, w := range s.waiting {
		switch {
		case !s.err.answered, s.err.is(reason.TimedOut), s.err.is(reason.Cancelled): // some may be in the ring
			w.err = publishUnknown(s.name, s.err)
		case i == 0:
			w.err = s.err
		default:
			w.err = newError(reason.Reason(s.err.Reason), "nothing was published, since what came before failed: %s", s.err.Message).on(s.err.Queue)
		}
		close(w.done)
	}
	s.waiting = nil
}
