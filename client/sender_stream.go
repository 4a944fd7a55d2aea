package client

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// A send is queued, then part of a batch, written on a stream, answered. When the stream breaks between
// written and answered the batch is written again on the next one:
//
//	queued -> batch -> written -> answered: stored           -> resolved
//	             ^        |          |
//	             |        |          +----> refused          -> resolved, or again without the culprit
//	             |        +-> stream broke, same ids         -> written
//	             +--------+-> refused by another instance    -> again under a new id

// batch is one or more sends that go out together.
type batch struct {
	id       uint64
	sends    []*Pending
	messages []*ipcdv1.Message
	instance string    // of the daemon to which it was first written
	writes   int       // how often it was written
	brokenAt time.Time // when a stream first broke with the batch on it; zero: none did
}

// senderStream is one stream of a Sender, guarded by the Sender's lock.
type senderStream struct {
	stream   grpc.BidiStreamingClient[ipcdv1.SendStreamRequest, ipcdv1.SendStreamResponse]
	instance string
	rewrite  []*batch // of earlier streams, still to be written on this one
	retire   bool     // write nothing new; end when all is answered
	answered bool     // an answer came
	err      *Error   // why it broke
	broken   bool
}

// run keeps a stream open until the Sender is closed and done, or fails.
func (s *Sender) run() {
	defer close(s.ended)
	defer s.cancel()
	try, away := 0, time.Now()
	for {
		progress, e := s.oneStream()
		if s.finished() {
			return
		}
		if progress {
			try, away = 0, time.Now()
		}
		if e == nil {
			e = newError(reason.Unreachable, "the connection to %s ended", s.q.c.target)
		} else if !e.broken() {
			s.fail(e, e.answered && !progress)
			return
		}
		if !s.reconnect(try, away, e) {
			return
		}
		try++
	}
}

// finished reports whether the Sender is closed and has nothing left to do, so that no other stream is due.
func (s *Sender) finished() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing && s.messages == 0
}

// oneStream opens a stream and works on it until it breaks or is done with, which is no error. progress
// tells whether the daemon answered anything.
func (s *Sender) oneStream() (progress bool, e *Error) {
	instance, err := s.q.c.askInstance(s.ctx)
	if err != nil {
		return false, s.q.c.rpcError(err, s.q.name)
	}
	t := &senderStream{instance: instance}
	s.expire()
	s.mu.Lock()
	if len(s.sent) > 0 && s.sent[0].instance != instance {
		// What an earlier instance did not answer must say so; what is new must not.
		t.instance, t.retire = s.sent[0].instance, true
	}
	t.rewrite = slices.Clone(s.sent)
	s.mu.Unlock()

	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	t.stream, err = s.q.c.messages.SendStream(ctx)
	if err != nil {
		return false, s.q.c.rpcError(err, s.q.name)
	}
	readerDone := make(chan struct{})
	go func() {
		defer close(readerDone)
		s.read(t)
	}()
	s.write(t)
	<-readerDone
	s.mu.Lock()
	defer s.mu.Unlock()
	return t.answered, t.err
}

// write writes batches until the stream breaks, is retired, or the Sender is closed and done.
func (s *Sender) write(t *senderStream) {
	err := t.stream.Send(&ipcdv1.SendStreamRequest{Kind: &ipcdv1.SendStreamRequest_Open{
		Open: &ipcdv1.SendStreamOpen{Queue: s.q.name, ProducerId: s.producer, Instance: t.instance},
	}})
	for err == nil {
		b := s.nextBatch(t)
		if b == nil {
			break
		}
		err = t.stream.Send(&ipcdv1.SendStreamRequest{Kind: &ipcdv1.SendStreamRequest_Batch{
			Batch: &ipcdv1.SendStreamBatch{BatchId: b.id, Messages: b.messages},
		}})
	}
	// An error of Send shows with its cause at the reader.
	_ = t.stream.CloseSend()
}

// nextBatch waits for a batch to write; nil: there will be none on this stream.
func (s *Sender) nextBatch(t *senderStream) *batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case t.broken:
			return nil
		case len(t.rewrite) > 0:
			b := t.rewrite[0]
			t.rewrite = t.rewrite[1:]
			b.writes++
			return b
		case len(s.sent) == 0 && (t.retire || s.closing && s.messages == 0):
			return nil
		case !t.retire && len(s.sent) < s.batches() && len(s.again)+len(s.queued) > 0:
			b := s.newBatchLocked()
			b.instance, b.writes = t.instance, 1
			s.sent = append(s.sent, b)
			return b
		}
		s.changed.Wait()
	}
}

// batches is how many batches may be unanswered.
func (s *Sender) batches() int {
	if s.o.InOrder {
		return 1
	}
	return senderBatches
}

// newBatchLocked makes a batch of what must be sent again, or of as much as fits of what is queued.
func (s *Sender) newBatchLocked() *batch {
	s.batchID++
	b := &batch{id: s.batchID}
	if len(s.again) > 0 {
		b.sends, s.again = s.again[0], s.again[1:]
	} else {
		n, messages, bytes := 0, 0, 0
		for n < len(s.queued) {
			p := s.queued[n]
			if n > 0 && (messages+len(p.messages) > s.o.BatchMessages || bytes+p.bytes > senderBatchBytes) {
				break
			}
			messages += len(p.messages)
			bytes += p.bytes
			n++
		}
		b.sends = slices.Clone(s.queued[:n])
		clear(s.queued[:n])
		s.queued = s.queued[n:]
	}
	if len(b.sends) == 1 {
		b.messages = b.sends[0].messages
		return b
	}
	for _, p := range b.sends {
		b.messages = append(b.messages, p.messages...)
	}
	return b
}

// read takes answers until the stream ends.
func (s *Sender) read(t *senderStream) {
	for {
		response, err := t.stream.Recv()
		s.mu.Lock()
		if err == nil {
			err = s.answersLocked(t, response.GetResults())
		}
		if err != nil {
			s.endStreamLocked(t, err)
			s.mu.Unlock()
			s.changed.Broadcast()
			return
		}
		s.mu.Unlock()
		s.changed.Signal()
	}
}

func (s *Sender) answersLocked(t *senderStream, results []*ipcdv1.BatchResult) error {
	for _, r := range results {
		if len(s.sent) == 0 || s.sent[0].id != r.GetBatchId() {
			return newError(reason.Internal, "an answer to batch %d came out of turn", r.GetBatchId()).on(s.q.name)
		}
		t.answered = true
		b := s.sent[0]
		s.sent[0] = nil
		s.sent = s.sent[1:]
		if e := r.GetError(); e != nil {
			s.refusedLocked(t, b, answer(e, s.q.name))
			continue
		}
		sent, e := sentOf(r.GetStored(), len(b.messages))
		if e != nil {
			return e.on(s.q.name)
		}
		s.resolveLocked(b.sends, sent, nil)
	}
	return nil
}

// refusedLocked decides what becomes of the sends of a batch that the daemon did not store.
func (s *Sender) refusedLocked(t *senderStream, b *batch, e *Error) {
	firstTry := b.writes == 1
	switch {
	case firstTry && (e.is(reason.ShuttingDown) || e.is(reason.OutcomeUnknown)):
		// The daemon stops, or is another one than the one that was asked. It has not stored the
		// batch, nor has anybody else: it may go out as a new one on another stream.
		t.retire = true
		s.againLocked(b.sends)
	case e.is(reason.Unhealthy) || !firstTry && e.leavesOpen():
		s.resolveLocked(b.sends, nil, outcomeUnknown(s.q.name, e))
	case len(b.sends) == 1:
		s.resolveLocked(b.sends, nil, e)
	case e.Index != Whole:
		s.againWithoutLocked(b, e)
	case tooMuchTogether(e):
		half := len(b.sends) / 2
		s.againLocked(b.sends[:half], b.sends[half:])
	default:
		s.resolveLocked(b.sends, nil, e)
	}
}

// tooMuchTogether reports whether a part of a batch may fit where the daemon refused the whole: the queue, or one that gets
// copies, was too full for it, or a record of the journal too small.
func tooMuchTogether(e *Error) bool {
	switch reason.Reason(e.Reason) {
	case reason.QueueFull, reason.QuotaExceeded, reason.MessageTooLarge, reason.InvalidArgument, reason.DiskFull:
		return true
	}
	return false
}

// againLocked lets sends go out again, as a batch for each of the lists that has any.
func (s *Sender) againLocked(batches ...[]*Pending) {
	for _, sends := range batches {
		if len(sends) > 0 {
			s.again = append(s.again, sends)
		}
	}
	slices.SortStableFunc(s.again, func(a, b []*Pending) int { return cmp.Compare(a[0].number, b[0].number) })
}

// againWithoutLocked fails the send with the message that e names, and sends the others again.
func (s *Sender) againWithoutLocked(b *batch, e *Error) {
	start := 0
	for i, p := range b.sends {
		if e.Index < start+len(p.messages) {
			if s.o.InOrder && i > 0 { // those before it first
				s.againLocked(b.sends[:i], b.sends[i:])
				return
			}
			own := *e
			own.Index -= start
			s.againLocked(slices.Concat(b.sends[:i], b.sends[i+1:]))
			s.resolveLocked(b.sends[i:i+1], nil, &own)
			return
		}
		start += len(p.messages)
	}
	s.resolveLocked(b.sends, nil, e) // an index beyond the batch
}

// endStreamLocked notes why the stream ended and which batches it left unanswered.
func (s *Sender) endStreamLocked(t *senderStream, err error) {
	t.broken = true
	if !errors.Is(err, io.EOF) {
		t.err = s.q.c.rpcError(err, s.q.name)
	} else if len(s.sent) > 0 {
		t.err = newError(reason.Unreachable, "the daemon ended the stream")
	}
	if t.err != nil && t.err.answered && (t.err.is(reason.OutcomeUnknown) || t.err.is(reason.ShuttingDown)) {
		// The daemon is another one than this stream was meant for, or stops. Either way it answered what
		// it had stored before it said so.
		for _, b := range s.sent {
			s.refusedLocked(t, b, t.err)
		}
		s.sent, t.err = nil, newError(reason.Unreachable, "%s", t.err.Message)
		return
	}
	for _, b := range s.sent {
		if b.brokenAt.IsZero() {
			b.brokenAt = time.Now()
		}
	}
}

// reconnect waits until there is a connection again. away is since when there is none, e why. It returns
// false when the Sender is over.
func (s *Sender) reconnect(try int, away time.Time, e *Error) bool {
	if pause(s.ctx, try) != nil {
		s.fail(contextError(s.ctx), false)
		return false
	}
	for {
		s.expire()
		if s.finished() {
			return false
		}
		s.mu.Lock()
		closing := s.closing
		s.mu.Unlock()
		if closing && time.Since(away) > s.q.c.resendWindow {
			s.fail(e, false)
			return false
		}
		// Look again now and then: batches grow old, and Close shortens the wait.
		ctx, cancel := context.WithTimeout(s.ctx, reconnectMax)
		err := s.q.c.awaitReady(ctx)
		cancel()
		switch {
		case err == nil:
			return true
		case s.ctx.Err() != nil:
			s.fail(contextError(s.ctx), false)
			return false
		case errors.Is(err, ErrCancelled):
			s.fail(errClosed(), false)
			return false
		}
	}
}

// expire gives up batches that were written too long ago to be written again: the daemon may have
// forgotten them, and would store them twice.
func (s *Sender) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent = slices.DeleteFunc(s.sent, func(b *batch) bool {
		if b.brokenAt.IsZero() || time.Since(b.brokenAt) <= s.q.c.resendWindow {
			return false
		}
		s.resolveLocked(b.sends, nil, outcomeUnknown(s.q.name, newError(reason.Unreachable, "the connection broke")))
		return true
	})
}

// fail ends the Sender. What was written and not answered has an unknown outcome, unless the daemon
// refused the stream as such before it looked at any batch.
func (s *Sender) fail(e *Error, refused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = e
	for _, b := range s.sent {
		if refused && b.writes == 1 {
			s.resolveLocked(b.sends, nil, e)
		} else {
			s.resolveLocked(b.sends, nil, outcomeUnknown(s.q.name, e))
		}
	}
	for _, sends := range s.again {
		s.resolveLocked(sends, nil, e)
	}
	s.resolveLocked(s.queued, nil, e)
	s.sent, s.again, s.queued = nil, nil, nil
}
