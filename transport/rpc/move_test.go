package rpc

import (
	"math"
	"testing"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// oneType selects the messages of a type.
func oneType(n int64) *ipcdv1.Selector {
	return &ipcdv1.Selector{Kind: &ipcdv1.Selector_Type{Type: n}}
}

func TestMovePassesAllOn(t *testing.T) {
	var got broker.MoveRequest
	h := serve(t, &fakeBroker{move: func(r broker.MoveRequest) (int64, string, error) {
		got = r
		return 12, "next", nil
	}})
	r, err := h.admin.MoveMessages(t.Context(), &ipcdv1.MoveMessagesRequest{
		Source: "/a", Destination: "/b", Filter: &ipcdv1.Filter{MinSequence: 5, Selector: oneType(4)}, Limit: 3, DryRun: true, Cursor: "c"})
	if err != nil || r.Messages != 12 || r.Cursor != "next" {
		t.Fatalf("%v, %v", r, err)
	}
	if got.From != "/a" || got.To != "/b" || got.Filter.MinSequence != 5 || got.Filter.Selector.String() != "4" || got.Max != 3 || !got.DryRun || got.Cursor != "c" {
		t.Errorf("request %+v", got)
	}
}

func TestRedriveTellsOfEachQueueAndWhyTheRestStayed(t *testing.T) {
	var got broker.RedriveRequest
	h := serve(t, &fakeBroker{redrive: func(r broker.RedriveRequest) ([]broker.Redriven, error) {
		got = r
		return []broker.Redriven{{Queue: "/a", Messages: 7}, {Queue: "/b", Err: reason.New(reason.QueueFull, "full")}}, nil
	}})
	r, err := h.admin.RedriveMessages(t.Context(), &ipcdv1.RedriveMessagesRequest{Name: "/dead", Filter: &ipcdv1.Filter{MaxSequence: 9}, Limit: 8, DryRun: true})
	if err != nil || len(r.Redriven) != 2 {
		t.Fatalf("%v, %v", r, err)
	}
	if a, b := r.Redriven[0], r.Redriven[1]; a.Queue != "/a" || a.Messages != 7 || a.Error != nil || b.Queue != "/b" || b.Messages != 0 || b.Error.GetReason() != string(reason.QueueFull) {
		t.Errorf("answer %v", r)
	}
	if got.Queue != "/dead" || got.Filter.MaxSequence != 9 || got.Max != 8 || !got.DryRun {
		t.Errorf("request %+v", got)
	}
}

func TestMovesThatMakeNoSenseAreRefused(t *testing.T) {
	h := serve(t, &fakeBroker{})
	for field, r := range map[string]*ipcdv1.MoveMessagesRequest{
		"filter.older_than":   {Source: "/a", Filter: &ipcdv1.Filter{OlderThan: seconds(-1)}},
		"filter.states":       {Source: "/a", Filter: &ipcdv1.Filter{States: make([]ipcdv1.MessageState, 1_000_000)}},
		"filter.min_sequence": {Source: "/a", Filter: &ipcdv1.Filter{MinSequence: 2, MaxSequence: 1}},
		"limit":               {Source: "/a", Limit: math.MaxUint64},
	} {
		_, err := h.admin.MoveMessages(t.Context(), r)
		wantInvalid(t, err, field)
		_, err = h.admin.RedriveMessages(t.Context(), &ipcdv1.RedriveMessagesRequest{Name: r.Source, Filter: r.Filter, Limit: r.Limit})
		wantInvalid(t, err, field)
	}
}

func TestBindAndUnbindAnswerWithTheSource(t *testing.T) {
	var got queue.Bind
	h := serve(t, &fakeBroker{
		bind: func(source string, bind queue.Bind) (broker.Info, error) {
			got = bind
			return broker.Info{Name: source, Settings: queue.Settings{Binds: []queue.Bind{bind}}}, nil
		},
		unbind: func(source, destination string) (broker.Info, error) {
			if destination != "/dst" {
				return broker.Info{}, reason.New(reason.Internal, "unbind of %s", destination)
			}
			return broker.Info{Name: source}, nil
		},
	})
	bind := &ipcdv1.Bind{Destination: "/dst", Selector: oneType(3), Overflow: ipcdv1.BindOverflow_BIND_OVERFLOW_SKIP}
	r, err := h.admin.BindQueue(t.Context(), &ipcdv1.BindQueueRequest{Source: "/src", Bind: bind})
	if err != nil {
		t.Fatal(err)
	}
	if got.To != "/dst" || got.Selector.String() != "3" || !got.Skip {
		t.Errorf("bind %+v", got)
	}
	if b := r.Queue.Settings.Binds; r.Queue.Name != "/src" || len(b) != 1 || b[0].Destination != "/dst" || b[0].Selector.GetType() != 3 || b[0].Overflow != ipcdv1.BindOverflow_BIND_OVERFLOW_SKIP {
		t.Errorf("answer %v", r)
	}
	u, err := h.admin.UnbindQueue(t.Context(), &ipcdv1.UnbindQueueRequest{Source: "/src", Destination: "/dst"})
	if err != nil || u.Queue.Name != "/src" || len(u.Queue.Settings.Binds) != 0 {
		t.Errorf("unbind: %v, %v", u, err)
	}
}

func TestBindsThatMakeNoSenseAreRefused(t *testing.T) {
	h := serve(t, &fakeBroker{})
	for field, bind := range map[string]*ipcdv1.Bind{
		"bind":          nil,
		"bind.overflow": {Destination: "/b", Overflow: -1},
		"bind.selector": {Destination: "/b", Selector: oneType(-5)},
	} {
		_, err := h.admin.BindQueue(t.Context(), &ipcdv1.BindQueueRequest{Source: "/a", Bind: bind})
		wantInvalid(t, err, field)
	}
}
