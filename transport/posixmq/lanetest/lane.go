// Package lanetest stands in for a broker's queue, so that doors can be tested without one.
package lanetest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/reason"
)

// patience is how long a test waits for what must come, before it fails.
const patience = 15 * time.Second

// State is where a message stands.
type State int

// The states.
const (
	Ready State = iota
	Leased
	Consumed
)

// Entry is a message in a Lane.
type Entry struct {
	queue.Message
	Sequence uint64
	State    State
	delivery uint32
	passed   bool // over, for its size
}

// Lane is a queue in memory that keeps to the letter of broker.DoorQueue and notes every use of it that
// breaks that letter. Its zero value has no room: use New.
type Lane struct {
	mu          sync.Mutex
	changed     chan struct{} // closed and replaced at every change
	maxMessages int
	maxBytes    int64
	maxSize     int // bytes of a body
	entries     []*Entry
	messages    int // held or reserved
	bytes       int64
	line        []int // of those who wait for room: first come, first served
	nextInLine  int
	paused      bool
	wanted      bool // by another receiver
	deleted     bool
	waiting     int // Lease calls
	wrongs      []string
}

// New returns an empty Lane with room for so many messages and bytes, each of at most maxSize bytes.
func New(maxMessages int, maxBytes int64, maxSize int) *Lane {
	return &Lane{changed: make(chan struct{}), maxMessages: maxMessages, maxBytes: maxBytes, maxSize: maxSize}
}

func (l *Lane) changeLocked() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *Lane) wrongLocked(format string, args ...any) {
	l.wrongs = append(l.wrongs, fmt.Sprintf(format, args...))
}

// await waits until ready is true; it is called with mu held and returns so.
func (l *Lane) await(ctx context.Context, ready func() bool) error {
	for {
		if l.deleted {
			return reason.New(reason.QueueDeleted, "the queue was deleted")
		}
		if ready() {
			return nil
		}
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
			l.mu.Lock()
		case <-ctx.Done():
			l.mu.Lock()
			return ctx.Err()
		}
	}
}

// Reserve implements broker.DoorQueue.
func (l *Lane) Reserve(ctx context.Context, messages int, bytes int64) (broker.Reservation, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if messages <= 0 || bytes < 0 {
		l.wrongLocked("Reserve of %d messages, %d bytes", messages, bytes)
	}
	if messages > l.maxMessages || bytes > l.maxBytes {
		return nil, reason.New(reason.QueueFull, "%d messages of %d bytes never fit", messages, bytes)
	}
	number := l.nextInLine
	l.nextInLine++
	l.line = append(l.line, number)
	l.changeLocked()
	defer func() {
		l.line = slices.DeleteFunc(l.line, func(n int) bool { return n == number })
		l.changeLocked()
	}()
	err := l.await(ctx, func() bool {
		return l.line[0] == number && l.messages+messages <= l.maxMessages && l.bytes+bytes <= l.maxBytes
	})
	if err != nil {
		return nil, err
	}
	l.messages += messages
	l.bytes += bytes
	return &reservation{lane: l, messages: messages, bytes: bytes}, nil
}

type reservation struct {
	lane     *Lane
	messages int
	bytes    int64
}

func (r *reservation) Send(messages []queue.Message) (refused int, err error) {
	l := r.lane
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.changeLocked()
	if l.deleted {
		return 0, reason.New(reason.QueueDeleted, "the queue was deleted")
	}
	for _, m := range messages {
		if len(m.Body) > l.maxSize || m.Type <= 0 {
			refused++
			err = cmp.Or(err, error(reason.New(reason.MessageTooLarge, "%d bytes, type %d", len(m.Body), m.Type)))
			continue
		}
		r.messages--
		r.bytes -= int64(m.Bytes())
		if r.messages < 0 || r.bytes < 0 {
			l.wrongLocked("Send of more than was reserved")
		}
		m.Body = slices.Clone(m.Body)
		l.entries = append(l.entries, &Entry{Message: m, Sequence: uint64(len(l.entries) + 1)})
	}
	return refused, err
}

func (r *reservation) Release() {
	l := r.lane
	l.mu.Lock()
	defer l.mu.Unlock()
	l.messages -= r.messages
	l.bytes -= r.bytes
	r.messages, r.bytes = 0, 0
	l.changeLocked()
}

// Lease implements broker.DoorQueue.
func (l *Lane) Lease(ctx context.Context, selector queue.Selector, most, maxBody int) (deliveries []queue.Delivery, skipped int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if most <= 0 {
		l.wrongLocked("Lease of %d messages", most)
	}
	l.waiting++
	l.changeLocked()
	defer func() { l.waiting--; l.changeLocked() }()
	var chosen []*Entry
	err = l.await(ctx, func() bool {
		if l.paused || l.wanted {
			return false
		}
		chosen = chosen[:0]
		for _, e := range l.entries {
			if e.State != Ready || !selector.Matches(e.Type) {
				continue
			}
			if len(e.Body) > maxBody {
				if !e.passed {
					e.passed = true
					skipped++
				}
				continue
			}
			chosen = append(chosen, e)
		}
		return len(chosen)+skipped > 0
	})
	if err != nil {
		return nil, skipped, err
	}
	slices.SortStableFunc(chosen, func(a, b *Entry) int { return int(b.Priority) - int(a.Priority) })
	for _, e := range chosen[:min(most, len(chosen))] {
		e.State = Leased
		e.delivery++
		deliveries = append(deliveries, queue.Delivery{Message: e.Message, Sequence: e.Sequence, Receipt: queue.Receipt{Sequence: e.Sequence, Delivery: e.delivery}})
	}
	return deliveries, skipped, nil
}

// Settle implements broker.DoorQueue.
func (l *Lane) Settle(consumed, released []queue.Receipt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, r := range slices.Concat(consumed, released) {
		e := l.entries[r.Sequence-1]
		if e.State != Leased || e.delivery != r.Delivery {
			l.wrongLocked("a stale receipt for message %d", r.Sequence)
			continue
		}
		e.State = Ready
		if i < len(consumed) {
			e.State = Consumed
			l.messages--
			l.bytes -= int64(e.Bytes())
		}
	}
	l.changeLocked()
}

// Put sends a message past the doors and returns its sequence.
func (l *Lane) Put(m queue.Message) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m.Type == 0 {
		m.Type = 1
	}
	l.messages++
	l.bytes += int64(m.Bytes())
	e := &Entry{Message: m, Sequence: uint64(len(l.entries) + 1)}
	l.entries = append(l.entries, e)
	l.changeLocked()
	return e.Sequence
}

// Consume takes the first ready message past the doors; ok is false if there is none.
func (l *Lane) Consume() (m queue.Message, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.entries {
		if e.State == Ready {
			e.State = Consumed
			l.messages--
			l.bytes -= int64(e.Bytes())
			l.changeLocked()
			return e.Message, true
		}
	}
	return m, false
}

// Pause stops Lease, or lets it go on.
func (l *Lane) Pause(paused bool) { l.change(func() { l.paused = paused }) }

// Want says whether another receiver wants messages.
func (l *Lane) Want(wanted bool) { l.change(func() { l.wanted = wanted }) }

// Delete deletes the queue.
func (l *Lane) Delete() { l.change(func() { l.deleted = true }) }

func (l *Lane) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	l.changeLocked()
}

// Entries returns copies of all that was ever in the queue, by sequence.
func (l *Lane) Entries() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]Entry, len(l.entries))
	for i, e := range l.entries {
		all[i] = *e
	}
	return all
}

// Count returns how many messages are in the state.
func (l *Lane) Count(s State) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.countLocked(s)
}

func (l *Lane) countLocked(s State) (n int) {
	for _, e := range l.entries {
		if e.State == s {
			n++
		}
	}
	return n
}

// AwaitCount waits until so many messages are in the state.
func (l *Lane) AwaitCount(t testing.TB, s State, n int) {
	t.Helper()
	l.awaitTest(t, fmt.Sprintf("%d messages in state %d", n, s), func() bool { return l.countLocked(s) == n })
}

// AwaitAtMost waits until no more than so many messages are in the state.
func (l *Lane) AwaitAtMost(t testing.TB, s State, n int) {
	t.Helper()
	l.awaitTest(t, fmt.Sprintf("at most %d messages in state %d", n, s), func() bool { return l.countLocked(s) <= n })
}

// AwaitReserveWaiting waits until somebody stands in line for room.
func (l *Lane) AwaitReserveWaiting(t testing.TB) {
	t.Helper()
	l.awaitTest(t, "somebody in line for room", func() bool { return len(l.line) > 0 })
}

// AwaitLeaseWaiting waits until a Lease call is under way.
func (l *Lane) AwaitLeaseWaiting(t testing.TB) {
	t.Helper()
	l.awaitTest(t, "a Lease call", func() bool { return l.waiting > 0 })
}

func (l *Lane) awaitTest(t testing.TB, what string, ready func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.await(ctx, ready); err != nil {
		t.Fatalf("waited in vain for %s: %v; ready %d, leased %d, consumed %d", what, err, l.countLocked(Ready), l.countLocked(Leased), l.countLocked(Consumed))
	}
}

// Check fails the test if the Lane was used in any way that its contract does not allow, or if its
// account does not add up.
func (l *Lane) Check(t testing.TB) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range l.wrongs {
		t.Errorf("the door broke its contract: %s", w)
	}
	messages, bytes := 0, int64(0)
	for _, e := range l.entries {
		if e.State != Consumed {
			messages++
			bytes += int64(e.Bytes())
		}
	}
	if messages != l.messages || bytes != l.bytes {
		t.Errorf("room for %d messages, %d bytes is taken; %d messages, %d bytes are there", l.messages, l.bytes, messages, bytes)
	}
}
