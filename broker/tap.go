package broker

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/reason"
)

// Tap is a stream of copies of what arrives in a queue. Next and Close may be called concurrently.
//
// Copies are made when messages become visible, and wait in a bounded buffer. What finds no room there is skipped and counted,
// in its place among the copies: nobody ever waits for the reader of a tap.
type Tap struct {
	s       *served
	id      identity.Identity
	account *tapAccount
	wake    chan struct{} // told when Next has something to look at

	// Guarded by the queue's mu.
	copier *queue.Copier
	parts  []Tapped // that wait; all but the first begin with skipped messages
	count  int      // messages in them
	bytes  int      // of these
	closed bool
	err    error // why it ended

	work time.Duration // of what Next handed out last; its caller's
}

// Tap opens a Tap. See transport.Broker.
func (b *Broker) Tap(ctx context.Context, id identity.Identity, r TapRequest) (*Tap, error) {
	if err := b.adminTurn(ctx, id, callWork); err != nil {
		return nil, err
	}
	s, err := b.find(id, r.Queue, access.Look)
	if err != nil {
		return nil, err
	}
	if r.Filter.Selector, err = r.Filter.Selector.Check(); err != nil {
		return nil, on(s, err)
	}
	if r.MaxBody < 0 {
		return nil, reason.Invalid("max_body_bytes", "max_body_bytes %d: it must be 0 (whole) or more", r.MaxBody).On(s.name)
	}
	t := &Tap{s: s, id: id, wake: make(chan struct{}, 1), copier: queue.NewCopier(r.Filter, r.MaxBody)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.mayLocked(id, access.Look); err != nil {
		return nil, err
	}
	if len(s.taps) >= limits.Taps {
		return nil, reason.New(reason.QuotaExceeded, "the queue has %d taps, all that it may: end one", limits.Taps).On(s.name)
	}
	if err := b.quotas.Take(id.Principal(), quota.Receivers, 1); err != nil {
		return nil, on(s, err)
	}
	t.account = b.tapped.open(id.Principal())
	s.taps = append(s.taps, t)
	return t, nil
}

// tapLocked copies what became visible, the sequences first to last, to whom it concerns.
func (s *served) tapLocked(first, last uint64) {
	now := s.b.now()
	for _, t := range s.taps {
		if t.err == nil {
			t.copyLocked(now, first, last)
		}
	}
}

func (t *Tap) copyLocked(now queue.Instant, first, last uint64) {
	for seq := first; seq <= last; seq++ {
		room := -1
		if t.count < limits.TapMessages {
			room = min(limits.TapBytes-t.bytes, t.account.room()) - tapMessage
		}
		m, meant, copied := t.copier.Copy(t.s.q, seq, now, room, int(last-seq+1))
		switch {
		case copied && t.account.take(tapBytes(&m)):
			t.keepLocked(m)
		case meant:
			t.skipLocked()
		}
	}
	if len(t.parts) > 0 {
		t.wakeLocked()
	}
}

func (t *Tap) keepLocked(m queue.Peeked) {
	if len(t.parts) == 0 {
		t.parts = append(t.parts, Tapped{})
	}
	part := &t.parts[len(t.parts)-1]
	part.Messages = append(part.Messages, m)
	t.count++
	t.bytes += tapBytes(&m)
}

// What a copy takes in memory beside its bytes, and each of its headers, about.
const (
	tapMessage = 512
	tapHeader  = 48
)

// tapBytes is what a copy takes in memory.
func tapBytes(m *queue.Peeked) int { return m.Bytes() + tapMessage + tapHeader*len(m.Headers) }

func (t *Tap) skipLocked() {
	if n := len(t.parts); n == 0 || len(t.parts[n-1].Messages) > 0 {
		t.parts = append(t.parts, Tapped{})
	}
	t.parts[len(t.parts)-1].Skipped++
}

func (t *Tap) wakeLocked() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// endTapsLocked ends all taps: the queue was deleted, or the daemon stops. What they copied is still handed out.
func (s *served) endTapsLocked(err error) {
	for _, t := range s.taps {
		if t.err == nil {
			t.err = err
		}
		t.wakeLocked()
	}
}

// withdrawLocked ends a tap whose caller may not look any more, not even at what was copied.
func (t *Tap) withdrawLocked(err error) {
	t.err = err
	t.dropLocked()
	t.wakeLocked()
}

// dropLocked forgets what waits.
func (t *Tap) dropLocked() {
	t.account.give(t.bytes)
	t.parts, t.count, t.bytes = nil, 0, 0
}

// Next waits for copies. See transport.Tap.
func (t *Tap) Next(ctx context.Context) (Tapped, error) {
	b := t.s.b
	if err := b.adminTurn(ctx, t.id, callWork+t.work); err != nil {
		return Tapped{}, err
	}
	for {
		if out, ok, err := t.take(); ok || err != nil {
			t.work = 0
			for i := range out.Messages {
				t.work += messageWork + time.Duration(out.Messages[i].Bytes())*byteWork
			}
			return out, err
		}
		select {
		case <-t.wake:
		case <-ctx.Done():
			return Tapped{}, ctx.Err()
		}
	}
}

// take returns the first of what waits, if anything does, or why nothing will.
func (t *Tap) take() (out Tapped, ok bool, err error) {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	if len(t.parts) == 0 {
		return Tapped{}, false, t.err
	}
	out, t.parts[0] = t.parts[0], Tapped{}
	if t.parts = t.parts[1:]; len(t.parts) == 0 {
		t.dropLocked()
		return out, true, nil
	}
	bytes := 0
	for i := range out.Messages {
		bytes += tapBytes(&out.Messages[i])
	}
	t.count -= len(out.Messages)
	t.bytes -= bytes
	t.account.give(bytes)
	return out, true, nil
}

// Close ends the tap.
func (t *Tap) Close() {
	s := t.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.closed {
		return
	}
	t.closed = true
	if t.err == nil {
		t.err = context.Canceled
	}
	t.dropLocked()
	s.taps = slices.DeleteFunc(s.taps, func(other *Tap) bool { return other == t })
	s.b.quotas.Give(t.id.Principal(), quota.Receivers, 1)
	s.b.tapped.close(t.account)
	t.wakeLocked()
}

// tapAccounts is how much waits in the taps of each identity: one that opens many and reads none must not use up the memory.
type tapAccounts struct {
	mu  sync.Mutex // taken after a queue's lock
	all map[identity.Principal]*tapAccount
}

type tapAccount struct {
	who   identity.Principal
	taps  int // guarded by tapAccounts.mu
	bytes atomic.Int64
}

func (a *tapAccounts) open(p identity.Principal) *tapAccount {
	a.mu.Lock()
	defer a.mu.Unlock()
	account := a.all[p]
	if account == nil {
		account = &tapAccount{who: p}
		if a.all == nil {
			a.all = map[identity.Principal]*tapAccount{}
		}
		a.all[p] = account
	}
	account.taps++
	return account
}

func (a *tapAccounts) close(account *tapAccount) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if account.taps--; account.taps == 0 {
		delete(a.all, account.who)
	}
}

// room is bytes that there may be room for. It saves making copies that have none.
func (a *tapAccount) room() int { return int(limits.TapBytesOfOne - a.bytes.Load()) }

// take takes room, if there is so much.
func (a *tapAccount) take(bytes int) bool {
	if a.bytes.Add(int64(bytes)) > limits.TapBytesOfOne {
		a.give(bytes)
		return false
	}
	return true
}

func (a *tapAccount) give(bytes int) { a.bytes.Add(int64(-bytes)) }
