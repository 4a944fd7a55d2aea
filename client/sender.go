package client

import (
	"context"
	"crypto/rand"
	"slices"
	"sync"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// SenderOptions says how much a Sender has under way. The zero value is a good choice.
type SenderOptions struct {
	MaxMessages   int // sent and not yet answered, or waiting to be sent; 0: 16384
	MaxBytes      int // of their bodies, headers and ids; 0: 16 MiB. One larger send passes alone.
	BatchMessages int // of several sends that go out together; 0: 512; 1: each send is a batch of its own

	// InOrder lets one batch be under way at a time, so that a send is only stored if all before it were: the first that
	// is refused ends the Sender, and those after it fail with ErrCancelled. Batches should be larger then.
	InOrder bool
}

const (
	senderMessages      = 16384
	senderBytes         = 16 << 20
	senderBatchMessages = 512
	// senderBatchBytes ends a batch that is put together from several sends.
	senderBatchBytes = 1 << 20
	// senderBatches is how many batches may be unanswered. It is small against limits.ProducerBatches, so
	// that the daemon remembers each, and makes batches grow when the daemon is slower than the sender.
	senderBatches = 16
)

// Sender sends without waiting for each answer. Sends that come while earlier ones are on their way are
// put together into batches. What it has under way is bounded: Send waits while that is too much. Its
// methods may be called concurrently.
type Sender struct {
	q        *Queue
	o        SenderOptions
	producer string
	ctx      context.Context
	cancel   context.CancelFunc
	ended    chan struct{} // closed when run has returned

	mu       sync.Mutex // guards all below
	changed  *sync.Cond // something below changed that the writer may wait for
	room     chan struct{}
	messages int // handed over and not yet answered
	bytes    int
	queued   []*Pending   // handed over, in no batch yet
	calls    uint64       // of Send
	again    [][]*Pending // to be sent again as batches of their own, before what is queued, in the order of the calls
	sent     []*batch     // written and not yet answered, in that order
	batchID  uint64
	closing  bool
	failed   *Error // why no more is taken
	first    error  // of a send since the last Flush
}

// Pending is a send on its way.
type Pending struct {
	number   uint64 // in the order of the calls
	messages []*ipcdv1.Message
	bytes    int
	done     chan struct{}
	// Set before done is closed.
	sent []Sent
	err  error
}

// Sender opens a pipeline to the queue that lives until Close or until ctx ends. It fails with
// ErrUnreachable where no daemon answers; a connection that breaks later is made again, and what was
// unanswered sent again under the ids under which the daemon stores it once.
func (q *Queue) Sender(ctx context.Context, o SenderOptions) (*Sender, error) {
	if o.MaxMessages < 0 || o.MaxBytes < 0 || o.BatchMessages < 0 {
		return nil, newError(reason.InvalidArgument, "sender options %+v: they must not be negative", o).on(q.name)
	}
	o.MaxMessages = cmpOr(o.MaxMessages, senderMessages)
	o.MaxBytes = cmpOr(o.MaxBytes, senderBytes)
	o.BatchMessages = cmpOr(o.BatchMessages, senderBatchMessages)
	if _, err := q.c.askInstance(ctx); err != nil {
		return nil, err
	}
	s := &Sender{q: q, o: o, producer: rand.Text(), ended: make(chan struct{}), room: make(chan struct{})}
	s.changed = sync.NewCond(&s.mu)
	s.ctx, s.cancel = context.WithCancel(ctx)
	go s.run()
	return s, nil
}

func cmpOr(v, otherwise int) int {
	if v == 0 {
		return otherwise
	}
	return v
}

// Send hands over messages that are stored together, all or nothing, and returns at once, or when there
// is room for them within the Sender's limits. The bodies must not be changed before the outcome is known.
//
// Messages of one goroutine are stored in the order of the calls. When some are refused (the queue is
// full, a body too large), those that shared their batch are sent again without them and may then
// come after later ones, unless the Sender is InOrder.
func (s *Sender) Send(ctx context.Context, m ...Message) (*Pending, error) {
	messages, size, e := batchProto(m)
	if e != nil {
		return nil, e.on(s.q.name)
	}
	p := &Pending{messages: messages, bytes: size, done: make(chan struct{})}
	s.mu.Lock()
	for {
		if s.failed != nil {
			defer s.mu.Unlock()
			return nil, s.failed
		}
		if s.closing {
			defer s.mu.Unlock()
			return nil, newError(reason.Cancelled, "the sender is closed").on(s.q.name)
		}
		if s.messages == 0 || s.messages+len(m) <= s.o.MaxMessages && s.bytes+size <= s.o.MaxBytes {
			break
		}
		room := s.room
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, contextError(ctx).on(s.q.name)
		case <-room:
		}
		s.mu.Lock()
	}
	s.calls++
	p.number = s.calls
	s.messages += len(m)
	s.bytes += size
	s.queued = append(s.queued, p)
	s.mu.Unlock()
	s.changed.Signal()
	return p, nil
}

// Flush waits until all that was handed over before is answered. It returns the first error of a send
// since the last Flush, or that of ctx.
func (s *Sender) Flush(ctx context.Context) error {
	for _, p := range s.outstanding() {
		if _, err := p.Wait(ctx); err != nil && ctx.Err() != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.first
	s.first = nil
	return first
}

func (s *Sender) outstanding() []*Pending {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*Pending
	for _, b := range s.sent {
		all = append(all, b.sends...)
	}
	for _, sends := range s.again {
		all = append(all, sends...)
	}
	return append(all, s.queued...)
}

// Close flushes and ends the Sender; no Send may follow. It returns the first error of a send since the
// last Flush. While the daemon is away it waits a minute at most.
func (s *Sender) Close() error {
	s.mu.Lock()
	s.closing = true
	s.makeRoomLocked()
	s.mu.Unlock()
	s.changed.Broadcast()
	<-s.ended
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.first
	s.first = nil
	return first
}

// makeRoomLocked wakes the Sends that wait.
func (s *Sender) makeRoomLocked() {
	close(s.room)
	s.room = make(chan struct{})
}

// Wait returns the outcome of the send: what was sent, or why not, or the error of ctx. It may be called
// more than once.
func (p *Pending) Wait(ctx context.Context) ([]Sent, error) {
	select {
	case <-p.done:
		return p.sent, p.err
	default:
	}
	select {
	case <-p.done:
		return p.sent, p.err
	case <-ctx.Done():
		return nil, contextError(ctx)
	}
}

// Done is closed when the outcome is known, so that Wait returns at once.
func (p *Pending) Done() <-chan struct{} { return p.done }

// resolveLocked ends sends with an outcome each: sent is that of all their messages, in order, or nil if
// they failed with e, which ends a Sender that is InOrder.
func (s *Sender) resolveLocked(sends []*Pending, sent []Sent, e *Error) {
	for _, p := range sends {
		n := len(p.messages)
		s.messages -= n
		s.bytes -= p.bytes
		if e != nil {
			p.err = e
			if s.first == nil {
				s.first = e
			}
		} else {
			p.sent, sent = sent[:n:n], sent[n:]
		}
		p.messages = nil
		close(p.done)
	}
	s.makeRoomLocked()
	if e != nil && s.o.InOrder && s.failed == nil {
		s.failed = newError(reason.Cancelled, "not sent, because a send before it failed").on(s.q.name)
		rest := slices.Concat(slices.Concat(s.again...), s.queued)
		s.again, s.queued = nil, nil
		s.resolveLocked(rest, nil, s.failed)
	}
}
