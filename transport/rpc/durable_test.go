package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// disk makes tickets durable when a test says so.
type disk struct {
	mu      sync.Mutex
	durable broker.Ticket
	failed  error
	changed chan struct{}
}

func newDisk() *disk { return &disk{changed: make(chan struct{})} }

func (d *disk) await(ctx context.Context, t broker.Ticket) error {
	for {
		d.mu.Lock()
		durable, failed, changed := d.durable, d.failed, d.changed
		d.mu.Unlock()
		switch {
		case t <= durable:
			return nil
		case failed != nil:
			return failed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// sync makes everything up to t durable, and waits until all that follows from it has happened.
func (d *disk) sync(t broker.Ticket) {
	d.change(func() { d.durable = t })
}

// fail lets nothing more become durable.
func (d *disk) fail() {
	d.change(func() { d.failed = reason.New(reason.Unhealthy, "the disk failed") })
}

func (d *disk) change(f func()) {
	d.mu.Lock()
	f()
	close(d.changed)
	d.changed = make(chan struct{})
	d.mu.Unlock()
	synctest.Wait()
}

// wire is a server's stream without a network: a test puts in requests and sees what was sent.
type wire[In, Out any] struct {
	grpc.ServerStream
	ctx    context.Context
	breaks context.CancelFunc
	in     chan *In
	note   func(*Out) string // what is kept of a response
	mu     sync.Mutex        // guards all below
	noted  []string
	ended  error // once the handler has returned
	over   bool
}

func (w *wire[In, Out]) Context() context.Context { return w.ctx }

func (w *wire[In, Out]) Recv() (*In, error) {
	select {
	case r, ok := <-w.in:
		if !ok {
			return nil, io.EOF
		}
		return r, nil
	case <-w.ctx.Done():
		return nil, w.ctx.Err()
	}
}

func (w *wire[In, Out]) Send(r *Out) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noted = append(w.noted, w.note(r))
	return nil
}

// serveWire runs a handler on a stream until the test ends. The handler's goroutines end before it.
func serveWire[In, Out any](t *testing.T, s *Server, note func(*Out) string, handle func(*wire[In, Out]) error) *wire[In, Out] {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &wire[In, Out]{ctx: ctx, breaks: cancel, in: make(chan *In, 10_000), note: note}
	var handler sync.WaitGroup
	handler.Go(func() {
		err := handle(w)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.ended, w.over = err, true
	})
	t.Cleanup(func() {
		cancel()
		handler.Wait()
		s.readers.Wait()
	})
	return w
}

// want waits until nothing moves any more and compares what was sent so far.
func (w *wire[In, Out]) want(t *testing.T, noted ...string) {
	t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(w.noted, noted) {
		t.Errorf("sent %q, want %q", w.noted, noted)
	}
	w.noted = nil
}

// wantEnd waits until nothing moves any more and returns how the handler has ended.
func (w *wire[In, Out]) wantEnd(t *testing.T) error {
	t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over {
		t.Error("the stream goes on")
	}
	return w.ended
}

func (w *wire[In, Out]) wantOpen(t *testing.T) {
	t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		t.Errorf("the stream ended with %v", w.ended)
	}
}

type sendWire = wire[ipcdv1.SendStreamRequest, ipcdv1.SendStreamResponse]

// sendOn opens a SendStream on a disk and sends so many batches, of which the third fails.
func sendOn(t *testing.T, d *disk, batches int) (*Server, *sendWire) {
	calls := 0
	s := New(Options{Logger: zap.NewNop(), Broker: &fakeBroker{durable: d.await, send: func(context.Context, broker.SendRequest) (queue.Stored, error) {
		if calls++; calls == 3 {
			return queue.Stored{}, reason.New(reason.QueueFull, "full")
		}
		return queue.Stored{First: 1, Count: 1}, nil
	}}})
	var all []string
	w := serveWire(t, s, func(r *ipcdv1.SendStreamResponse) string { // all results so far
		for _, result := range r.Results {
			text := fmt.Sprint(result.BatchId)
			if e := result.GetError(); e != nil {
				text += " " + e.Reason
			}
			all = append(all, text)
		}
		return fmt.Sprint(all)
	}, func(w *sendWire) error { return messages{Server: s}.SendStream(w) })
	w.in <- open("/q")
	for i := range uint64(batches) {
		w.in <- batch(i+1, 1)
	}
	synctest.Wait()
	return s, w
}

// wantLast compares the last of what was sent.
func wantLast(t *testing.T, w *sendWire, want string) {
	t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	last := "[]"
	if n := len(w.noted); n > 0 {
		last = w.noted[n-1]
	}
	if last != want {
		t.Errorf("results %s, want %s", last, want)
	}
}

func TestAResultIsNotToldBeforeItIsOnDisk_S6(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		s, w := sendOn(t, d, 5)
		if n := s.broker.(*fakeBroker).tickets.Load(); n != 5 {
			t.Errorf("%d batches were submitted while the first was not on disk, want 5", n)
		}
		wantLast(t, w, "[]")
		d.sync(2)
		wantLast(t, w, "[1 2]")
		d.sync(3)
		wantLast(t, w, "[1 2 3 QUEUE_FULL]")
		d.sync(5)
		wantLast(t, w, "[1 2 3 QUEUE_FULL 4 5]")
		w.wantOpen(t)
	})
}

func TestResultsComeBeforeASendStreamEnds(t *testing.T) {
	for name, end := range map[string]func(*Server, *sendWire){
		"the client is done": func(_ *Server, w *sendWire) { close(w.in) },
		"the daemon stops":   func(s *Server, _ *sendWire) { s.close() },
		"a bad frame":        func(_ *Server, w *sendWire) { w.in <- open("/q") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDisk()
				s, w := sendOn(t, d, 2)
				end(s, w)
				w.wantOpen(t)
				wantLast(t, w, "[]")
				d.sync(2)
				wantLast(t, w, "[1 2]")
				err := w.wantEnd(t)
				want := map[string]reason.Reason{"the daemon stops": reason.ShuttingDown, "a bad frame": reason.InvalidArgument}[name]
				if reason.Of(err) != want {
					t.Errorf("ended with %v, want %s", err, want)
				}
			})
		})
	}
}

func TestASendStreamOnAFailedDiskEndsUnhealthy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		_, w := sendOn(t, d, 5)
		d.sync(1)
		d.fail()
		wantLast(t, w, "[1]")
		if err := w.wantEnd(t); reason.Of(err) != reason.Unhealthy {
			t.Errorf("ended with %v, want UNHEALTHY", err)
		}
	})
}

func TestASlowDiskHoldsBackTheSender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := sendOn(t, newDisk(), 2*resultsUndurable)
		// One is being awaited, one waits for room behind those that wait.
		if n := s.broker.(*fakeBroker).tickets.Load(); n != resultsUndurable+2 {
			t.Errorf("%d batches wait for the disk, want %d", n, resultsUndurable+2)
		}
	})
}

type consumeWire = wire[ipcdv1.ConsumeRequest, ipcdv1.ConsumeResponse]

func consumeOn(t *testing.T, d *disk) (*Server, *fakeConsumer, *consumeWire) {
	consumer := newFakeConsumer()
	consumer.settle = func([]broker.TagSettlement) (broker.Settled, error) { return broker.Settled{}, nil }
	s := New(Options{Logger: zap.NewNop(), Broker: &fakeBroker{durable: d.await, consume: consumeWith(consumer)}})
	w := serveWire(t, s, func(r *ipcdv1.ConsumeResponse) string {
		switch kind := r.Kind.(type) {
		case *ipcdv1.ConsumeResponse_SettleResults:
			return fmt.Sprintf("settled %d", kind.SettleResults.SettleId)
		case *ipcdv1.ConsumeResponse_Deliveries:
			return fmt.Sprintf("delivered %d", kind.Deliveries.FirstTag)
		}
		return frameName(r.Kind)
	}, func(w *consumeWire) error { return messages{Server: s}.Consume(w) })
	w.in <- &ipcdv1.ConsumeRequest{Kind: &ipcdv1.ConsumeRequest_Open{Open: &ipcdv1.ConsumeOpen{Queue: "/q"}}}
	w.want(t, "`opened`")
	return s, consumer, w
}

// ack settles under an id.
func ack(id uint64) *ipcdv1.ConsumeRequest {
	return settlements(id, &ipcdv1.Settlement{Target: tags(id, id), Outcome: &ipcdv1.Settlement_Ack{}})
}

func TestSettlementsAreConfirmedOnDiskWhileDeliveriesGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		_, consumer, w := consumeOn(t, d)
		w.in <- ack(1)
		w.in <- ack(2)
		w.in <- ack(3)
		w.want(t)
		consumer.deliveries <- broker.Deliveries{First: 4, Deliveries: deliveries(1, 1)}
		w.want(t, "delivered 4")
		d.sync(1)
		w.want(t, "settled 1")
		w.in <- settlements(9, &ipcdv1.Settlement{Target: &ipcdv1.Settlement_Receipt{Receipt: "garbage"}, Outcome: &ipcdv1.Settlement_Ack{}})
		w.want(t) // it waits for nothing itself, but answers come in order
		d.sync(3)
		w.want(t, "settled 2", "settled 3", "settled 9")
		w.in <- drain()
		w.in <- ack(4)
		w.want(t, "`drained`")
		d.sync(4)
		w.want(t, "settled 4")
	})
}

func TestConfirmationsComeBeforeAConsumeStreamEnds(t *testing.T) {
	for name, test := range map[string]struct {
		end      func(*Server, *fakeConsumer, *consumeWire)
		want     reason.Reason
		graceful bool
	}{
		"the client is done":   {func(_ *Server, _ *fakeConsumer, w *consumeWire) { close(w.in) }, "", true},
		"the daemon stops":     {func(s *Server, _ *fakeConsumer, _ *consumeWire) { s.close() }, reason.ShuttingDown, false},
		"the queue is deleted": {func(_ *Server, c *fakeConsumer, _ *consumeWire) { c.failed <- reason.New(reason.QueueDeleted, "gone") }, reason.QueueDeleted, true},
		"a bad frame":          {func(_ *Server, _ *fakeConsumer, w *consumeWire) { w.in <- &ipcdv1.ConsumeRequest{} }, reason.InvalidArgument, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDisk()
				s, consumer, w := consumeOn(t, d)
				w.in <- ack(1)
				w.in <- ack(2)
				synctest.Wait()
				test.end(s, consumer, w)
				w.wantOpen(t)
				w.want(t)
				if len(consumer.closed) > 0 {
					t.Error("leases were returned while settlements waited for the disk")
				}
				d.sync(2)
				w.want(t, "settled 1", "settled 2")
				if err := w.wantEnd(t); reason.Of(err) != test.want {
					t.Errorf("ended with %v, want %s", err, test.want)
				}
				if graceful := <-consumer.closed; graceful != test.graceful {
					t.Errorf("closed with graceful %v, want %v", graceful, test.graceful)
				}
			})
		})
	}
}

func TestAConsumeStreamOnAFailedDiskEndsUnhealthy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		_, consumer, w := consumeOn(t, d)
		w.in <- ack(1)
		w.in <- ack(2)
		synctest.Wait()
		d.sync(1)
		d.fail()
		w.want(t, "settled 1")
		if err := w.wantEnd(t); reason.Of(err) != reason.Unhealthy {
			t.Errorf("ended with %v, want UNHEALTHY", err)
		}
		if !<-consumer.closed {
			t.Error("attempts were counted for the disk's fault")
		}
	})
}

func TestAStreamThatBreaksWaitsForNoDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, consumer, w := consumeOn(t, newDisk())
		w.in <- ack(1)
		synctest.Wait()
		w.breaks()
		if err := w.wantEnd(t); !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
		if <-consumer.closed {
			t.Error("attempts were not counted")
		}
		_, sending := sendOn(t, newDisk(), 2)
		sending.breaks()
		if err := sending.wantEnd(t); !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestASlowDiskHoldsBackSettlementsAndNoDelivery(t *testing.T) {
	for name, test := range map[string]struct {
		failures int // of each frame
		frames   int
		want     int // frames that are taken
	}{
		"many frames":   {0, 2 * confirmationsInFlight, confirmationsInFlight},
		"many failures": {confirmationDetails/2 + 1, 5, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDisk()
				_, consumer, w := consumeOn(t, d)
				taken := 0
				consumer.settle = func([]broker.TagSettlement) (settled broker.Settled, err error) {
					taken++
					for range test.failures {
						settled.Failures = append(settled.Failures, broker.SettleFailure{Err: reason.New(reason.StaleReceipt, "over")})
					}
					return settled, nil
				}
				for i := range test.frames {
					w.in <- ack(uint64(i + 1))
				}
				synctest.Wait()
				if taken != test.want {
					t.Errorf("%d frames of settlements wait for the disk, want %d", taken, test.want)
				}
				consumer.deliveries <- broker.Deliveries{First: 7, Deliveries: deliveries(1, 1)}
				w.want(t, "delivered 7")
				d.sync(1 << 60)
				if taken != test.frames {
					t.Errorf("%d frames were taken in the end, want %d", taken, test.frames)
				}
			})
		})
	}
}
