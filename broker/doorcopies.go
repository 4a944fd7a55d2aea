package broker

import (
	"cmp"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/reason"
)

// What comes through a kernel door can not be refused any more: its sender was told nothing and is gone. So room is kept
// beforehand in every queue that must have copies, as in the queue itself, and native senders wait while one is full.
// What can not be copied all the same, since binds were made meanwhile, or a message is too large, is counted as skipped.

// reserveCopies keeps room for the same messages in the queues that must have copies. It reports false, and keeps nothing, if
// one of them has none now; the error is of one that never will.
func (r *reservation) reserveCopies() (kept bool, err error) {
	for _, to := range r.s.mustCopy() {
		c := &reservation{s: to, messages: r.messages, bytes: r.bytes}
		to.mu.Lock()
		switch {
		case to.deleted || to.damaged.Load() != nil: // nothing can be kept there
			to.mu.Unlock()
			continue
		case to.blocked.len == 0:
			if err = to.q.CheckEverFits(c.messages, c.bytes); err == nil {
				kept = to.keepRoomLocked(c.messages, c.bytes)
			}
		}
		to.mu.Unlock()
		if err != nil || !kept {
			return false, named(err, to.name)
		}
		r.copies = append(r.copies, c)
	}
	return true, nil
}

// mustCopy are the queues to which a bind leads that refuses what they can not take.
func (s *served) mustCopy() (all []*served) {
	if len(s.settings.Load().Binds) == 0 {
		return nil
	}
	s.b.mu.RLock()
	defer s.b.mu.RUnlock()
	seen, must := map[*served]bool{}, map[*served]bool{}
	var walk func(from *served)
	walk = func(from *served) {
		for _, bind := range from.settings.Load().Binds {
			to := s.b.byName[bind.To]
			if to == nil {
				continue
			}
			if !bind.Skip && !must[to] {
				must[to] = true
				all = append(all, to)
			}
			if !seen[to] {
				seen[to] = true
				walk(to)
			}
		}
	}
	walk(s)
	return all
}

// submitCopied is submit to a queue that hands copies on.
func (r *reservation) submitCopied(messages []queue.Message) (refused int, ticket Ticket, err error) {
	f := newFlow(r.s.b, true)
	f.taken = true
	p := &part{s: r.s, kept: true}
	f.add(p, 0, messages)
	p.batch.Reserved = true
	if err := f.plan(map[uint64]*part{r.s.id: p}); err != nil {
		return len(messages), 0, err
	}
	if n, bytes, _ := f.size(); r.s.b.journal != nil && !r.s.b.fitsFrame(n, bytes) {
		if half := len(messages) / 2; half > 0 {
			n, before, err := r.submitCopied(messages[:half])
			m, ticket, nextErr := r.submitCopied(messages[half:])
			return n + m, max(before, ticket), cmp.Or(err, nextErr)
		}
		f.alone = reason.New(reason.MessageTooLarge, "all copies together must fit a segment of the journal, which takes %d bytes: raise segment_size", r.s.b.maxFrame)
	}
	f.lock()
	if !f.current() {
		f.unlock()
		return r.submitCopied(messages)
	}
	if r.s.deleted {
		err := r.s.goneLocked()
		return len(messages), f.unlock(), err
	}
	f.front = true
	used := r.useLocked(f)
	now := f.b.now()
	if _, err := f.checkAllLocked(now); err != nil {
		r.undoLocked(used)
		f.dischargeLocked()
		ticket = f.unlock()
		if len(messages) == 1 {
			return 1, ticket, err
		}
		// One of them is not acceptable: the others are.
		for i := range messages {
			n, t, oneErr := r.submitCopied(messages[i : i+1])
			refused, ticket = refused+n, max(ticket, t)
			if err == nil {
				err = oneErr
			}
		}
		return refused, ticket, err
	}
	_, _, err = f.storeAllLocked(now, p)
	f.doneLocked(now)
	return 0, f.unlock(), err
}

// useLocked gives back the room that all of a flow's messages need, and tells where and how much that was.
func (r *reservation) useLocked(f *flow) (used []*reservation) {
	for _, c := range append([]*reservation{r}, r.copies...) {
		for _, p := range f.order {
			if p.s != c.s {
				continue
			}
			before := reservation{s: c.s, messages: c.messages, bytes: c.bytes}
			if c == r {
				c.take(p.batch.Messages)
			} else {
				c.take(p.mayTake(f))
			}
			p.kept = true
			before.messages -= c.messages
			before.bytes -= c.bytes
			used = append(used, &before)
		}
	}
	return used
}

// undoLocked keeps again what useLocked gave back: nobody else can have had it.
func (r *reservation) undoLocked(used []*reservation) {
	for _, c := range append([]*reservation{r}, r.copies...) {
		for _, u := range used {
			if u.s == c.s && c.s.q.Reserve(u.messages, u.bytes) {
				c.messages += u.messages
				c.bytes += u.bytes
			}
		}
	}
}

// mayTake are the messages that the part may get as copies.
func (p *part) mayTake(f *flow) []queue.Message {
	all := make([]queue.Message, len(p.copies))
	for i, g := range p.copies {
		all[i] = *f.messages[g]
	}
	return all
}
