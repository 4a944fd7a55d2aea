package rpc

import (
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

func someMessages(n, body int) []*ipcdv1.Message {
	out := make([]*ipcdv1.Message, n)
	for i := range out {
		out[i] = &ipcdv1.Message{Body: make([]byte, body)}
	}
	return out
}

func TestTransactPassesAllOn_S24(t *testing.T) {
	var got broker.TransactRequest
	h := serve(t, &fakeBroker{transact: func(r broker.TransactRequest) ([]queue.Stored, error) {
		got = r
		return []queue.Stored{{First: 5, Count: 2, SentAt: 1_500_000_000}, {First: 9, Count: 1, Duplicates: []queue.Duplicate{{Index: 0, Sequence: 3}}}}, nil
	}})
	r, err := h.messages.Transact(t.Context(), &ipcdv1.TransactRequest{
		Sends:    []*ipcdv1.TransactSend{{Queue: "/a", Messages: someMessages(2, 1)}, {Queue: "/b", Messages: someMessages(1, 4)}},
		Receipts: []string{"1.1.42.1.k", "2.1.43.1.k"}, ProducerId: "p", BatchId: 7, Instance: "i",
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.Producer != "p" || got.Batch != 7 || got.Instance != "i" || len(got.Sends) != 2 || len(got.Acks) != 2 {
		t.Fatalf("request %+v", got)
	}
	if a, b := got.Sends[0], got.Sends[1]; a.Queue != "/a" || len(a.Messages) != 2 || b.Queue != "/b" || len(b.Messages[0].Body) != 4 || b.Messages[0].Type != 1 {
		t.Errorf("sends %+v", got.Sends)
	}
	if got.Acks[0].Sequence != 42 || got.Acks[1].Queue != 2 {
		t.Errorf("acks %+v", got.Acks)
	}
	if s := r.Stored; len(s) != 2 || s[0].FirstSequence != 5 || s[0].Count != 2 || s[0].SendTime.Nanos != 500_000_000 || s[1].Duplicates[0].Sequence != 3 {
		t.Errorf("stored %v", s)
	}
}

func TestTransactRefusesWhatMakesNoSense(t *testing.T) {
	good := &ipcdv1.TransactSend{Queue: "/a", Messages: someMessages(1, 1)}
	bad := &ipcdv1.TransactSend{Queue: "/b", Messages: someMessages(3, 1)}
	bad.Messages[2].Priority = limits.PriorityMax + 1
	h := serve(t, &fakeBroker{}) // nothing reaches the broker
	for name, test := range map[string]struct {
		request *ipcdv1.TransactRequest
		field   string
		index   string
		want    string
	}{
		"nothing":           {&ipcdv1.TransactRequest{}, "sends", "", "a transaction of nothing"},
		"an empty send":     {&ipcdv1.TransactRequest{Sends: []*ipcdv1.TransactSend{good, {Queue: "/b"}}}, "messages", "1", "without messages"},
		"a bad message":     {&ipcdv1.TransactRequest{Sends: []*ipcdv1.TransactSend{good, bad}}, "priority", "1", "message 2: priority"},
		"a bad receipt":     {&ipcdv1.TransactRequest{Sends: []*ipcdv1.TransactSend{good}, Receipts: []string{"1.1.42.1.k", "x"}}, "receipts", "2", "no receipt"},
		"too many sends":    {&ipcdv1.TransactRequest{Sends: make([]*ipcdv1.TransactSend, limits.BatchMessages+1)}, "sends", "", "16385 sends"},
		"too many messages": {&ipcdv1.TransactRequest{Sends: []*ipcdv1.TransactSend{good, {Messages: someMessages(limits.BatchMessages, 0)}}}, "sends", "", "16385 messages in all"},
		"too many bytes":    {&ipcdv1.TransactRequest{Sends: []*ipcdv1.TransactSend{{Messages: someMessages(1, limits.BatchBytes/2)}, {Messages: someMessages(1, limits.BatchBytes/2+1)}}}, "sends", "", "25165825 bytes"},
		"too many receipts": {&ipcdv1.TransactRequest{Receipts: make([]string, limits.SettlementsPerFrame+1)}, "receipts", "", "65537 receipts"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := h.messages.Transact(t.Context(), test.request)
			s := wantInvalid(t, err, test.field)
			if index := detail[*errdetails.ErrorInfo](s).Metadata["index"]; index != test.index || !strings.Contains(s.Message(), test.want) {
				t.Errorf("index %q, message %q; want %q, %q", index, s.Message(), test.index, test.want)
			}
		})
	}
}

func TestAFullDiskSaysWhenToTryAgain_S27(t *testing.T) {
	h := serve(t, &fakeBroker{transact: func(broker.TransactRequest) ([]queue.Stored, error) {
		return nil, reason.New(reason.DiskFull, "full").At(1).On("/b")
	}})
	_, err := h.messages.Transact(t.Context(), &ipcdv1.TransactRequest{Receipts: []string{"1.1.42.1.k"}})
	s := wantReason(t, err, reason.DiskFull)
	if again := detail[*errdetails.RetryInfo](s).GetRetryDelay().AsDuration(); again != diskFullRetry {
		t.Errorf("try again after %v", again)
	}
	if info := detail[*errdetails.ErrorInfo](s); info.Metadata["index"] != "1" || info.Metadata["queue"] != "/b" {
		t.Errorf("%v", info)
	}
}
