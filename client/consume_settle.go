package client

import (
	"context"
	"slices"
	"time"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// settlement is what is to become of one delivery of a stream.
type settlement struct {
	d      *held
	v      verdict
	answer chan<- settled // takes one; nil: nobody waits
}

// settled is what came of a settlement.
type settled struct {
	leaseEnds time.Time // touched
	e         *Error
}

// settle lets a handler settle its delivery by itself. It waits until the daemon has confirmed it.
func (d *held) settle(ctx context.Context, _ *Delivery, v verdict) (time.Time, error) {
	if _, e := v.proto(); e != nil {
		return time.Time{}, e
	}
	s := d.stream
	answer := make(chan settled, 1)
	s.mu.Lock()
	if s.broken || d.settled {
		s.mu.Unlock()
		return time.Time{}, errStale().on(d.Queue)
	}
	if v.outcome == OutcomeTouch {
		d.leased = time.Now()
	}
	s.settleLocked(d, v, answer)
	s.mu.Unlock()
	s.wakeWriter()
	select {
	case a := <-answer:
		if a.e != nil {
			return time.Time{}, a.e
		}
		return a.leaseEnds, nil
	case <-ctx.Done():
		return time.Time{}, contextError(ctx).on(d.Queue)
	}
}

// settledElsewhere notes that the delivery was settled by its receipt.
func (d *held) settledElsewhere() {
	d.stream.mu.Lock()
	defer d.stream.mu.Unlock()
	d.settled = true
	delete(d.stream.unsettled, d.tag)
}

// settlementFrame puts as many settlements as fit into a frame: neighbours with the same verdict share
// one range of tags. It returns those in the frame, ordered by tag, and the rest.
func settlementFrame(id uint64, all []settlement) (frame *ipcdv1.Settlements, inFrame, rest []settlement) {
	n := min(len(all), limits.SettlementsPerFrame)
	inFrame, rest = all[:n:n], all[n:]
	if len(rest) == 0 {
		rest = nil
	}
	// Stable: of two settlements of one delivery, a touch and an ack, the order matters.
	slices.SortStableFunc(inFrame, func(a, b settlement) int {
		switch {
		case a.d.tag < b.d.tag:
			return -1
		case a.d.tag > b.d.tag:
			return 1
		}
		return 0
	})
	frame = &ipcdv1.Settlements{SettleId: id}
	var last *ipcdv1.TagRange
	for i, s := range inFrame {
		if last != nil && s.d.tag == last.Last+1 && s.v == inFrame[i-1].v {
			last.Last++
			continue
		}
		p, _ := s.v.proto() // checked before
		last = &ipcdv1.TagRange{First: s.d.tag, Last: s.d.tag}
		p.Target = &ipcdv1.Settlement_Tags{Tags: last}
		frame.Settlements = append(frame.Settlements, p)
	}
	return frame, inFrame, rest
}

// confirmed takes the daemon's word on a frame of settlements.
func (s *consumeStream) confirmed(results *ipcdv1.SettleResults) {
	s.mu.Lock()
	frame := s.unconfirmed[results.GetSettleId()]
	delete(s.unconfirmed, results.GetSettleId())
	s.mu.Unlock()
	ends := touchedEnds(results)
	failures := make(map[settlementKey]*Error, len(results.GetFailures()))
	for _, f := range results.GetFailures() {
		e := answer(f.GetError(), s.c.q.name)
		e.Index = Whole
		failures[settlementKey{int(f.GetIndex()), f.GetTag()}] = e
	}
	index := -1
	for i, one := range frame {
		if i == 0 || one.d.tag != frame[i-1].d.tag+1 || one.v != frame[i-1].v {
			index++
		}
		e := failures[settlementKey{index, one.d.tag}]
		if e == nil {
			e = failures[settlementKey{index, 0}] // the settlement as a whole
		}
		if e != nil {
			s.failed(one, e)
		} else if one.answer != nil {
			one.answer <- settled{leaseEnds: ends[index]}
		}
	}
	s.wakeWriter()
}

// settlementKey is a delivery of a settlement of a frame.
type settlementKey struct {
	index int
	tag   uint64
}

func touchedEnds(results *ipcdv1.SettleResults) map[int]time.Time {
	if len(results.GetTouched()) == 0 {
		return nil
	}
	ends := make(map[int]time.Time, len(results.GetTouched()))
	for _, t := range results.GetTouched() {
		ends[int(t.GetIndex())] = timeOf(t.GetLeaseExpireTime())
	}
	return ends
}

// failed tells whoever wants to know that a settlement changed nothing.
func (s *consumeStream) failed(one settlement, e *Error) {
	if e.is(reason.StaleReceipt) {
		s.mu.Lock()
		one.d.settled = true
		delete(s.unsettled, one.d.tag)
		s.mu.Unlock()
	}
	if one.answer != nil {
		one.answer <- settled{e: e}
		return
	}
	s.c.report(one.d, e)
}
