package rpc

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

func seconds(n int64) *durationpb.Duration { return &durationpb.Duration{Seconds: n} }

func equal[T comparable](a, b []T) bool { return slices.Equal(a, b) }

func TestSendPassesEveryFieldOn_S4(t *testing.T) {
	var got broker.SendRequest
	h := serve(t, &fakeBroker{send: func(_ context.Context, r broker.SendRequest) (queue.Stored, error) {
		got = r
		return queue.Stored{First: 5, Count: 3, SentAt: 1_000_000_001, Duplicates: []queue.Duplicate{{Index: 1, Sequence: 2}}}, nil
	}})
	response, err := h.messages.Send(t.Context(), &ipcdv1.SendRequest{
		Queue: "/q", ProducerId: "p", BatchId: 8, Instance: "i", Wait: seconds(3),
		Messages: []*ipcdv1.Message{
			{},
			{Type: math.MaxInt64, Priority: limits.PriorityMax, Body: []byte{0, 255}, Headers: map[string][]byte{"k": {1}},
				Schedule: &ipcdv1.Message_Delay{Delay: seconds(9)}, Ttl: seconds(60), DedupId: "d", CorrelationId: "c", ReplyTo: "/r", ContentType: "t"},
			{Schedule: &ipcdv1.Message_NotBefore{NotBefore: &timestamppb.Timestamp{Seconds: 2, Nanos: 3}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.Queue != "/q" || got.Producer != "p" || got.Batch != 8 || got.Instance != "i" || got.Wait != 3*time.Second || len(got.Messages) != 3 {
		t.Errorf("request %+v", got)
	}
	if m := got.Messages[0]; m.Type != 1 || m.Priority != 0 || len(m.Body) != 0 || m.Headers != nil || m.Delay != 0 || m.NotBefore != 0 || m.TTL != 0 {
		t.Errorf("an empty message became %+v", m)
	}
	m := got.Messages[1]
	if m.Type != math.MaxInt64 || m.Priority != limits.PriorityMax || string(m.Body) != "\x00\xff" || len(m.Headers) != 1 || m.Headers[0].Key != "k" || string(m.Headers[0].Value) != "\x01" ||
		m.Delay != 9*time.Second || m.TTL != time.Minute || m.DedupID != "d" || m.CorrelationID != "c" || m.ReplyTo != "/r" || m.ContentType != "t" {
		t.Errorf("a full message became %+v", m)
	}
	if m := got.Messages[2]; m.NotBefore != 2_000_000_003 {
		t.Errorf("not_before became %d", m.NotBefore)
	}
	if s := response.Stored; s.FirstSequence != 5 || s.Count != 3 || s.SendTime.Seconds != 1 || s.SendTime.Nanos != 1 || len(s.Duplicates) != 1 || s.Duplicates[0].Index != 1 || s.Duplicates[0].Sequence != 2 {
		t.Errorf("stored %v", s)
	}
}

func TestSendRefusesWhatMakesNoSense_S2(t *testing.T) {
	h := serve(t, &fakeBroker{}) // a call of the broker would panic
	one := func(m *ipcdv1.Message) *ipcdv1.SendRequest {
		return &ipcdv1.SendRequest{Queue: "/q", Messages: []*ipcdv1.Message{{}, {}, m}}
	}
	many := make([]*ipcdv1.Message, limits.BatchMessages+1)
	for i := range many {
		many[i] = new(ipcdv1.Message)
	}
	headers := make(map[string][]byte)
	for i := range limits.Headers + 1 {
		headers[string(rune('A'+i))] = nil
	}
	for name, test := range map[string]struct {
		request *ipcdv1.SendRequest
		field   string
		index   string
	}{
		"no messages":       {&ipcdv1.SendRequest{Queue: "/q"}, "messages", ""},
		"too many messages": {&ipcdv1.SendRequest{Queue: "/q", Messages: many}, "messages", ""},
		"too many bytes":    {&ipcdv1.SendRequest{Queue: "/q", Messages: []*ipcdv1.Message{{Body: make([]byte, limits.BatchBytes)}, {ReplyTo: "/"}}}, "messages", ""},
		"negative wait":     {&ipcdv1.SendRequest{Queue: "/q", Messages: many[:1], Wait: seconds(-1)}, "wait", ""},
		"endless wait":      {&ipcdv1.SendRequest{Queue: "/q", Messages: many[:1], Wait: seconds(math.MaxInt64)}, "wait", ""},
		"priority":          {one(&ipcdv1.Message{Priority: limits.PriorityMax + 1}), "priority", "2"},
		"priority 65536":    {one(&ipcdv1.Message{Priority: 65536}), "priority", "2"},
		"headers":           {one(&ipcdv1.Message{Headers: headers}), "headers", "2"},
		"negative delay":    {one(&ipcdv1.Message{Schedule: &ipcdv1.Message_Delay{Delay: seconds(-1)}}), "delay", "2"},
		"mixed delay":       {one(&ipcdv1.Message{Schedule: &ipcdv1.Message_Delay{Delay: &durationpb.Duration{Seconds: 1, Nanos: -1}}}), "delay", "2"},
		"endless ttl":       {one(&ipcdv1.Message{Ttl: seconds(math.MaxInt64)}), "ttl", "2"},
		"early not_before":  {one(&ipcdv1.Message{Schedule: &ipcdv1.Message_NotBefore{NotBefore: &timestamppb.Timestamp{Seconds: -1}}}), "not_before", "2"},
		"late not_before":   {one(&ipcdv1.Message{Schedule: &ipcdv1.Message_NotBefore{NotBefore: &timestamppb.Timestamp{Seconds: math.MaxInt64}}}), "not_before", "2"},
		"nanos":             {one(&ipcdv1.Message{Schedule: &ipcdv1.Message_NotBefore{NotBefore: &timestamppb.Timestamp{Nanos: -5}}}), "not_before", "2"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := h.messages.Send(t.Context(), test.request)
			s := wantInvalid(t, err, test.field)
			if info := detail[*errdetails.ErrorInfo](s); info.Metadata["index"] != test.index {
				t.Errorf("index %q, want %q", info.Metadata["index"], test.index)
			}
		})
	}
}

func TestReceivePassesEveryFieldOn(t *testing.T) {
	var got broker.ReceiveRequest
	h := serve(t, &fakeBroker{receive: func(_ context.Context, r broker.ReceiveRequest) ([]queue.Delivery, error) {
		got = r
		return deliveries(2, 4), nil
	}})
	response, err := h.messages.Receive(t.Context(), &ipcdv1.ReceiveRequest{
		Queue: "/q", Selector: &ipcdv1.Selector{Kind: &ipcdv1.Selector_Types{Types: &ipcdv1.TypeSet{Types: []int64{3, 1, 3}}}},
		MaxMessages: 9, Wait: seconds(2), Lease: seconds(4), MaxBodyBytes: math.MaxUint64, Truncate: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.Queue != "/q" || got.Selector.String() != "1,3" || got.Max != 9 || got.Wait != 2*time.Second || got.Lease != 4*time.Second || got.Consume || got.MaxBody != limits.MessageSizeMax || !got.Truncate {
		t.Errorf("request %+v", got)
	}
	if d := response.Deliveries[1]; len(response.Deliveries) != 2 || d.Queue != "/q" || d.Sequence != 2 || d.Receipt != "1.0.2.1.9" {
		t.Errorf("deliveries %v", response.Deliveries)
	}
	if _, err := h.messages.Receive(t.Context(), &ipcdv1.ReceiveRequest{Queue: "/q", SettleMode: ipcdv1.SettleMode_SETTLE_MODE_CONSUME}); err != nil {
		t.Fatal(err)
	}
	if !got.Consume || got.Max != 1 || got.Wait != 0 || got.Lease != 0 || got.Selector.Kind != queue.Any || got.MaxBody != 0 {
		t.Errorf("request %+v", got)
	}
}

func TestReceiveOfSeveralQueuesTellsFromWhichEachCame(t *testing.T) {
	var got broker.ReceiveRequest
	h := serve(t, &fakeBroker{receive: func(_ context.Context, r broker.ReceiveRequest) ([]queue.Delivery, error) {
		got = r
		out := deliveries(2, 4)
		if len(r.Queues) > 0 {
			out[0].Queue, out[1].Queue = "/b", "/a"
		}
		return out, nil
	}})
	response, err := h.messages.Receive(t.Context(), &ipcdv1.ReceiveRequest{Queues: []string{"/a", "/b"}, MaxMessages: 2})
	if err != nil {
		t.Fatal(err)
	}
	if got.Queue != "" || !equal(got.Queues, []string{"/a", "/b"}) || response.Deliveries[0].Queue != "/b" || response.Deliveries[1].Queue != "/a" {
		t.Errorf("request %+v, answer %v", got, response)
	}
	if response, err = h.messages.Receive(t.Context(), &ipcdv1.ReceiveRequest{Queues: []string{"/a"}}); err != nil {
		t.Fatal(err)
	}
	if got.Queue != "/a" || got.Queues != nil || response.Deliveries[0].Queue != "/a" {
		t.Errorf("of one queue: request %+v, answer %v", got, response)
	}
}

func TestReceiveRefusesWhatMakesNoSense(t *testing.T) {
	h := serve(t, &fakeBroker{})
	manyQueues := make([]string, limits.ReceiveQueues+1)
	for i := range manyQueues {
		manyQueues[i] = "/" + strings.Repeat("q", i)
	}
	for name, test := range map[string]struct {
		request *ipcdv1.ReceiveRequest
		field   string
	}{
		"max_messages":     {&ipcdv1.ReceiveRequest{MaxMessages: limits.ReceiveMessages + 1}, "max_messages"},
		"queue and queues": {&ipcdv1.ReceiveRequest{Queue: "/a", Queues: []string{"/b"}}, "queues"},
		"too many queues":  {&ipcdv1.ReceiveRequest{Queues: manyQueues}, "queues"},
		"named twice":      {&ipcdv1.ReceiveRequest{Queues: []string{"/a", "/b", "/a"}}, "queues"},
		"negative wait":    {&ipcdv1.ReceiveRequest{Wait: seconds(-1)}, "wait"},
		"invalid wait":     {&ipcdv1.ReceiveRequest{Wait: &durationpb.Duration{Nanos: 2e9}}, "wait"},
		"short lease":      {&ipcdv1.ReceiveRequest{Lease: &durationpb.Duration{Nanos: 1}}, "lease"},
		"long lease":       {&ipcdv1.ReceiveRequest{Lease: seconds(1e9)}, "lease"},
		"settle_mode":      {&ipcdv1.ReceiveRequest{SettleMode: 77}, "settle_mode"},
		"truncate to what": {&ipcdv1.ReceiveRequest{Truncate: true}, "truncate"},
		"type 0":           {&ipcdv1.ReceiveRequest{Selector: &ipcdv1.Selector{Kind: &ipcdv1.Selector_NotType{}}}, "selector"},
		"no types":         {&ipcdv1.ReceiveRequest{Selector: &ipcdv1.Selector{Kind: &ipcdv1.Selector_Types{}}}, "selector"},
		"too many types":   {&ipcdv1.ReceiveRequest{Selector: &ipcdv1.Selector{Kind: &ipcdv1.Selector_Types{Types: &ipcdv1.TypeSet{Types: make([]int64, limits.SelectorTypes+1)}}}}, "selector"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := h.messages.Receive(t.Context(), test.request)
			wantInvalid(t, err, test.field)
		})
	}
}

func TestLeasesOfACallerThatIsGoneAreReleased_S12(t *testing.T) {
	receiving, released := make(chan struct{}), make(chan []broker.Settlement, 1)
	h := serve(t, &fakeBroker{
		receive: func(ctx context.Context, _ broker.ReceiveRequest) ([]queue.Delivery, error) {
			close(receiving)
			<-ctx.Done() // the messages were leased just before
			return deliveries(2, 4), nil
		},
		settle: func(s []broker.Settlement) (broker.Settled, error) {
			released <- s
			return broker.Settled{}, nil
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-receiving
		cancel()
	}()
	if _, err := h.messages.Receive(ctx, &ipcdv1.ReceiveRequest{Queue: "/q", MaxMessages: 2}); err == nil {
		t.Fatal("a cancelled receive succeeded")
	}
	s := <-released
	if len(s) != 2 || s[0].Outcome != broker.Release || s[1].Outcome != broker.Release || s[1].Receipt.Sequence != 2 {
		t.Errorf("released %+v", s)
	}
}

func TestDeliveriesThatDoNotFitTheAnswerAreReleased(t *testing.T) {
	released := 0
	h := serve(t, &fakeBroker{
		receive: func(context.Context, broker.ReceiveRequest) ([]queue.Delivery, error) {
			return deliveries(5, 10<<20), nil
		},
		settle: func(s []broker.Settlement) (broker.Settled, error) {
			released += len(s)
			return broker.Settled{}, nil
		},
	})
	response, err := h.messages.Receive(t.Context(), &ipcdv1.ReceiveRequest{Queue: "/q", MaxMessages: 5})
	if err != nil {
		t.Fatal(err)
	}
	if len(response.Deliveries) != 3 || released != 2 {
		t.Errorf("%d delivered and %d released, want 3 and 2", len(response.Deliveries), released)
	}
}

func TestSettleFailsEachForItself_S13(t *testing.T) {
	h := serve(t, &fakeBroker{settle: func(s []broker.Settlement) (broker.Settled, error) {
		if len(s) != 5 || s[0].Outcome != broker.Ack || s[1].Outcome != broker.Nack || s[1].Delay != 0 || s[2].Outcome != broker.Touch || s[2].Lease != 0 || s[3].Outcome != broker.Release || s[4].Outcome != broker.Bury || s[4].Reason != "r" {
			t.Errorf("settlements %+v", s)
		}
		return broker.Settled{
			Failures: []broker.SettleFailure{{Index: 1, Err: reason.New(reason.StaleReceipt, "over").On("/q")}},
			Touched:  []broker.Touched{{Index: 2, LeaseEnds: 9e9}},
		}, nil
	}})
	good := &ipcdv1.Settlement_Receipt{Receipt: "1.1.42.1.k"}
	response, err := h.messages.Settle(t.Context(), &ipcdv1.SettleRequest{Settlements: []*ipcdv1.Settlement{
		0:  {Target: good, Outcome: &ipcdv1.Settlement_Ack{}},
		1:  {Target: good}, // no outcome
		2:  {Target: good, Outcome: &ipcdv1.Settlement_Nack{Nack: &ipcdv1.Nack{Delay: seconds(0)}}},
		3:  {Outcome: &ipcdv1.Settlement_Ack{}}, // no target
		4:  {Target: good, Outcome: &ipcdv1.Settlement_Touch{}},
		5:  {Target: tags(1, 1), Outcome: &ipcdv1.Settlement_Ack{}}, // no stream
		6:  {Target: good, Outcome: &ipcdv1.Settlement_Release{}},
		7:  {Target: &ipcdv1.Settlement_Receipt{Receipt: "1.2.3"}, Outcome: &ipcdv1.Settlement_Ack{}},
		8:  {Target: good, Outcome: &ipcdv1.Settlement_Bury{Bury: &ipcdv1.Bury{Reason: "r"}}},
		9:  {Target: good, Outcome: &ipcdv1.Settlement_Bury{Bury: &ipcdv1.Bury{Reason: strings.Repeat("x", limits.ReasonLength+1)}}},
		10: {Target: good, Outcome: &ipcdv1.Settlement_Nack{Nack: &ipcdv1.Nack{Delay: seconds(-1)}}},
		11: {Target: good, Outcome: &ipcdv1.Settlement_Touch{Touch: &ipcdv1.Touch{Lease: seconds(-1)}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	var failed []uint32
	for _, f := range response.Failures {
		failed = append(failed, f.Index)
		want := "INVALID_ARGUMENT"
		if f.Index == 2 {
			want = "STALE_RECEIPT"
		}
		if f.Error.Reason != want || f.Error.Message == "" {
			t.Errorf("failure %v, want %s", f, want)
		}
	}
	if want := []uint32{1, 2, 3, 5, 7, 9, 10, 11}; !equal(failed, want) {
		t.Errorf("failed %v, want %v", failed, want)
	}
	if len(response.Touched) != 1 || response.Touched[0].Index != 4 || response.Touched[0].LeaseExpireTime.Seconds != 9 {
		t.Errorf("touched %v", response.Touched)
	}
}

func TestSettleBoundsItsRequest_S2(t *testing.T) {
	h := serve(t, &fakeBroker{})
	_, err := h.messages.Settle(t.Context(), &ipcdv1.SettleRequest{})
	wantInvalid(t, err, "settlements")
	many := make([]*ipcdv1.Settlement, limits.SettlementsPerFrame+1)
	for i := range many {
		many[i] = new(ipcdv1.Settlement)
	}
	_, err = h.messages.Settle(t.Context(), &ipcdv1.SettleRequest{Settlements: many})
	wantInvalid(t, err, "settlements")
}
