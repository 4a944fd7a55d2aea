package client

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// take leases, or with consume removes, up to n ready messages.
func (q *fakeQueue) take(n int, consume bool) []*fakeMessage {
	var taken, kept []*fakeMessage
	for _, m := range q.messages {
		if len(taken) == n || m.leased || m.buried != "" {
			kept = append(kept, m)
			continue
		}
		taken = append(taken, m)
		if !consume {
			m.leased = true
			m.delivery++
			kept = append(kept, m)
		}
	}
	q.messages = kept
	return taken
}

func (m *fakeMessage) proto(consume bool) *ipcdv1.Delivery {
	d := &ipcdv1.Delivery{Message: m.m, Sequence: m.sequence, Attempts: m.attempts, SendTime: timestamppb.Now()}
	if !consume {
		d.Receipt = m.receipt()
		d.LeaseExpireTime = timestamppb.New(time.Now().Add(time.Minute))
	}
	return d
}

// settle settles the delivery that receipt names.
func (f *fake) settle(receipt string, s *ipcdv1.Settlement) *reason.Error {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.changedLocked()
	for _, q := range f.queues {
		for i, m := range q.messages {
			if !m.leased || m.receipt() != receipt {
				continue
			}
			body := string(m.m.GetBody())
			switch v := s.GetOutcome().(type) {
			case *ipcdv1.Settlement_Ack:
				q.messages = append(q.messages[:i:i], q.messages[i+1:]...)
				f.seen = append(f.seen, "ack "+body)
			case *ipcdv1.Settlement_Nack:
				m.leased = false
				m.attempts++
				delay := "backoff"
				if v.Nack.GetDelay() != nil {
					delay = v.Nack.GetDelay().AsDuration().String()
				}
				f.seen = append(f.seen, "nack "+body+" "+delay+" "+v.Nack.GetReason())
			case *ipcdv1.Settlement_Touch:
				f.seen = append(f.seen, "touch "+body+" "+v.Touch.GetLease().AsDuration().String())
			case *ipcdv1.Settlement_Release:
				m.leased = false
				f.seen = append(f.seen, "release "+body)
			case *ipcdv1.Settlement_Bury:
				m.leased, m.buried = false, "why: "+v.Bury.GetReason()
				f.seen = append(f.seen, "bury "+body)
			}
			return nil
		}
	}
	return reason.New(reason.StaleReceipt, "receipt %s is stale", receipt)
}

var touchedUntil = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func (f *fake) Settle(_ context.Context, r *ipcdv1.SettleRequest) (*ipcdv1.SettleResponse, error) {
	response := new(ipcdv1.SettleResponse)
	for i, s := range r.GetSettlements() {
		if e := f.settle(s.GetReceipt(), s); e != nil {
			response.Failures = append(response.Failures, &ipcdv1.SettleFailure{Index: uint32(i), Error: errorProto(e)})
		} else if s.GetTouch() != nil {
			response.Touched = append(response.Touched, &ipcdv1.TouchedLease{Index: uint32(i), LeaseExpireTime: timestamppb.New(touchedUntil)})
		}
	}
	return response, nil
}

func (f *fake) Receive(ctx context.Context, r *ipcdv1.ReceiveRequest) (*ipcdv1.ReceiveResponse, error) {
	f.note("receive")
	consume := r.GetSettleMode() == ipcdv1.SettleMode_SETTLE_MODE_CONSUME
	timeout := time.NewTimer(r.GetWait().AsDuration())
	defer timeout.Stop()
	for {
		names, several := []string{r.GetQueue()}, len(r.GetQueues()) > 0
		if several {
			names = r.GetQueues()
		}
		f.mu.Lock()
		var taken []*fakeMessage
		response := new(ipcdv1.ReceiveResponse)
		for _, name := range names {
			q := f.queues[name]
			if q == nil {
				f.mu.Unlock()
				return nil, statusOf(reason.New(reason.QueueNotFound, "no queue").On(name))
			}
			for _, m := range q.take(int(r.GetMaxMessages())-len(taken), consume) {
				d := m.proto(consume)
				if several {
					d.Queue = name
				}
				taken, response.Deliveries = append(taken, m), append(response.Deliveries, d)
			}
		}
		changed, h := f.changed, f.hooks
		f.mu.Unlock()
		if len(taken) > 0 || r.GetWait().AsDuration() == 0 {
			if h.received != nil {
				h.received()
				if ctx.Err() != nil && !consume { // as the broker: nobody is there to take them
					f.giveBack(taken)
				}
			}
			return response, nil
		}
		select {
		case <-changed:
		case <-timeout.C:
			return response, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (f *fake) giveBack(taken []*fakeMessage) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range taken {
		m.leased = false
	}
	f.changedLocked()
}

// fakeConsumer is one Consume stream of the fake.
type fakeConsumer struct {
	f        *fake
	stream   grpc.BidiStreamingServer[ipcdv1.ConsumeRequest, ipcdv1.ConsumeResponse]
	send     sync.Mutex
	queue    string
	consume  bool
	receipts bool

	// guarded by f.mu
	credit uint64
	tags   []*fakeMessage // the tag is the place, from 1
	ids    []string       // receipts, alike
	drain  bool
}

func (c *fakeConsumer) write(r *ipcdv1.ConsumeResponse) {
	c.send.Lock()
	defer c.send.Unlock()
	_ = c.stream.Send(r)
}

func (f *fake) Consume(stream grpc.BidiStreamingServer[ipcdv1.ConsumeRequest, ipcdv1.ConsumeResponse]) error {
	r, err := stream.Recv()
	if err != nil {
		return err
	}
	open := r.GetOpen()
	f.mu.Lock()
	q := f.queues[open.GetQueue()]
	f.mu.Unlock()
	if q == nil {
		return statusOf(reason.New(reason.QueueNotFound, "no queue").On(open.GetQueue()))
	}
	f.note("consume")
	c := &fakeConsumer{f: f, stream: stream, queue: open.GetQueue(), consume: open.GetSettleMode() == ipcdv1.SettleMode_SETTLE_MODE_CONSUME, receipts: open.GetReceipts()}
	opened := &ipcdv1.ConsumeOpened{}
	if !c.consume {
		opened.Lease = durationpb.New(time.Minute)
		if open.GetLease() != nil {
			opened.Lease = open.GetLease()
		}
	}
	c.write(&ipcdv1.ConsumeResponse{Kind: &ipcdv1.ConsumeResponse_Opened{Opened: opened}})
	ctx, cancel := context.WithCancel(stream.Context())
	var deliverer sync.WaitGroup
	var ended error
	deliverer.Go(func() { ended = c.deliver(ctx, cancel) })
	err = c.requests(ctx)
	cancel()
	deliverer.Wait()
	f.mu.Lock()
	for i, m := range c.tags {
		if m.leased && m.receipt() == c.ids[i] {
			m.leased = false
			if !errors.Is(err, io.EOF) {
				m.attempts++
			}
		}
	}
	f.seen = append(f.seen, "consume ended")
	f.changedLocked()
	f.mu.Unlock()
	return ended
}

// deliver delivers within the credit. It ends the stream when the queue is gone.
func (c *fakeConsumer) deliver(ctx context.Context, end context.CancelFunc) error {
	f := c.f
	for {
		f.mu.Lock()
		q := f.queues[c.queue]
		if q == nil {
			f.mu.Unlock()
			end()
			return statusOf(reason.New(reason.QueueDeleted, "deleted").On(c.queue))
		}
		var frame ipcdv1.Deliveries
		if !c.drain {
			frame.FirstTag = uint64(len(c.tags)) + 1
			for _, m := range q.take(int(c.credit), c.consume) {
				c.credit--
				c.tags, c.ids = append(c.tags, m), append(c.ids, m.receipt())
				d := m.proto(c.consume)
				if !c.receipts {
					d.Receipt = ""
				}
				frame.Deliveries = append(frame.Deliveries, d)
			}
		}
		if len(frame.Deliveries) > 0 {
			f.changedLocked()
		}
		drain, changed := c.drain, f.changed
		f.mu.Unlock()
		if len(frame.Deliveries) > 0 {
			c.write(&ipcdv1.ConsumeResponse{Kind: &ipcdv1.ConsumeResponse_Deliveries{Deliveries: &frame}})
		}
		if drain {
			c.write(&ipcdv1.ConsumeResponse{Kind: &ipcdv1.ConsumeResponse_Drained{Drained: &ipcdv1.Drained{}}})
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

func (c *fakeConsumer) requests(ctx context.Context) error {
	f := c.f
	received := make(chan *ipcdv1.ConsumeRequest)
	failed := make(chan error, 1)
	go func() {
		for {
			r, err := c.stream.Recv()
			if err != nil {
				failed <- err
				return
			}
			select {
			case received <- r:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case err := <-failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case r := <-received:
			switch kind := r.GetKind().(type) {
			case *ipcdv1.ConsumeRequest_Credit:
				f.mu.Lock()
				c.credit += kind.Credit.GetMessages()
				f.changedLocked()
				f.mu.Unlock()
			case *ipcdv1.ConsumeRequest_Drain:
				f.mu.Lock()
				c.drain = true
				f.seen = append(f.seen, "drain")
				f.changedLocked()
				f.mu.Unlock()
			case *ipcdv1.ConsumeRequest_Settlements:
				c.settlements(kind.Settlements)
			}
		}
	}
}

func (c *fakeConsumer) settlements(r *ipcdv1.Settlements) {
	results := &ipcdv1.SettleResults{SettleId: r.GetSettleId()}
	c.f.note("settlements %d", len(r.GetSettlements()))
	for i, s := range r.GetSettlements() {
		for tag := s.GetTags().GetFirst(); tag <= s.GetTags().GetLast(); tag++ {
			c.f.mu.Lock()
			receipt := c.ids[tag-1]
			c.f.mu.Unlock()
			if e := c.f.settle(receipt, s); e != nil {
				results.Failures = append(results.Failures, &ipcdv1.SettleFailure{Index: uint32(i), Tag: tag, Error: errorProto(e)})
			} else if s.GetTouch() != nil {
				results.Touched = append(results.Touched, &ipcdv1.TouchedLease{Index: uint32(i), LeaseExpireTime: timestamppb.New(touchedUntil)})
			}
		}
	}
	if h := c.f.hook().settled; h != nil {
		h()
	}
	c.write(&ipcdv1.ConsumeResponse{Kind: &ipcdv1.ConsumeResponse_SettleResults{SettleResults: results}})
}
