package rpc

import (
	"fmt"
	"math"
	"reflect"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/limits"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

func TestImportTakesWhatPeekShowed(t *testing.T) {
	want := []queue.Peeked{
		{Delivery: queue.Delivery{Message: queue.Message{Type: 7, Priority: 3, Body: []byte{0, 255}, Headers: []queue.Header{{Key: "k", Value: []byte("v")}}, DedupID: "d",
			CorrelationID: "c", ReplyTo: "/r", ContentType: "t", TTL: time.Hour}, SentAt: 1_500_000_001, Attempts: 3}, State: queue.Buried, Due: 4e9, Expires: 5e9, BuryReason: "why"},
		{Delivery: queue.Delivery{Message: queue.Message{Type: 1}, SentAt: 2e9}, State: queue.Delayed, Due: 9e9},
		{Delivery: queue.Delivery{Message: queue.Message{Type: 1}, SentAt: 2e9}, State: queue.Leased},
	}
	shown := encodePeeked(want)
	shown[2].Sequence, shown[2].LeaseExpireTime = 99, encodeTime(8e9) // ignored
	var got broker.ImportRequest
	h := serve(t, &fakeBroker{imported: func(r broker.ImportRequest) (queue.Stored, error) {
		got = r
		return queue.Stored{First: 5, Count: 3, SentAt: 1}, nil
	}})
	r, err := h.messages.ImportMessages(t.Context(), &ipcdv1.ImportMessagesRequest{Queue: "/q", Messages: shown, ProducerId: "p", BatchId: 8, Instance: "i"})
	if err != nil || r.Stored.FirstSequence != 5 || r.Stored.Count != 3 {
		t.Fatalf("%v, %v", r, err)
	}
	if got.Queue != "/q" || got.Producer != "p" || got.Batch != 8 || got.Instance != "i" {
		t.Errorf("request %+v", got)
	}
	for i := range got.Messages {
		if m := &got.Messages[i]; len(m.Body) == 0 {
			m.Body = nil
		}
	}
	if !reflect.DeepEqual(got.Messages, want) {
		t.Errorf("got  %+v\nwant %+v", got.Messages, want)
	}
}

func TestImportTakesAllHeadersOfADeadLetter(t *testing.T) {
	h := serve(t, &fakeBroker{imported: func(r broker.ImportRequest) (queue.Stored, error) {
		if n := len(r.Messages[0].Headers); n != limits.Headers+5 {
			t.Errorf("%d headers", n)
		}
		return queue.Stored{Count: 1}, nil
	}})
	if _, err := h.messages.ImportMessages(t.Context(), &ipcdv1.ImportMessagesRequest{Messages: []*ipcdv1.PeekedMessage{{Message: withHeaders(limits.Headers + 5)}}}); err != nil {
		t.Error(err)
	}
}

func withHeaders(n int) *ipcdv1.Message {
	m := &ipcdv1.Message{Headers: map[string][]byte{}}
	for i := range n {
		m.Headers[fmt.Sprint(i)] = nil
	}
	return m
}

func TestImportsThatMakeNoSenseAreRefused(t *testing.T) {
	h := serve(t, &fakeBroker{})
	third := func(m *ipcdv1.PeekedMessage) []*ipcdv1.PeekedMessage {
		if m.Message == nil {
			m.Message = &ipcdv1.Message{}
		}
		return []*ipcdv1.PeekedMessage{{Message: &ipcdv1.Message{}}, {Message: &ipcdv1.Message{}}, m}
	}
	empty := make([]*ipcdv1.PeekedMessage, limits.BatchMessages+1)
	for i := range empty {
		empty[i] = &ipcdv1.PeekedMessage{}
	}
	large := []*ipcdv1.PeekedMessage{{Message: &ipcdv1.Message{Body: make([]byte, limits.BatchBytes)}}, {Message: &ipcdv1.Message{ReplyTo: "/"}}}
	for name, test := range map[string]struct {
		messages []*ipcdv1.PeekedMessage
		field    string
		index    string
	}{
		"nothing":          {nil, "messages", ""},
		"too many":         {empty, "messages", ""},
		"too many bytes":   {large, "messages", ""},
		"no message":       {empty[:1], "message", "0"},
		"a cut body":       {third(&ipcdv1.PeekedMessage{TruncatedFrom: 10}), "truncated_from", "2"},
		"a schedule":       {third(&ipcdv1.PeekedMessage{Message: &ipcdv1.Message{Schedule: &ipcdv1.Message_Delay{Delay: seconds(1)}}}), "schedule", "2"},
		"an unknown state": {third(&ipcdv1.PeekedMessage{State: 5}), "state", "2"},
		"a negative state": {third(&ipcdv1.PeekedMessage{State: -1}), "state", "2"},
		"sent before 1970": {third(&ipcdv1.PeekedMessage{SendTime: &timestamppb.Timestamp{Seconds: -1}}), "send_time", "2"},
		"due after 2262":   {third(&ipcdv1.PeekedMessage{DueTime: &timestamppb.Timestamp{Seconds: math.MaxInt64}}), "due_time", "2"},
		"bad nanos":        {third(&ipcdv1.PeekedMessage{ExpireTime: &timestamppb.Timestamp{Nanos: -1}}), "expire_time", "2"},
		"a negative TTL":   {third(&ipcdv1.PeekedMessage{Message: &ipcdv1.Message{Ttl: seconds(-1)}}), "ttl", "2"},
		"priority":         {third(&ipcdv1.PeekedMessage{Message: &ipcdv1.Message{Priority: 65536}}), "priority", "2"},
		"headers":          {third(&ipcdv1.PeekedMessage{Message: withHeaders(limits.Headers + 6)}), "headers", "2"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := h.messages.ImportMessages(t.Context(), &ipcdv1.ImportMessagesRequest{Queue: "/q", Messages: test.messages})
			s := wantInvalid(t, err, test.field)
			if info := detail[*errdetails.ErrorInfo](s); info.Metadata["index"] != test.index || info.Metadata["queue"] != "/q" {
				t.Errorf("metadata %v, want index %q of /q", info.Metadata, test.index)
			}
		})
	}
}
