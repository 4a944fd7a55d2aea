package broker

import (
	"slices"

	"github.com/ipcd/ipcd/broker/queue"
)

// makeRoomLocked drops what queues that drop their oldest messages have to, before anything else is done: it may be so
// much that it has to be committed apart.
func (f *flow) makeRoomLocked(now queue.Instant) {
	for _, p := range f.order {
		if p.s.q.Settings().Overflow == queue.DropOldest && !p.kept {
			p.s.q.MakeRoom(now, queue.Batch{Messages: slices.Concat(p.batch.Messages, p.spare.Messages)}, p.freedMessages, p.freedBytes)
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
	for _, p := range f.parts {
		p.s.afterLocked(now)
	}
}
