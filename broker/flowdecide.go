package broker

import (
	"fmt"
	"slices"
	"sort"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/reason"
)

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
		case f.lean != nil && !p.must():
			p.left = append(p.left, leftOut{by, f.lean})
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
	drops := p.s.q.Settings().Overflow == queue.DropOldest // which queues grow by less than what comes
	p.s.paid = p.kept || !drops
	duplicates, err := p.s.q.CheckSend(now, p.spare, p.freedMessages-int64(len(p.takes)), p.freedBytes-totalBytes(p.batch.Messages))
	p.s.paid = false
	if err == nil && !p.kept && !drops {
		err = p.s.takeBytesLocked(totalBytes(p.spare.Messages)) // and not what was charged for the batch again
	}
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
	mine.Message = fmt.Sprintf("a copy is bound for %s: %s", p.s.name, e.Message)
	mine.Index = g
	if !f.single {
		mine.Index = f.sendOf[g]
	}
	return mine.On(p.s.name)
}
