package broker

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

// flow is the messages of one operation, the queues that they are sent to, and those that get copies by binds:
//
//	a send to /a     /a ──► /b ──► /d      /d gets one copy, whichever way.
//	                  └───► /c ───┘
//
// It is planned without locks. Once those of all its queues are held, current tells whether the plan still holds; check
// decides who gets what, and changes nothing; do stores it, as one frame.
type flow struct {
	b        *Broker
	version  uint64
	parts    []*part          // by id, as they are locked
	order    []*part          // those that get messages, each before those that get copies of it
	messages []*queue.Message // of all sends
	sendOf   []int            // which send each of them is of
	copies   bool             // there are binds
	taken    bool             // the messages were taken from a kernel queue: no bind can refuse them any more
	lean     error            // why copies are left out that queues may go without
	alone    error            // why there can be no copies at all
	front    bool             // whoever sends is the first in line for room
	single   bool             // it is one send: an error's index is that of a message, not that of a send
}

// part is what an operation does with one queue.
type part struct {
	s     *served
	sends []int // places in the request
	acks  []int
	batch queue.Batch // what is sent to it, and then copies that it must have
	own   int         // how many of the batch are sent to it
	// What the acks free.
	freedMessages, freedBytes int64
	stored                    queue.Stored

	ways       []copyWay   // by which copies come
	copies     []int       // messages of the flow that may come by them
	takes      []int       // which messages of the flow the batch is
	spare      queue.Batch // copies that it may go without
	spareTakes []int       // which messages of the flow those are
	left       []leftOut   // copies that it goes without
	kept       bool        // room for all that comes was kept, and charged
	has        []bool      // by message of the flow, whether it is stored here; nil if there are no binds
	visited    bool
	marked     []bool // by message of the flow: it is among copies

	invalid error         // what the queue's schema has against what is sent to it
	unfit   map[int]error // and against copies, by message of the flow
}

// copyWay is a bind and the queue that has it.
type copyWay struct {
	from  *part
	bind  *queue.Bind
	bound *bound // once it was looked at
	why   error  // nothing may come
}

// leftOut is a copy that a queue goes without.
type leftOut struct {
	by  *bound
	why error
}

// newFlow plans a flow without messages yet.
func newFlow(b *Broker, single bool) *flow { return &flow{b: b, single: single} }

// add notes that messages are sent to a queue, the i-th send of the operation.
func (f *flow) add(p *part, i int, messages []queue.Message) {
	p.sends = append(p.sends, i)
	for m := range messages {
		p.takes = append(p.takes, len(f.messages))
		f.messages = append(f.messages, &messages[m])
		f.sendOf = append(f.sendOf, i)
	}
	p.batch.Messages = append(p.batch.Messages, messages...)
	p.own = len(p.batch.Messages)
}

// plan finds the queues that get copies, and puts all parts into their orders.
func (f *flow) plan(byID map[uint64]*part) error {
	f.version = f.b.bindsVersion.Load()
	for _, p := range byID {
		if p.own == 0 {
			p.batch.Producer = "" // copies that it may get are nobody's batch
		}
		f.copies = f.copies || p.own > 0 && len(p.s.settings.Load().Binds) > 0
	}
	if f.copies {
		if err := f.follow(byID); err != nil {
			return err
		}
	}
	f.parts = slices.SortedFunc(maps.Values(byID), func(a, b *part) int { return cmp.Compare(a.s.id, b.s.id) })
	if !f.copies {
		f.order = f.parts
	}
	if len(f.parts) > limits.BindTargets && f.copies {
		return reason.New(reason.QuotaExceeded, "binds lead to %d queues: one operation may concern %d", len(f.parts), limits.BindTargets)
	}
	f.checkBodies()
	return nil
}

// follow adds the queues that get copies.
func (f *flow) follow(byID map[uint64]*part) error {
	f.b.mu.RLock()
	defer f.b.mu.RUnlock()
	// Each queue comes after all that it may hand on to; then the other way round.
	var visit func(p *part)
	reach := map[*served]*part{}
	visit = func(p *part) {
		p.visited = true
		reach[p.s] = p
		binds := p.s.settings.Load().Binds
		for i := range binds {
			to := f.b.byName[binds[i].To]
			if to == nil {
				continue
			}
			next := byID[to.id]
			if next == nil {
				next = reach[to]
			}
			if next == nil {
				next = &part{s: to}
			}
			if !next.visited {
				visit(next)
			}
			next.ways = append(next.ways, copyWay{from: p, bind: &binds[i]})
		}
		f.order = append(f.order, p)
	}
	for _, id := range slices.Sorted(maps.Keys(byID)) {
		if p := byID[id]; p.own > 0 && !p.visited {
			visit(p)
		}
	}
	slices.Reverse(f.order)
	// Only those to which something comes are locked.
	kept, looks := f.order[:0], 0
	for _, p := range f.order {
		for _, w := range p.ways {
			if looks += w.from.own + len(w.from.copies); looks > limits.BindLooks {
				return reason.New(reason.MessageTooLarge, "%d messages, which binds hand on to many queues: a send may have %d times a bind that may hand on one of its messages; send fewer at once", len(f.messages), limits.BindLooks)
			}
			w.from.eachStored(func(g int) {
				if w.bind.Selector.Matches(f.messages[g].Type) {
					if p.marked == nil {
						p.marked = make([]bool, len(f.messages))
					}
					p.marked[g] = true
				}
			})
		}
		for g, marked := range p.marked {
			if marked {
				p.copies = append(p.copies, g)
			}
		}
		if p.own > 0 || len(p.copies) > 0 {
			kept = append(kept, p)
			byID[p.s.id] = p
		}
	}
	f.order = kept
	return nil
}

// eachStored visits the messages that may be stored in the part's queue.
func (p *part) eachStored(visit func(g int)) {
	for _, g := range p.takes[:p.own] {
		visit(g)
	}
	for _, g := range p.copies {
		visit(g)
	}
}

// current reports whether the plan still holds. The locks of all parts are held, and binds change under that of their queue.
func (f *flow) current() bool {
	if !f.copies {
		return !slices.ContainsFunc(f.order, func(p *part) bool { return p.own > 0 && len(p.s.q.Settings().Binds) > 0 })
	}
	return f.version == f.b.bindsVersion.Load()
}

// admit sees to it that there is room for all that may be stored, beside so many acks.
func (f *flow) admit(ctx context.Context, acks int) error {
	to := f.order[0].s // the others are as durable as it is, or more
	for _, p := range f.order {
		if p.s.durable {
			to = p.s
		}
	}
	messages, bytes, all := f.size()
	if f.copies && f.b.journal != nil && !f.b.fitsFrame(messages+acks, bytes) {
		f.lean = reason.New(reason.MessageTooLarge, "with all copies the send takes %d bytes: it must fit a segment of the journal, which takes %d; send fewer at once, or raise segment_size", bytes, f.b.maxFrame)
		messages, bytes, all = f.size()
	}
	if err := f.b.admitMemory(all); err != nil {
		return err
	}
	if f.copies && f.b.journal != nil && !f.b.fitsFrame(messages+acks, bytes) {
		return reason.New(reason.MessageTooLarge, "%d messages and the copies that binds make of them, %d in all, take %d bytes together: they must fit a segment of the journal, which takes %d; send fewer at once, or raise segment_size",
			len(f.messages), messages, bytes, f.b.maxFrame)
	}
	return f.b.admit(ctx, to, messages+acks, bytes)
}

// size is how many messages of how many bytes may come to durable queues, and the bytes of those for all queues.
func (f *flow) size() (messages int, bytes, all int64) {
	for _, p := range f.order {
		if f.lean != nil && !p.must() {
			continue
		}
		p.eachStored(func(g int) {
			n := recordBytes(f.messages[g])
			if all += n; p.s.durable {
				messages++
				bytes += n
			}
		})
	}
	return messages, bytes, all
}

// must reports whether a bind leads here that refuses what can not be copied, or messages are sent to this very queue.
func (p *part) must() bool {
	return p.own > 0 || slices.ContainsFunc(p.ways, func(w copyWay) bool { return !w.bind.Skip })
}

// lock takes the locks of all parts.
func (f *flow) lock() {
	for i, p := range f.parts {
		p.s.mu.Lock()
		if i > 0 {
			p.s.joined = f.parts[0].s // all records are one frame
		}
	}
}

// unlock gives them back. The ticket stands for all that was done.
func (f *flow) unlock() (ticket Ticket) {
	for _, p := range f.parts {
		ticket = max(ticket, p.s.last)
	}
	for _, p := range slices.Backward(f.parts) {
		p.s.joined = nil
		p.s.mu.Unlock()
	}
	return ticket
}

// copyWork is the work of all copies: see fair.
func (f *flow) copyWork() (work time.Duration) {
	for _, p := range f.order {
		for _, g := range p.copies {
			work += messageWork + time.Duration(f.messages[g].Bytes())*byteWork
		}
	}
	return work
}
