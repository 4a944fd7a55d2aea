package broker

import (
	"context"
	"errors"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

// Hints when to try again.
const (
	fullRetry = 100 * time.Millisecond
	diskRetry = time.Second
)

// blockedSend is a sender, or a kernel door, that waits for room.
type blockedSend struct {
	caller identity.Identity
	batch  queue.Batch   // a sender's
	charge int64         // bytes of its messages
	dedup  bool          // some have dedup ids: duplicates need no room
	turn   chan struct{} // told that it may try again itself, since copies go to other queues
	// A door's: room to keep.
	reserve                       bool
	reserveMessages, reserveBytes int64

	done   chan struct{} // closed when the outcome is valid
	stored queue.Stored
	err    error
}

func (w *blockedSend) end(stored queue.Stored, err error) {
	w.stored, w.err = stored, err
	close(w.done)
}

// Send stores a batch. See transport.Broker.
func (b *Broker) Send(ctx context.Context, id identity.Identity, r SendRequest) (queue.Stored, error) {
	stored, ticket, err := b.Submit(ctx, id, r)
	if err == nil {
		err = b.Await(ctx, ticket)
	}
	return stored, err
}

// Submit is Send that does not wait for the disk: what it returns may be told only after Await of the ticket.
func (b *Broker) Submit(ctx context.Context, id identity.Identity, r SendRequest) (queue.Stored, Ticket, error) {
	s, err := b.findInTurn(ctx, id, r.Queue, access.Send, sendWork(r.Messages))
	if err != nil {
		return queue.Stored{}, 0, b.late(err, r.Queue)
	}
	if err := s.checkBodies(r.Messages); err != nil {
		return s.refuse(id, &r, err)
	}
	if len(s.settings.Load().Binds) > 0 {
		return b.submitCopied(ctx, id, s, &r, nil, nil)
	}
	bytes, record := int64(0), int64(0)
	for i := range r.Messages {
		bytes += int64(r.Messages[i].Bytes())
		record += recordBytes(&r.Messages[i])
	}
	if err := b.admit(ctx, s, len(r.Messages), record); err != nil {
		return queue.Stored{}, 0, on(s, err)
	}
	batch := queue.Batch{Messages: r.Messages, Producer: r.Producer, Number: r.Batch}
	s.mu.Lock()
	stored, w, err := s.sendLocked(id, &r, batch, bytes)
	ticket := s.last // also what a repeat, or a duplicate, was answered with may not be on disk yet
	s.mu.Unlock()
	if err == nil {
		b.fair.granted(id.Principal(), s.id, 0)
	}
	if err == errCopied { // it was bound this moment
		return b.submitCopied(ctx, id, s, &r, nil, nil)
	}
	if w != nil {
		timer := newWaitTimer(r.Wait)
		defer timer.Stop()
		if stored, err = s.awaitRoom(ctx, w, timer); err == errCopied {
			return b.submitCopied(ctx, id, s, &r, w, timer)
		}
		ticket = s.ticket()
	}
	return stored, ticket, b.late(on(s, err), r.Queue)
}

// errCopied is of a send that has to be done together with other queues.
var errCopied = errors.New("copies go to other queues")

func totalBytes(messages []queue.Message) (total int64) {
	for i := range messages {
		total += int64(messages[i].Bytes())
	}
	return total
}

// sendLocked stores a batch, or lets the sender wait for room: then it returns its place in line.
func (s *served) sendLocked(id identity.Identity, r *SendRequest, batch queue.Batch, bytes int64) (queue.Stored, *waiting[*blockedSend], error) {
	if err := s.mayLocked(id, access.Send); err != nil {
		return queue.Stored{}, nil, err
	}
	if stored, ok, err := s.q.Repeat(batch.Producer, batch.Number); ok || err != nil {
		return stored, nil, err
	}
	if err := s.knowsProducer(r.Instance); err != nil {
		return queue.Stored{}, nil, err
	}
	if len(s.q.Settings().Binds) > 0 {
		return queue.Stored{}, nil, errCopied
	}
	lines := s.q.Settings().Overflow == queue.Block
	blocks := lines && r.Wait != 0
	if !lines || s.blocked.len == 0 {
		now := s.b.now()
		stored, err := s.storeLocked(now, batch)
		if err == nil {
			s.publishLocked()
			s.afterLocked(now)
			return stored, nil, nil
		}
		if full, ok := err.(*reason.Error); !blocks || !ok || full.Reason != reason.QueueFull || full.RetryAfter == 0 {
			return queue.Stored{}, nil, err
		}
	} else if err := s.q.CheckFits(batch); err != nil {
		return queue.Stored{}, nil, err // it would never fit: it need not wait to hear that
	} else if !blocks {
		return queue.Stored{}, nil, s.lineError()
	}
	w, err := s.blockLocked(id, batch, bytes)
	return queue.Stored{}, w, err
}

// knowsProducer is the error of a batch that was first sent to an earlier instance of the daemon, if the queue can not know
// what became of it. A durable one remembers its producers.
func (s *served) knowsProducer(instance string) error {
	if instance == "" || instance == s.b.instance || s.durable {
		return nil
	}
	return reason.New(reason.OutcomeUnknown, "the batch was first sent before the daemon was started anew: whether it was stored then is not known")
}

// lineError is the error of a send that does not wait while others do: not even one that would fit may overtake them, or a
// large batch would starve.
func (s *served) lineError() error {
	return reason.New(reason.QueueFull, "%d senders wait for room already: wait too, or try again later", s.blocked.len).Retry(fullRetry)
}

// inLine is lineError of a queue in which senders wait for room, nil of one in which none does.
func (s *served) inLine() error {
	if s.q.Settings().Overflow == queue.Block && s.blocked.len > 0 {
		return s.lineError()
	}
	return nil
}

// blockLocked gives a sender its place in the line of those who wait for room.
func (s *served) blockLocked(id identity.Identity, batch queue.Batch, bytes int64) (*waiting[*blockedSend], error) {
	w := &waiting[*blockedSend]{value: &blockedSend{caller: id, batch: batch, charge: bytes, done: make(chan struct{}), turn: make(chan struct{}, 1)}}
	for i := range batch.Messages {
		w.value.dedup = w.value.dedup || batch.Messages[i].DedupID != ""
	}
	if s.blocked.len >= limits.BlockedSenders || s.blockedBytes+w.value.charge > limits.BlockedBytes && s.blocked.len > 0 {
		return nil, reason.New(reason.QuotaExceeded, "%d senders with %d bytes wait for room already: at most %d may, with %d bytes",
			s.blocked.len, s.blockedBytes, limits.BlockedSenders, limits.BlockedBytes).Retry(fullRetry)
	}
	s.blocked.push(w)
	s.blockedBytes += w.value.charge
	return w, nil
}

// storeLocked stores a batch. Behind a deep backlog, and with much in memory, payloads stay in the journal only.
func (s *served) storeLocked(now queue.Instant, batch queue.Batch) (queue.Stored, error) {
	defer s.chargeLocked()
	s.spill = s.durable && s.q.ResidentBytes() > spillFloor && s.b.totals.payloads.Load() > s.b.payloadMemory
	batch.Spill = s.spill
	stored, err := s.q.Send(now, batch)
	s.spill = false
	return stored, err
}

// spillFloor is bytes of payloads that every queue may keep in memory.
const spillFloor = 1 << 20

// waitTimer bounds how long a sender waits. The zero one does not.
type waitTimer struct {
	*time.Timer
	expired <-chan time.Time
	wait    time.Duration
}

// newWaitTimer returns a timer for what a request says: below 0 there is no bound.
func newWaitTimer(wait time.Duration) *waitTimer {
	if wait <= 0 {
		return &waitTimer{}
	}
	timer := time.NewTimer(wait)
	return &waitTimer{timer, timer.C, wait}
}

// Stop ends it.
func (t *waitTimer) Stop() {
	if t.Timer != nil {
		t.Timer.Stop()
	}
}

// awaitRoom waits in line until the batch is stored, or for too long. With errCopied it is the sender's turn to try, and its
// place is kept.
func (s *served) awaitRoom(ctx context.Context, w *waiting[*blockedSend], timer *waitTimer) (queue.Stored, error) {
	var err error
	select {
	case <-w.value.done:
		return w.value.stored, w.value.err
	case <-w.value.turn:
		return queue.Stored{}, errCopied
	case <-timer.expired:
		err = reason.New(reason.TimedOut, "the queue had no room for %v", timer.wait)
	case <-ctx.Done():
		err = ctx.Err()
	}
	return s.giveUpRoom(w, err)
}

// giveUpRoom gives a place in line up, with an error, unless the batch was stored in the last moment.
func (s *served) giveUpRoom(w *waiting[*blockedSend], err error) (queue.Stored, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-w.value.done:
		return w.value.stored, w.value.err
	default:
	}
	s.unblockLocked(w)
	s.afterLocked(s.b.now()) // a smaller one behind it may fit
	return queue.Stored{}, err
}

func (s *served) unblockLocked(w *waiting[*blockedSend]) {
	s.blocked.remove(w)
	s.blockedBytes -= w.value.charge
}

// serveBlockedLocked lets those in line have the room there is, none before the one in front of it. It
// reports whether something was stored.
func (s *served) serveBlockedLocked(now queue.Instant) (stored bool) {
	for w := s.blocked.first(); w != nil; w = s.blocked.first() {
		v := w.value
		if v.reserve {
			if !s.keepRoomLocked(v.reserveMessages, v.reserveBytes) {
				break
			}
			s.unblockLocked(w)
			v.end(queue.Stored{}, nil)
			continue
		}
		if s.stillFullLocked(v) {
			break
		}
		if len(s.q.Settings().Binds) > 0 { // locks of other queues are needed
			select {
			case v.turn <- struct{}{}:
			default:
			}
			break
		}
		if s.durable && !s.b.journal.Room(v.charge+int64(len(v.batch.Messages)+1)*frameOverhead) {
			s.tryLaterLocked() // the room there was when it came may be gone
			break
		}
		s.flushLocked() // it is no part of what was decided before
		out, err := s.storeLocked(now, v.batch)
		if full, ok := err.(*reason.Error); ok && full.Reason == reason.QueueFull && full.RetryAfter > 0 {
			break
		}
		s.unblockLocked(w)
		v.end(out, on(s, err))
		if err == nil {
			s.publishLocked()
			s.flushLocked() // all that waited together may be more than a frame takes
			stored = true
		}
	}
	return stored
}

// tryLaterLocked serves those in line again after a while: nothing tells a queue that there is room on disk.
func (s *served) tryLaterLocked() {
	if s.starving || s.closed || s.deleted {
		return
	}
	s.starving = true
	s.b.running.Go(func() {
		select {
		case <-s.b.quit:
			return
		case <-time.After(fullRetry):
		}
		s.mu.Lock()
		s.starving = false
		s.afterLocked(s.b.now())
		s.mu.Unlock()
	})
}

// stillFullLocked reports that there is surely no room for a batch yet. It saves looking at each message
// of a large one whenever something leaves the queue.
func (s *served) stillFullLocked(v *blockedSend) bool {
	messages := int64(len(v.batch.Messages))
	if v.dedup || s.q.Settings().Overflow != queue.Block || s.q.CheckEverFits(messages, v.charge) != nil {
		return false
	}
	if _, repeated, err := s.q.Repeat(v.batch.Producer, v.batch.Number); repeated || err != nil {
		return false
	}
	if !s.q.Reserve(messages, v.charge) {
		return true
	}
	s.q.Unreserve(messages, v.charge)
	return false
}
