package broker

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/quota"
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

// checkAllLocked decides what all parts store. An error says what is in the way, and is of the part returned.
func (f *flow) checkAllLocked(now queue.Instant) (*part, error) {
	for _, p := range f.order {
		if err := f.checkLocked(now, p); err != nil {
			return p, err
		}
	}
	return nil, nil
}

// checkLocked decides what a part stores, those before it in order being decided. Its error says what is in the way.
func (f *flow) checkLocked(now queue.Instant, p *part) error {
	if p.invalid != nil {
		return p.invalid
	}
	if f.copies {
		p.has = make([]bool, len(f.messages))
	}
	p.batch.Messages, p.takes, p.left = p.batch.Messages[:p.own], p.takes[:p.own], nil
	var spare []int
	for _, g := range p.copies {
		must, by, why := f.wanted(p, g)
		if why == nil {
			why = p.unfit[g]
		}
		switch {
		case by == nil: // nothing comes
		case !must && why != nil:
			p.left = append(p.left, leftOut{by, why})
		case why != nil && !f.taken:
			return f.refusal(p, g, why)
		case why != nil:
			p.left = append(p.left, leftOut{by, why})
		case must && !f.taken:
			p.takes = append(p.takes, g)
			p.batch.Messages = append(p.batch.Messages, *f.messages[g])
		default:
			spare = append(spare, g)
		}
	}
	if len(p.takes) > 0 {
		var err error
		if p.own == 0 || !f.front {
			err = p.s.inLine()
		}
		var duplicates []queue.Duplicate
		if err == nil {
			duplicates, err = p.s.q.CheckSend(now, p.batch, p.freedMessages, p.freedBytes)
		}
		if err != nil {
			return f.inTheWay(p, err)
		}
		p.gets(p.takes, duplicates)
	}
	if p.spare.Messages, p.spareTakes = p.spare.Messages[:0], nil; len(spare) > 0 {
		f.fit(now, p, spare)
	}
	return nil
}

// gets notes what the part stores: a duplicate is there already, and not handed on again.
func (p *part) gets(all []int, duplicates []queue.Duplicate) {
	if p.has == nil {
		return
	}
	for _, g := range all {
		p.has[g] = true
	}
	for _, d := range duplicates {
		p.has[all[d.Index]] = false
	}
}

// wanted tells by which bind a copy comes, if any, whether the part must have it, and what is in the way.
func (f *flow) wanted(p *part, g int) (must bool, by *bound, why error) {
	for i := range p.ways {
		w := &p.ways[i]
		if !w.from.stores(g) || !w.bind.Selector.Matches(f.messages[g].Type) {
			continue
		}
		w.lookLocked(p.s)
		if f.alone != nil {
			return false, w.bound, f.alone
		}
		switch {
		case !w.bind.Skip && w.why != nil:
			return true, w.bound, w.why
		case !w.bind.Skip:
			must, by, why = true, w.bound, nil
		case by == nil || !must && why != nil && w.why == nil:
			by, why = w.bound, w.why
		}
	}
	return must, by, why
}

// stores reports whether a message is stored here, as far as was decided.
func (p *part) stores(g int) bool { return p.has != nil && p.has[g] }

// lookLocked finds out, once, whether something may come this way.
func (w *copyWay) lookLocked(to *served) {
	from := w.from.s
	if w.bound != nil {
		return
	}
	w.bound = from.boundLocked(w.bind.To)
	switch {
	case to.damaged.Load() != nil:
		w.why = damagedError(to)
	case from.durable && !to.durable:
		w.why = reason.New(reason.DurabilityMismatch, "it is kept in memory, and %s in the journal", from.name).On(to.name)
	case !from.b.ownerMaySend(from.q.Settings(), to):
		w.why = reason.New(reason.AccessDenied, "the owner of %s may not send to it: unbind it, or change its mode, owner or group", from.name).On(to.name)
	}
}

// fit chooses copies that the part may go without: those from the first on for which there is room.
func (f *flow) fit(now queue.Instant, p *part, all []int) {
	var why error
	if !p.kept {
		why = p.s.inLine()
	}
	if why == nil {
		largest := p.s.q.Settings().MaxMessageSize
		all = slices.DeleteFunc(all, func(g int) bool {
			size := len(f.messages[g].Body)
			if size > largest {
				f.skip(p, g, reason.New(reason.MessageTooLarge, "a body of %d bytes: it takes at most %d", size, largest).On(p.s.name))
			}
			return size > largest
		})
		if why = f.trySpare(now, p, all); why != nil {
			n := sort.Search(len(all), func(n int) bool {
				charged := p.s.charged
				err := f.trySpare(now, p, all[:n+1])
				p.s.owner.Add(quota.QueuedBytes, charged-p.s.charged)
				p.s.charged = charged
				return err != nil
			})
			if reason.Of(why) == reason.QueueFull { // what it says is about all of them together
				why = reason.New(reason.QueueFull, "there was room for %d of %d copies: receive from it, or raise its limits", n, len(all)).On(p.s.name)
			}
			for _, g := range all[n:] {
				f.skip(p, g, why)
			}
			all = all[:n]
			if err := f.trySpare(now, p, all); err != nil { // the owner's quota was used up elsewhere meanwhile
				for _, g := range all {
					f.skip(p, g, err)
					p.has[g] = false
				}
				_ = f.trySpare(now, p, nil)
			}
		}
		return
	}
	for _, g := range all {
		f.skip(p, g, why)
	}
}

// trySpare says what is in the way of those copies, which are then the part's spare ones.
func (f *flow) trySpare(now queue.Instant, p *part, all []int) error {
	p.spare.Messages, p.spareTakes = p.spare.Messages[:0], all
	if len(all) == 0 {
		return nil
	}
	for _, g := range all {
		p.spare.Messages = append(p.spare.Messages, *f.messages[g])
	}
	p.s.paid = p.kept
	defer func() { p.s.paid = false }()
	duplicates, err := p.s.q.CheckSend(now, p.spare, p.freedMessages-int64(len(p.takes)), p.freedBytes-totalBytes(p.batch.Messages))
	if err == nil {
		p.gets(all, duplicates)
	}
	return err
}

// skip counts a copy that a part goes without.
func (f *flow) skip(p *part, g int, why error) {
	if _, by, _ := f.wanted(p, g); by != nil {
		p.left = append(p.left, leftOut{by, why})
	}
}

// inTheWay turns the error of a part's batch into that of the operation.
func (f *flow) inTheWay(p *part, err error) error {
	e, ok := err.(*reason.Error)
	if !ok {
		return err
	}
	if first := max(e.Index, 0); p.own == 0 || first >= p.own {
		err := f.refusal(p, p.takes[first], err)
		if f.single && e.Index == reason.Whole {
			err.(*reason.Error).Index = reason.Whole // it is no one message's fault
		}
		return err
	}
	if f.single {
		return on(p.s, err)
	}
	return at(on(p.s, err), p.sends[0])
}

// refusal is the error of an operation whose message g can not be copied to where it must be.
func (f *flow) refusal(p *part, g int, err error) error {
	e, ok := err.(*reason.Error)
	if !ok {
		return err
	}
	mine := *e
	mine.Message = fmt.Sprintf("a copy is bound for this queue: %s", e.Message)
	mine.Index = g
	if !f.single {
		mine.Index = f.sendOf[g]
	}
	return mine.On(p.s.name)
}

// makeRoomLocked drops what queues that drop their oldest messages have to, before anything else is done: it may be so
// much that it has to be committed apart.
func (f *flow) makeRoomLocked(now queue.Instant) {
	for _, p := range f.order {
		if p.s.q.Settings().Overflow == queue.DropOldest && !p.kept {
			p.s.q.MakeRoom(now, queue.Batch{Messages: slices.Concat(p.batch.Messages, p.spare.Messages)})
		}
	}
}

// storeLocked stores what was decided for a part. checkLocked has charged it.
func (f *flow) storeLocked(now queue.Instant, p *part) (err error) {
	s := p.s
	s.paid = true
	defer func() { s.paid = false }()
	if len(p.batch.Messages) > 0 {
		if p.stored, err = s.storeLocked(now, p.batch); err != nil {
			return err
		}
	}
	if len(p.spare.Messages) > 0 {
		if _, err := s.storeLocked(now, p.spare); err != nil {
			// Only where ids of the batch took the last places among those that are remembered.
			for _, g := range p.spareTakes {
				f.skip(p, g, err)
			}
			p.spareTakes = nil
		}
	}
	for _, g := range p.takes[p.own:] {
		f.count(p, g)
	}
	for _, g := range p.spareTakes {
		f.count(p, g)
	}
	for _, l := range p.left {
		l.by.skip(l.why)
	}
	return nil
}

// count counts a copy that was stored, if it was no duplicate.
func (f *flow) count(p *part, g int) {
	if _, by, _ := f.wanted(p, g); by != nil && p.has[g] {
		by.copy()
	}
}

// dischargeLocked undoes what checkLocked has charged.
func (f *flow) dischargeLocked() {
	for _, p := range f.parts {
		p.s.chargeLocked()
	}
}

// doneLocked publishes what was stored and serves who waits.
func (f *flow) doneLocked(now queue.Instant) {
	for _, p := range f.parts {
		p.s.publishLocked()
	}
	f.parts[0].s.flushLocked() // what those who wait get is no part of it
	for _, p := range f.parts {
		p.s.afterLocked(now)
	}
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
