package client

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// consumeStream is one Consume stream. Three parties work on it: read takes what the daemon says, write
// alone writes, and the workers hand it their results.
//
//	delivered -> in the backlog -> in a handler -> settled -> confirmed
//	                  |                |
//	                  |                +-> stream broke: its verdict counts for nothing
//	                  +-> stopping: released; stream broke: dropped
type consumeStream struct {
	c        *consumer
	stream   grpc.BidiStreamingClient[ipcdv1.ConsumeRequest, ipcdv1.ConsumeResponse]
	handlers context.Context // of the handlers of this stream's deliveries
	lose     context.CancelCauseFunc
	opened   bool          // the daemon accepted the queue and the selector; written by read before ready is closed
	lease    time.Duration // in force; 0: consumed at once
	ready    chan struct{} // closed when opened is true
	over     chan struct{} // closed when read has ended
	wake     chan struct{} // holds one token when write has something to do

	mu          sync.Mutex // guards all below
	unsettled   map[uint64]*held
	outstanding int          // delivered, and no handler has finished it
	settlements []settlement // to be written
	unconfirmed map[uint64][]settlement
	settleID    uint64
	credit      ipcdv1.Credit // to be given back to the daemon
	stopping    bool          // ctx ended
	drainSent   bool
	drained     bool // nothing more will be delivered
	broken      bool
}

// held is a delivery of a stream until it is settled and its handler has returned.
type held struct {
	Delivery
	stream  *consumeStream
	tag     uint64
	bytes   uint64
	leased  time.Time // when its lease last began, as far as known here
	settled bool      // guarded by stream.mu; also: the lease is lost
}

func newConsumeStream(ctx context.Context, c *consumer) *consumeStream {
	s := &consumeStream{
		c:           c,
		ready:       make(chan struct{}),
		over:        make(chan struct{}),
		wake:        make(chan struct{}, 1),
		unsettled:   make(map[uint64]*held),
		unconfirmed: make(map[uint64][]settlement),
	}
	s.handlers, s.lose = context.WithCancelCause(context.WithoutCancel(ctx))
	return s
}

// run works until the stream ends. nil: it ended in good order, on either side's wish.
func (s *consumeStream) run(ctx context.Context) *Error {
	q := s.c.q
	// The stream outlives ctx, so that it can stop in good order, but only once it is open.
	streamCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stopOpening := context.AfterFunc(ctx, func() {
		select {
		case <-s.ready:
		default:
			cancel()
		}
	})
	defer stopOpening()
	var err error
	if s.stream, err = q.c.messages.Consume(streamCtx); err != nil {
		return q.c.rpcError(err, q.name)
	}
	o := &s.c.o
	open := &ipcdv1.ConsumeOpen{
		Queue:      q.name,
		Selector:   o.Selector.proto(),
		Lease:      durationProto(o.Lease),
		SettleMode: settleMode(o.AtOnce),
		Receipts:   o.Receipts,
	}
	s.send(&ipcdv1.ConsumeRequest{Kind: &ipcdv1.ConsumeRequest_Open{Open: open}})
	s.send(&ipcdv1.ConsumeRequest{Kind: &ipcdv1.ConsumeRequest_Credit{
		Credit: &ipcdv1.Credit{Messages: uint64(o.Prefetch), Bytes: uint64(o.MaxBytes)},
	}})
	var writer sync.WaitGroup
	writer.Go(func() { s.write(ctx) })
	e := s.read()
	close(s.over)
	s.end()
	writer.Wait()
	return e
}

// send writes a frame. Should it fail, read learns why.
func (s *consumeStream) send(r *ipcdv1.ConsumeRequest) { _ = s.stream.Send(r) }

// read takes what the daemon says until the stream ends; nil: in good order.
func (s *consumeStream) read() *Error {
	for {
		r, err := s.stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return s.c.q.c.rpcError(err, s.c.q.name)
		}
		switch kind := r.GetKind().(type) {
		case *ipcdv1.ConsumeResponse_Opened:
			if !s.opened {
				s.opened, s.lease = true, kind.Opened.GetLease().AsDuration()
				close(s.ready)
			}
		case *ipcdv1.ConsumeResponse_Deliveries:
			s.delivered(kind.Deliveries)
		case *ipcdv1.ConsumeResponse_SettleResults:
			s.confirmed(kind.SettleResults)
		case *ipcdv1.ConsumeResponse_Drained:
			s.mu.Lock()
			s.drained = true
			s.mu.Unlock()
			s.wakeWriter()
		}
	}
}

// delivered takes in a frame of deliveries.
func (s *consumeStream) delivered(frame *ipcdv1.Deliveries) {
	now := time.Now()
	items := make([]*held, len(frame.GetDeliveries()))
	for i, p := range frame.GetDeliveries() {
		d := &held{stream: s, tag: frame.GetFirstTag() + uint64(i), leased: now}
		d.fill(p, s.c.q.name)
		d.bytes = uint64(d.size())
		if !s.c.o.AtOnce {
			d.Delivery.lease = d
		}
		items[i] = d
	}
	s.mu.Lock()
	s.outstanding += len(items)
	giveBack := false
	if !s.c.o.AtOnce {
		for _, d := range items {
			s.unsettled[d.tag] = d
		}
		giveBack = s.stopping
	}
	if giveBack {
		s.releaseLocked(items)
	}
	s.mu.Unlock()
	if giveBack {
		s.wakeWriter()
		return
	}
	s.c.work.add(items)
}

// releaseLocked gives back deliveries that no handler has begun.
func (s *consumeStream) releaseLocked(items []*held) {
	for _, d := range items {
		if !d.settled {
			s.settleLocked(d, verdict{outcome: OutcomeRelease}, nil)
		}
		s.outstanding--
	}
}

// begin reports whether a handler may begin d. What was consumed at once must be handled even if the
// stream broke.
func (s *consumeStream) begin(d *held) bool {
	if s.c.o.AtOnce {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken || d.settled { // its lease was lost in the backlog
		s.doneLocked(d)
		s.wakeWriter()
		return false
	}
	return true
}

// finish takes the result of d's handler.
func (s *consumeStream) finish(d *held, err error) {
	if s.c.o.AtOnce && err != nil {
		s.c.report(d, err)
	}
	s.mu.Lock()
	late := false
	if !s.c.o.AtOnce && !d.settled {
		v := verdictOf(err)
		if err != nil && s.handlers.Err() != nil {
			v = verdict{outcome: OutcomeRelease} // it was made to stop
		}
		if late = s.broken; !late {
			s.settleLocked(d, v, nil)
		}
	}
	s.doneLocked(d)
	s.mu.Unlock()
	if late {
		s.c.report(d, errStale().on(d.Queue))
	}
	s.wakeWriter()
}

// doneLocked gives back the credit of a delivery.
func (s *consumeStream) doneLocked(d *held) {
	s.outstanding--
	s.credit.Messages++
	s.credit.Bytes += d.bytes
}

// settleLocked hands a settlement to the writer. answer is told what came of it, or is nil.
func (s *consumeStream) settleLocked(d *held, v verdict, answer chan<- settled) {
	if v.outcome != OutcomeTouch {
		d.settled = true
		delete(s.unsettled, d.tag)
	}
	s.settlements = append(s.settlements, settlement{d, v, answer})
}

func (s *consumeStream) wakeWriter() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// write writes what is to be said until the stream is over.
func (s *consumeStream) write(ctx context.Context) {
	select {
	case <-s.ready:
	case <-s.over:
		return
	}
	var tick <-chan time.Time
	if s.lease > 0 {
		// A lease is restarted when it is between a quarter and a half of its length old.
		ticker := time.NewTicker(s.lease / 4)
		defer ticker.Stop()
		tick = ticker.C
	}
	ended, wake := ctx.Done(), s.wake
	var grace <-chan time.Time
	for {
		select {
		case <-s.over:
			return
		case <-ended:
			ended = nil
			s.beginStop()
			if s.c.o.Grace > 0 {
				timer := time.NewTimer(s.c.o.Grace)
				defer timer.Stop()
				grace = timer.C
			}
		case <-grace:
			s.lose(newError(reason.Cancelled, "the handler had %v to finish", s.c.o.Grace))
		case <-tick:
			s.touch()
		case <-wake:
		}
		frames, done := s.frames()
		for _, f := range frames {
			s.send(f)
		}
		if done {
			_ = s.stream.CloseSend()
			tick, ended, grace, wake = nil, nil, nil, nil
		}
	}
}

// beginStop gives back what no handler has begun. What was consumed at once is handled nevertheless.
func (s *consumeStream) beginStop() {
	var items []*held
	if !s.c.o.AtOnce {
		items = s.c.work.takeAll()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopping = true
	for i, d := range items {
		if d.stream == s {
			s.releaseLocked(items[i : i+1])
		}
	}
}

// touch restarts the leases that are old.
func (s *consumeStream) touch() {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.unsettled {
		if now.Sub(d.leased) >= s.lease/4 {
			d.leased = now
			s.settleLocked(d, verdict{outcome: OutcomeTouch}, nil)
		}
	}
}

// frames returns what is to be written now. done: all is said, the stream may be closed.
func (s *consumeStream) frames() (frames []*ipcdv1.ConsumeRequest, done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.settlements) > 0 {
		s.settleID++
		var f *ipcdv1.Settlements
		f, s.unconfirmed[s.settleID], s.settlements = settlementFrame(s.settleID, s.settlements)
		frames = append(frames, &ipcdv1.ConsumeRequest{Kind: &ipcdv1.ConsumeRequest_Settlements{Settlements: f}})
	}
	switch {
	case s.stopping && !s.drainSent:
		s.drainSent = true
		frames = append(frames, &ipcdv1.ConsumeRequest{Kind: &ipcdv1.ConsumeRequest_Drain{Drain: &ipcdv1.Drain{}}})
	case !s.stopping && !s.drained && s.creditDueLocked():
		frames = append(frames, &ipcdv1.ConsumeRequest{Kind: &ipcdv1.ConsumeRequest_Credit{Credit: proto.CloneOf(&s.credit)}})
		s.credit.Messages, s.credit.Bytes = 0, 0
	}
	return frames, s.drained && s.outstanding == 0 && len(s.unconfirmed) == 0
}

// creditDueLocked: credit goes back in halves, and all of it when nothing is left to do, so that a
// message as large as all credit can come.
func (s *consumeStream) creditDueLocked() bool {
	return s.credit.Messages > 0 &&
		(s.outstanding == 0 || s.credit.Messages >= uint64(s.c.o.Prefetch+1)/2 || s.credit.Bytes >= uint64(s.c.o.MaxBytes)/2)
}

// end notes that the stream is over. What is not settled never will be.
func (s *consumeStream) end() {
	s.mu.Lock()
	s.broken = true
	lost := make([]settlement, 0, len(s.settlements))
	for _, f := range s.unconfirmed {
		lost = append(lost, f...)
	}
	lost = append(lost, s.settlements...)
	s.settlements, s.unconfirmed, s.unsettled = nil, nil, nil
	s.mu.Unlock()
	if !s.c.o.AtOnce {
		s.lose(errStale())
	}
	for _, l := range lost {
		s.failed(l, errStale().on(s.c.q.name))
	}
}
