package rpc

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
	"github.com/ipcd/ipcd/transport"
)

type consumeClient = grpc.BidiStreamingClient[ipcdv1.ConsumeRequest, ipcdv1.ConsumeResponse]

func consumeWith(c transport.Consumer) func(broker.ConsumeRequest) (transport.Consumer, error) {
	return func(broker.ConsumeRequest) (transport.Consumer, error) { return c, nil }
}

func credit(messages, bytes uint64) *ipcdv1.ConsumeRequest {
	return &ipcdv1.ConsumeRequest{Kind: &ipcdv1.ConsumeRequest_Credit{Credit: &ipcdv1.Credit{Messages: messages, Bytes: bytes}}}
}

func drain() *ipcdv1.ConsumeRequest {
	return &ipcdv1.ConsumeRequest{Kind: &ipcdv1.ConsumeRequest_Drain{Drain: &ipcdv1.Drain{}}}
}

func settlements(id uint64, s ...*ipcdv1.Settlement) *ipcdv1.ConsumeRequest {
	return &ipcdv1.ConsumeRequest{Kind: &ipcdv1.ConsumeRequest_Settlements{Settlements: &ipcdv1.Settlements{SettleId: id, Settlements: s}}}
}

func openConsume(t testing.TB, stream consumeClient, open *ipcdv1.ConsumeOpen) *ipcdv1.ConsumeOpened {
	t.Helper()
	if err := stream.Send(&ipcdv1.ConsumeRequest{Kind: &ipcdv1.ConsumeRequest_Open{Open: open}}); err != nil {
		t.Fatal(err)
	}
	r, err := stream.Recv()
	if err != nil || r.GetOpened() == nil {
		t.Fatalf("answer to open: %v, %v", r, err)
	}
	return r.GetOpened()
}

// consumeStream opens a stream on c.
func consumeStream(t testing.TB, ctx context.Context, c *fakeConsumer, b *fakeBroker, o *ipcdv1.ConsumeOpen) consumeClient {
	t.Helper()
	b.consume = consumeWith(c)
	h := serve(t, b)
	stream, err := h.messages.Consume(ctx)
	if err != nil {
		t.Fatal(err)
	}
	openConsume(t, stream, o)
	return stream
}

func deliveries(n, body int) []queue.Delivery {
	out := make([]queue.Delivery, n)
	for i := range out {
		out[i] = queue.Delivery{
			Message:   queue.Message{Type: 7, Priority: 2, Body: make([]byte, body), Headers: []queue.Header{{Key: "k", Value: []byte("v")}}},
			Sequence:  uint64(i + 1),
			SentAt:    1_700_000_000_000_000_001,
			Attempts:  3,
			LeaseEnds: 1_700_000_030_000_000_000,
			Receipt:   queue.Receipt{Queue: 1, Sequence: uint64(i + 1), Delivery: 1, Check: 9},
		}
	}
	return out
}

func recv(t testing.TB, stream consumeClient) *ipcdv1.ConsumeResponse {
	t.Helper()
	r, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func send(t testing.TB, stream consumeClient, frames ...*ipcdv1.ConsumeRequest) {
	t.Helper()
	for _, f := range frames {
		if err := stream.Send(f); err != nil && err != io.EOF { // EOF: it has ended, and Recv says why
			t.Fatal(err)
		}
	}
}

func TestConsumeOpensWithWhatWasAsked(t *testing.T) {
	consumer, asked := newFakeConsumer(), make(chan broker.ConsumeRequest, 1)
	h := serve(t, &fakeBroker{consume: func(r broker.ConsumeRequest) (transport.Consumer, error) {
		asked <- r
		return consumer, nil
	}})
	stream, err := h.messages.Consume(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	opened := openConsume(t, stream, &ipcdv1.ConsumeOpen{
		Queue: "/q", Selector: &ipcdv1.Selector{Kind: &ipcdv1.Selector_LowestUpto{LowestUpto: 9}}, Lease: seconds(5), SettleMode: ipcdv1.SettleMode_SETTLE_MODE_LEASE,
	})
	if opened.Lease.AsDuration() != 30*time.Second {
		t.Errorf("lease in force %v", opened.Lease)
	}
	if r := <-asked; r.Queue != "/q" || r.Selector.String() != "upto:9" || r.Lease != 5*time.Second || r.Consume {
		t.Errorf("asked %+v", r)
	}
	send(t, stream, credit(10, 1000), credit(5, 0))
	if a, b := <-consumer.credit, <-consumer.credit; a != [2]uint64{10, 1000} || b != [2]uint64{5, 0} {
		t.Errorf("credit %v and %v", a, b)
	}
	stream.CloseSend()
}

func TestDeliveriesCarryEverythingAndReceiptsOnRequest(t *testing.T) {
	for _, receipts := range []bool{false, true} {
		consumer := newFakeConsumer()
		stream := consumeStream(t, t.Context(), consumer, &fakeBroker{}, &ipcdv1.ConsumeOpen{Queue: "/q", Receipts: receipts})
		consumer.deliveries <- broker.Deliveries{First: 11, Deliveries: deliveries(2, 5)}
		got := recv(t, stream).GetDeliveries()
		if got.GetFirstTag() != 11 || len(got.GetDeliveries()) != 2 {
			t.Fatalf("got %v", got)
		}
		d := got.Deliveries[1]
		if m := d.Message; m.Type != 7 || m.Priority != 2 || len(m.Body) != 5 || string(m.Headers["k"]) != "v" {
			t.Errorf("message %v", m)
		}
		if d.Queue != "" || d.Sequence != 2 || d.Attempts != 3 || d.SendTime.AsTime().UnixNano() != 1_700_000_000_000_000_001 || d.LeaseExpireTime.AsTime().Unix() != 1_700_000_030 {
			t.Errorf("delivery %v", d)
		}
		want := ""
		if receipts {
			want = "1.0.2.1.9"
		}
		if d.Receipt != want {
			t.Errorf("receipt %q, want %q", d.Receipt, want)
		}
		stream.CloseSend()
	}
}

func TestFramesOfDeliveriesAreBounded(t *testing.T) {
	consumer := newFakeConsumer()
	stream := consumeStream(t, t.Context(), consumer, &fakeBroker{}, &ipcdv1.ConsumeOpen{Queue: "/q"})
	many := append(deliveries(frameMessages+10, 1), deliveries(3, frameBytes/2)...)
	many = append(many, deliveries(1, 3*frameBytes)...)
	many = append(many, deliveries(1, 1)...)
	consumer.deliveries <- broker.Deliveries{First: 1, Deliveries: many}
	var sizes []int
	for total := 0; total < len(many); {
		d := recv(t, stream).GetDeliveries()
		if int(d.FirstTag) != total+1 {
			t.Errorf("a frame starts with tag %d after %d deliveries", d.FirstTag, total)
		}
		total += len(d.Deliveries)
		sizes = append(sizes, len(d.Deliveries))
	}
	// 512 | 10 and half a frame | half a frame | half a frame | the large one alone | the rest
	if want := []int{frameMessages, 11, 1, 1, 1, 1}; !equal(sizes, want) {
		t.Errorf("frames of %v deliveries, want %v", sizes, want)
	}
	stream.CloseSend()
}

func TestSettlementsInAStreamGoWhereTheyBelong(t *testing.T) {
	consumer := newFakeConsumer()
	consumer.settle = func(s []broker.TagSettlement) (broker.Settled, error) {
		if len(s) != 2 || s[0].First != 1 || s[0].Last != 4 || s[0].Outcome != broker.Ack || s[1].Outcome != broker.Nack || s[1].Delay >= 0 || s[1].Reason != "why" {
			t.Errorf("by tag: %+v", s)
		}
		return broker.Settled{Failures: []broker.SettleFailure{{Index: 1, Tag: 9, Err: reason.New(reason.StaleReceipt, "over")}}}, nil
	}
	b := &fakeBroker{settle: func(s []broker.Settlement) (broker.Settled, error) {
		if len(s) != 1 || s[0].Receipt.Sequence != 42 || s[0].Outcome != broker.Touch || s[0].Lease != 2*time.Second {
			t.Errorf("by receipt: %+v", s)
		}
		return broker.Settled{Touched: []broker.Touched{{Index: 0, LeaseEnds: 5e9}}}, nil
	}}
	stream := consumeStream(t, t.Context(), consumer, b, &ipcdv1.ConsumeOpen{Queue: "/q"})
	send(t, stream, settlements(77,
		&ipcdv1.Settlement{Target: &ipcdv1.Settlement_Receipt{Receipt: "garbage"}, Outcome: &ipcdv1.Settlement_Ack{}},
		&ipcdv1.Settlement{Target: tags(1, 4), Outcome: &ipcdv1.Settlement_Ack{}},
		&ipcdv1.Settlement{Target: &ipcdv1.Settlement_Receipt{Receipt: "1.1.42.1.k"}, Outcome: &ipcdv1.Settlement_Touch{Touch: &ipcdv1.Touch{Lease: seconds(2)}}},
		&ipcdv1.Settlement{Target: tags(9, 9), Outcome: &ipcdv1.Settlement_Nack{Nack: &ipcdv1.Nack{Reason: "why"}}},
		&ipcdv1.Settlement{Target: tags(2, 1), Outcome: &ipcdv1.Settlement_Release{}},
	))
	got := recv(t, stream).GetSettleResults()
	if got.GetSettleId() != 77 || len(got.GetFailures()) != 3 || len(got.GetTouched()) != 1 {
		t.Fatalf("results %v", got)
	}
	if f := got.Failures[0]; f.Index != 0 || f.Error.Reason != "INVALID_ARGUMENT" {
		t.Errorf("failure of the garbage: %v", f)
	}
	if f := got.Failures[1]; f.Index != 3 || f.Tag != 9 || f.Error.Reason != "STALE_RECEIPT" {
		t.Errorf("failure of the stale tag: %v", f)
	}
	if f := got.Failures[2]; f.Index != 4 || f.Error.Reason != "INVALID_ARGUMENT" {
		t.Errorf("failure of the empty range: %v", f)
	}
	if touched := got.Touched[0]; touched.Index != 2 || touched.LeaseExpireTime.Seconds != 5 {
		t.Errorf("touched %v", touched)
	}
	stream.CloseSend()
}

func tags(first, last uint64) *ipcdv1.Settlement_Tags {
	return &ipcdv1.Settlement_Tags{Tags: &ipcdv1.TagRange{First: first, Last: last}}
}

func TestClosingTheStreamReturnsLeasesUncounted_S16(t *testing.T) {
	consumer := newFakeConsumer()
	stream := consumeStream(t, t.Context(), consumer, &fakeBroker{}, &ipcdv1.ConsumeOpen{Queue: "/q"})
	stream.CloseSend()
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v, want EOF", err)
	}
	if !<-consumer.closed {
		t.Error("attempts were counted")
	}
}

func TestABrokenStreamCountsAttempts_S16(t *testing.T) {
	consumer := newFakeConsumer()
	ctx, cancel := context.WithCancel(t.Context())
	consumeStream(t, ctx, consumer, &fakeBroker{}, &ipcdv1.ConsumeOpen{Queue: "/q"})
	cancel()
	if <-consumer.closed {
		t.Error("attempts were not counted")
	}
}

func TestDrainThenCancelReturnsLeasesUncounted_S16(t *testing.T) {
	consumer := newFakeConsumer()
	ctx, cancel := context.WithCancel(t.Context())
	stream := consumeStream(t, ctx, consumer, &fakeBroker{}, &ipcdv1.ConsumeOpen{Queue: "/q"})
	send(t, stream, drain())
	if recv(t, stream).GetDrained() == nil {
		t.Error("no drained after drain")
	}
	cancel()
	if !<-consumer.closed {
		t.Error("attempts were counted")
	}
}

func TestSettlingGoesOnAfterDrained(t *testing.T) {
	consumer := newFakeConsumer()
	consumer.settle = func([]broker.TagSettlement) (broker.Settled, error) { return broker.Settled{}, nil }
	stream := consumeStream(t, t.Context(), consumer, &fakeBroker{}, &ipcdv1.ConsumeOpen{Queue: "/q"})
	consumer.deliveries <- broker.Deliveries{First: 1, Deliveries: deliveries(1, 1)}
	recv(t, stream)
	send(t, stream, drain())
	if recv(t, stream).GetDrained() == nil {
		t.Error("no drained after drain")
	}
	send(t, stream, settlements(1, &ipcdv1.Settlement{Target: tags(1, 1), Outcome: &ipcdv1.Settlement_Ack{}}))
	if r := recv(t, stream).GetSettleResults(); r.GetSettleId() != 1 || len(r.Failures) != 0 {
		t.Errorf("results %v", r)
	}
	stream.CloseSend()
}

func TestWhatIsConsumedAtOnceIsHandedOverBeforeTheEnd(t *testing.T) {
	consumer := newFakeConsumer()
	consumer.lease = 0
	stream := consumeStream(t, t.Context(), consumer, &fakeBroker{}, &ipcdv1.ConsumeOpen{Queue: "/q", SettleMode: ipcdv1.SettleMode_SETTLE_MODE_CONSUME})
	for i := range 5 {
		consumer.deliveries <- broker.Deliveries{First: uint64(i + 1), Deliveries: deliveries(1, 1)}
	}
	stream.CloseSend()
	got := 0
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got += len(r.GetDeliveries().GetDeliveries())
	}
	if got != 5 {
		t.Errorf("%d of 5 consumed messages were handed over", got)
	}
}

func TestDrainOfTheDaemonLetsDeliveriesBeSettled_S27(t *testing.T) {
	consumer := newFakeConsumer()
	consumer.settle = func([]broker.TagSettlement) (broker.Settled, error) { return broker.Settled{}, nil }
	h := serve(t, &fakeBroker{consume: consumeWith(consumer)})
	stream, err := h.messages.Consume(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	openConsume(t, stream, &ipcdv1.ConsumeOpen{Queue: "/q"})
	h.server.Drain()
	if recv(t, stream).GetDrained() == nil {
		t.Error("no drained when the daemon drains")
	}
	send(t, stream, settlements(1, &ipcdv1.Settlement{Target: tags(1, 1), Outcome: &ipcdv1.Settlement_Ack{}}))
	if recv(t, stream).GetSettleResults() == nil {
		t.Error("no results after drained")
	}
	h.server.Stop(t.Context())
	_, err = stream.Recv()
	wantReason(t, err, reason.ShuttingDown)
	if !<-consumer.closed {
		t.Error("attempts were counted")
	}
}

func TestDeletingTheQueueEndsTheStream_S23(t *testing.T) {
	consumer := newFakeConsumer()
	stream := consumeStream(t, t.Context(), consumer, &fakeBroker{}, &ipcdv1.ConsumeOpen{Queue: "/q"})
	consumer.failed <- reason.New(reason.QueueDeleted, "the queue was deleted").On("/q")
	_, err := stream.Recv()
	wantReason(t, err, reason.QueueDeleted)
}

func TestConsumeRefusesWhatMakesNoSense(t *testing.T) {
	o := func(open *ipcdv1.ConsumeOpen) *ipcdv1.ConsumeRequest {
		return &ipcdv1.ConsumeRequest{Kind: &ipcdv1.ConsumeRequest_Open{Open: open}}
	}
	ok := o(&ipcdv1.ConsumeOpen{Queue: "/q"})
	for name, test := range map[string]struct {
		frames []*ipcdv1.ConsumeRequest
		want   string
	}{
		"credit first":   {[]*ipcdv1.ConsumeRequest{credit(1, 1)}, "must be `open`, not `credit`"},
		"empty first":    {[]*ipcdv1.ConsumeRequest{{}}, "first frame is empty"},
		"nothing":        {nil, "ended before it began"},
		"second open":    {[]*ipcdv1.ConsumeRequest{ok, ok}, "a second `open`"},
		"empty second":   {[]*ipcdv1.ConsumeRequest{ok, {}}, "an empty frame"},
		"bad credit":     {[]*ipcdv1.ConsumeRequest{ok, credit(1<<60, 0)}, "too much credit"},
		"no settlements": {[]*ipcdv1.ConsumeRequest{ok, settlements(1)}, "no settlements"},
		"bad selector":   {[]*ipcdv1.ConsumeRequest{o(&ipcdv1.ConsumeOpen{Queue: "/q", Selector: &ipcdv1.Selector{Kind: &ipcdv1.Selector_Type{Type: -1}}})}, "types are positive"},
		"bad lease":      {[]*ipcdv1.ConsumeRequest{o(&ipcdv1.ConsumeOpen{Queue: "/q", Lease: seconds(0)})}, "lease 0s"},
		"bad mode":       {[]*ipcdv1.ConsumeRequest{o(&ipcdv1.ConsumeOpen{Queue: "/q", SettleMode: 9})}, "settle_mode 9 is not known"},
	} {
		t.Run(name, func(t *testing.T) {
			consumer := newFakeConsumer()
			consumer.creditErr = reason.Invalid("credit.messages", "too much credit")
			h := serve(t, &fakeBroker{consume: consumeWith(consumer)})
			stream, err := h.messages.Consume(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			send(t, stream, test.frames...)
			if len(test.frames) == 0 {
				stream.CloseSend()
			}
			_, err = stream.Recv()
			if err == nil { // opened
				_, err = stream.Recv()
			}
			if s := wantReason(t, err, reason.InvalidArgument); !strings.Contains(s.Message(), test.want) {
				t.Errorf("message %q, want %q in it", s.Message(), test.want)
			}
		})
	}
}

func TestAVanishedConsumerLeavesNothingBehind(t *testing.T) {
	consumer := newFakeConsumer()
	h := serve(t, &fakeBroker{consume: consumeWith(consumer)})
	stream, err := h.messages.Consume(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	openConsume(t, stream, &ipcdv1.ConsumeOpen{Queue: "/q"})
	for i := range 8 { // more than the windows hold, and never read
		consumer.deliveries <- broker.Deliveries{First: uint64(i + 1), Deliveries: deliveries(1, streamWindowBytes)}
	}
	h.unix.Close()
	if <-consumer.closed {
		t.Error("attempts were not counted")
	}
}
