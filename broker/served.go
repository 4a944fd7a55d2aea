package broker

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/reason"
)

// served is a queue together with those who use it.
//
// Whoever changes the queue under mu calls after before giving mu up: it serves who waits, so that
// whenever mu is free no ready message matches a waiting receiver and no blocked sender at the head of
// the line would fit.
type served struct {
	b    *Broker
	name string
	id   uint64

	temporary bool // it ends with its session, and the journal knows nothing of it; never changes

	// settings is a copy of the queue's, for checks without the lock.
	settings atomic.Pointer[queue.Settings]

	mu      sync.Mutex
	q       *queue.Queue
	deleted bool
	closed  bool // the broker was

	receivers waiters // who waits for messages, first come first served
	consumers map[*Consumer]struct{}
	taps      []*Tap             // who copies what arrives
	blocked   line[*blockedSend] // who waits for room, first come first
	// Bytes of the messages of blocked senders.
	blockedBytes int64
	arrived      chan struct{} // closed when something becomes visible; nil: nobody waits

	bounds                map[string]*bound // how binds fare, by destination
	copied, copiesSkipped uint64            // of all binds that there ever were

	door      Door
	doorHeld  int           // messages leased to the door
	doorHold  int           // above 0 the door gets nothing
	doorWaits chan struct{} // told when the door may find something; nil: it does not wait

	timer *time.Timer // calls expire
	dueAt int64       // monotonic time, ns, for which timer is set; 0: it is not

	revoked uint64 // rises when leases may have ended without their holders' doing

	rates rates

	owner   *quota.Account // whom the queue is charged to
	charged int64          // bytes of it
	paid    bool           // what is about to be stored is charged already

	// The journal. durable never changes: what the queue holds is journaled, not only that it is there.
	durable     bool
	recording   bool          // a queue that is not durable writes its definition
	spill       bool          // the send at hand leaves its payloads to the journal
	keeping     bool          // messages are written again
	frame       *frame        // the records of the operation at hand; nil: none yet
	joined      *served       // whose frame is used instead, while both are locked
	last        Ticket        // of the last frame with records of this queue
	announced   uint64        // highest sequence that was appended for publication
	unpublished []publication // in order
	fetching    bool          // payloads are being read back
	starving    bool          // those in line are served again soon, if there is room on disk then
	baseAt      uint64        // generation in which the queue's definition was last written
	counted     totals        // what of the broker's totals is this queue's
	dirty       bool          // guarded by the broker's dirtyMu

	damaged atomic.Pointer[string] // why it is read-only, if it is

	checks atomic.Pointer[schemaChecks] // what bodies are held against; nil: nothing
}

// newServed returns a queue with a state machine that is new, or was replayed. It counts as its owner's already.
func newServed(b *Broker, q *queue.Queue, name string, id uint64) *served {
	now := b.now()
	s := *q.Settings()
	v := &served{
		b: b, name: name, id: id, q: q,
		consumers: map[*Consumer]struct{}{},
		durable:   b.journal != nil && s.Durability == queue.Journal,
	}
	q.Grow = v.growLocked
	v.announced = q.Last()
	if b.journal != nil {
		q.Emit = func(r *queue.Record) {
			if !v.deleted && !v.temporary && (v.durable || v.recording) { // of a deleted queue nothing must outlive that it was
				v.frameLocked().add(v, r)
			}
		}
		q.Cut = v.flushLocked
	}
	v.settings.Store(&s)
	v.loadChecks()
	v.owner = b.quotas.Account(identity.User(s.OwnerUID))
	v.rates.add(rateSample{at: now.Mono})
	v.timer = time.AfterFunc(time.Hour, v.timerFired)
	v.timer.Stop()
	return v
}

// gone is the error of a queue that was deleted, or of a daemon that stops.
func (s *served) goneLocked() error {
	if s.deleted {
		return reason.New(reason.QueueDeleted, "the queue was deleted").On(s.name)
	}
	if err := s.b.Failure(); err != nil {
		return unhealthy(err)
	}
	if s.b.stopping.Load() {
		return shuttingDown()
	}
	return nil
}

// after completes every change: those who wait are served, what was decided goes to the journal, and the
// timer is set.
func (s *served) afterLocked(now queue.Instant) {
	for {
		s.serveReceiversLocked(now)
		if s.serveBlockedLocked(now) && !s.durable {
			continue
		}
		s.reserveLocked(now)
		s.flushLocked()
		if !s.publishCommittedLocked() {
			break
		}
	}
	s.fetchAsideLocked()
	s.countLocked()
	s.chargeLocked()
	if s.doorWaits != nil && s.doorHold == 0 && s.q.ReadyLen() > 0 {
		close(s.doorWaits)
		s.doorWaits = nil
	}
	if s.q.LeasedLen() == 0 {
		s.b.leasesEnded()
	}
	if s.rates.stale(now) {
		stats := s.q.Counters()
		s.rates.add(sampleOf(now, &stats))
	}
	if s.q.Rescheduled() {
		s.scheduleLocked(now)
	}
}

// publishLocked makes what was sent visible, unless that has to wait for the disk.
func (s *served) publishLocked() {
	if !s.durable {
		s.showLocked(s.q.Last())
	}
}

// showLocked makes what was sent visible up to a sequence, and tells who looks at arrivals.
func (s *served) showLocked(last uint64) {
	first := s.q.Published() + 1
	s.q.Publish(last)
	if len(s.taps) > 0 {
		s.tapLocked(first, last)
	}
	if s.arrived != nil {
		close(s.arrived)
		s.arrived = nil
	}
}

// scheduleLocked sets the timer for what is due next.
func (s *served) scheduleLocked(now queue.Instant) {
	d, ok := s.q.NextDue(now)
	if !ok || s.deleted || s.closed {
		return
	}
	if at := now.Mono + int64(d); s.dueAt == 0 || at < s.dueAt {
		s.dueAt = at
		s.timer.Reset(d)
	}
}

// timerFired runs in a goroutine of the timer's.
func (s *served) timerFired() {
	s.mu.Lock()
	if s.closed || s.deleted {
		s.mu.Unlock()
		return
	}
	s.b.running.Add(1) // closed is set before Close waits
	s.mu.Unlock()
	defer s.b.running.Done()
	s.expire(0)
}

// expireStep is how many messages expire under one hold of the lock.
const expireStep = 1024

// expireRoom is bytes that the journal must have room for before messages may be dead-lettered.
const expireRoom = 16 << 10

// expire does what time has made due, if something was due before the monotonic time given (0: always).
func (s *served) expire(before int64) {
	for more := true; more; {
		dead := s.lockWithDead()
		if s.deleted || s.closed || s.damaged.Load() != nil || s.b.Failure() != nil || before != 0 && (s.dueAt == 0 || s.dueAt > before) {
			s.unlockWithDead(dead)
			return
		}
		now := s.b.now()
		if dead != nil && s.durable && !s.b.journal.Room(expireRoom) {
			// Dead letters are copies. They wait rather than use up what acks need.
			s.dueAt = now.Mono + fullRetry.Nanoseconds()
			s.timer.Reset(fullRetry)
			s.unlockWithDead(dead)
			return
		}
		more = s.q.Expire(now, dead.queue(), expireStep)
		s.revoked++
		w := s.missingLocked() // to be dead-lettered
		more = more || w != nil
		if !more {
			s.dueAt = 0
			s.scheduleLocked(now)
		}
		s.finishWithDeadLocked(dead, now)
		s.unlockWithDead(dead)
		if w != nil {
			s.fetch(w)
		}
	}
}

// overdue reports whether the timer is late, as after the process was stopped.
func (s *served) overdueLocked(now queue.Instant) bool { return s.dueAt != 0 && s.dueAt <= now.Mono }

// lockWithDead takes the queue's lock and that of its dead-letter queue, in the order of their ids. It
// returns that queue, or nil if there is none that may be used.
func (s *served) lockWithDead() *served {
	for {
		s.mu.Lock()
		name := s.q.Settings().DeadLetter
		if name == "" || s.deleted {
			return nil
		}
		s.mu.Unlock()
		s.b.mu.RLock()
		dead := s.b.byName[name]
		s.b.mu.RUnlock()
		if dead == s {
			dead = nil
		}
		first, second := s, dead
		if dead != nil && dead.id < s.id {
			first, second = dead, s
		}
		first.mu.Lock()
		if second != nil {
			second.mu.Lock()
		}
		if s.q.Settings().DeadLetter == name {
			if dead != nil && (dead.deleted || dead.damaged.Load() != nil || s.durable && !dead.durable || !s.b.ownerMaySend(s.q.Settings(), dead)) {
				dead.mu.Unlock()
				dead = nil
			}
			if dead != nil {
				dead.joined = s // what leaves one queue and enters the other is one frame
			}
			return dead
		}
		s.unlockWithDead(dead)
	}
}

func (s *served) unlockWithDead(dead *served) {
	if dead != nil {
		dead.joined = nil
		dead.mu.Unlock()
	}
	s.mu.Unlock()
}

// queue is the state machine, nil for no queue.
func (s *served) queue() *queue.Queue {
	if s == nil {
		return nil
	}
	return s.q
}

// finishWithDeadLocked completes a change that may have sent dead letters.
func (s *served) finishWithDeadLocked(dead *served, now queue.Instant) {
	if dead != nil && dead.q.Last() > dead.announced {
		dead.publishLocked()
		dead.afterLocked(now)
	}
	s.afterLocked(now)
}

// stop ends what waits, and deliveries. The broker is stopping.
func (s *served) stop() {
	s.mu.Lock()
	door := s.door
	s.door = nil
	for c := range s.consumers {
		c.stopLocked() // they can still settle
	}
	s.endTapsLocked(shuttingDown())
	s.endWaitersLocked(shuttingDown())
	s.mu.Unlock()
	if door != nil {
		door.Close(s.b.journal == nil) // with a journal the queue comes back, and native programs may wait for it
	}
	s.mu.Lock()
	s.afterLocked(s.b.now())
	s.mu.Unlock()
}

// endWaitersLocked answers everybody who waits with an error.
func (s *served) endWaitersLocked(err error) {
	s.receivers.each(func(n *waiting[*receiver]) {
		s.receivers.remove(n)
		n.value.fail(s, err)
	})
	for n := s.blocked.first(); n != nil; n = s.blocked.first() {
		s.unblockLocked(n)
		n.value.end(queue.Stored{}, err)
	}
	if s.arrived != nil {
		close(s.arrived)
		s.arrived = nil
	}
	if s.doorWaits != nil {
		close(s.doorWaits)
		s.doorWaits = nil
	}
}

// recall takes back what the door holds, and keeps it from filling again until the returned function
// is called. The lock is not held.
func (s *served) recall(ctx context.Context) (resume func()) {
	s.mu.Lock()
	door, held := s.door, s.doorHeld
	if door != nil {
		s.doorHold++
	}
	s.mu.Unlock()
	if door == nil {
		return func() {}
	}
	if held > 0 {
		_ = door.Recall(ctx) // what it could not take back stays leased
	}
	return func() {
		s.mu.Lock()
		s.doorHold--
		s.afterLocked(s.b.now())
		s.mu.Unlock()
	}
}

// line is a queue of those who wait: a doubly linked list, so that leaving it is cheap.
type line[T any] struct {
	head, tail *waiting[T]
	len        int
}

type waiting[T any] struct {
	value      T
	next, prev *waiting[T]
	in         bool
	ticket     uint64 // where several lines make one order
}

func (l *line[T]) first() *waiting[T] { return l.head }

func (l *line[T]) push(n *waiting[T]) {
	n.prev, n.next, n.in = l.tail, nil, true
	if l.tail != nil {
		l.tail.next = n
	} else {
		l.head = n
	}
	l.tail = n
	l.len++
}

func (l *line[T]) remove(n *waiting[T]) {
	if !n.in {
		return
	}
	if n.prev != nil {
		n.prev.next = n.next
	} else {
		l.head = n.next
	}
	if n.next != nil {
		n.next.prev = n.prev
	} else {
		l.tail = n.prev
	}
	n.next, n.prev, n.in = nil, nil, false
	l.len--
}
