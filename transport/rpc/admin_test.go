package rpc

import (
	"errors"
	"fmt"
	"io"
	"math"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/limits"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

func TestListQueuesStreamsOneAtATime(t *testing.T) {
	h := serve(t, &fakeBroker{list: func(glob string) ([]broker.Info, error) {
		return []broker.Info{{Name: "/a" + glob}, {Name: "/b"}}, nil
	}})
	stream, err := h.admin.ListQueues(t.Context(), &ipcdv1.ListQueuesRequest{Glob: "*"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"/a*", "/b"} {
		if r, err := stream.Recv(); err != nil || r.Queue.Name != want {
			t.Errorf("got %v, %v; want %s", r, err, want)
		}
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}
}

func TestQueueShowsAllThatIsKnown(t *testing.T) {
	now := time.Unix(1000, 0)
	got := encodeQueue(broker.Info{
		Name: "/q", ID: 3, Paused: true, CreatedAt: 5e9, Settings: queue.Default(1, 2),
		Stats: broker.Stats{
			Stats: queue.Stats{Ready: 1, Delayed: 2, Leased: 3, Buried: 4, Uncommitted: 5, Bytes: 6, OldestReady: 990e9, DedupIDs: 7, Sent: 8, Delivered: 9, Consumed: 10,
				Nacked: 11, LeaseExpired: 12, TTLDropped: 13, OverflowDropped: 14, DeadLettered: 15, Purged: 16, Duplicates: 17, Peeked: 18, Moved: 24},
			Receivers: 19, BlockedSenders: 20, Taps: 25, SendRate: 21, DeliveryRate: 22, AckRate: 23},
		Doors: []broker.DoorStatus{{Direction: "in", Name: "/q", Open: true, Problem: "p", MaxMessages: 1, MessageSize: 2, Current: 3, Passed: 4, Skipped: 5, UID: 6, GID: 7, Mode: 8}},
		Binds: []broker.BindStatus{{To: "/d", Copied: 1, Skipped: 2, Problem: "full"}}, Temporary: true, Schema: 4,
	}, now)
	if got.Name != "/q" || got.Id != 3 || !got.Paused || got.CreateTime.Seconds != 5 {
		t.Errorf("queue %v", got)
	}
	stats := &ipcdv1.QueueStats{Ready: 1, Delayed: 2, Leased: 3, Buried: 4, Uncommitted: 5, Bytes: 6, OldestAge: seconds(10), DedupIds: 7, SentTotal: 8, DeliveredTotal: 9, ConsumedTotal: 10,
		NackedTotal: 11, LeaseExpiredTotal: 12, TtlDroppedTotal: 13, OverflowDroppedTotal: 14, DeadLetteredTotal: 15, PurgedTotal: 16, DuplicatesTotal: 17, PeekedTotal: 18,
		MovedTotal: 24, Taps: 25, Receivers: 19, BlockedSenders: 20, SendRate: 21, DeliveryRate: 22, AckRate: 23}
	if !proto.Equal(got.Stats, stats) {
		t.Errorf("stats %v\nwant  %v", got.Stats, stats)
	}
	bind := &ipcdv1.BindStatus{Destination: "/d", CopiedTotal: 1, SkippedTotal: 2, Problem: "full"}
	if len(got.Binds) != 1 || !proto.Equal(got.Binds[0], bind) || !got.Temporary || got.SchemaVersion != 4 {
		t.Errorf("binds %v, temporary %v, schema %d", got.Binds, got.Temporary, got.SchemaVersion)
	}
	door := &ipcdv1.KernelQueueStatus{Direction: "in", Name: "/q", Open: true, Problem: "p", MaxMessages: 1, MessageSize: 2, CurrentMessages: 3, PassedTotal: 4, SkippedTotal: 5, OwnerUid: 6, GroupGid: 7, Mode: 8}
	if len(got.KernelQueues) != 1 || !proto.Equal(got.KernelQueues[0], door) {
		t.Errorf("kernel queues %v", got.KernelQueues)
	}
}

func TestPurgeAndKickPassTheirFilterOn_S22(t *testing.T) {
	var got broker.SelectRequest
	h := serve(t, &fakeBroker{purge: func(r broker.SelectRequest) (int64, string, error) {
		got = r
		return 12, "next", nil
	}})
	filter := &ipcdv1.Filter{
		Selector: &ipcdv1.Selector{Kind: &ipcdv1.Selector_Type{Type: 4}}, MinSequence: 5, MaxSequence: 9, OlderThan: seconds(60), Headers: map[string][]byte{"k": []byte("v")},
		States: []ipcdv1.MessageState{ipcdv1.MessageState_MESSAGE_STATE_LEASED, ipcdv1.MessageState_MESSAGE_STATE_BURIED},
	}
	before := time.Now().Add(-time.Minute).UnixNano()
	purged, err := h.admin.PurgeQueue(t.Context(), &ipcdv1.PurgeQueueRequest{Name: "/q", Filter: filter, Limit: 3, DryRun: true, Cursor: "c"})
	if err != nil || purged.Messages != 12 || purged.Cursor != "next" {
		t.Fatalf("%v, %v", purged, err)
	}
	f := got.Filter
	if got.Queue != "/q" || got.Max != 3 || !got.DryRun || got.Cursor != "c" || f.Selector.String() != "4" || f.MinSequence != 5 || f.MaxSequence != 9 ||
		len(f.States) != 2 || f.States[0] != queue.Leased || f.States[1] != queue.Buried || len(f.Headers) != 1 || f.SentBefore < before || f.SentBefore > time.Now().UnixNano() {
		t.Errorf("request %+v", got)
	}
	kicked, err := h.admin.KickMessages(t.Context(), &ipcdv1.KickMessagesRequest{Name: "/k"})
	if err != nil || kicked.Messages != 12 || got.Queue != "/k" || got.Max != 0 || got.Filter.SentBefore != 0 {
		t.Errorf("%v, %v, %+v", kicked, err, got)
	}
}

func TestFiltersThatMakeNoSenseAreRefused(t *testing.T) {
	h := serve(t, &fakeBroker{})
	headers := make(map[string][]byte)
	for i := range limits.Headers + 1 {
		headers[fmt.Sprint(i)] = nil
	}
	for field, filter := range map[string]*ipcdv1.Filter{
		"filter.states":       {States: []ipcdv1.MessageState{ipcdv1.MessageState_MESSAGE_STATE_UNSPECIFIED}},
		"filter.min_sequence": {MinSequence: 5, MaxSequence: 4},
		"filter.older_than":   {OlderThan: seconds(-1)},
		"filter.headers":      {Headers: headers},
		"selector":            {Selector: &ipcdv1.Selector{Kind: &ipcdv1.Selector_LowestUpto{LowestUpto: -4}}},
	} {
		_, err := h.admin.PurgeQueue(t.Context(), &ipcdv1.PurgeQueueRequest{Name: "/q", Filter: filter})
		wantInvalid(t, err, field)
		stream, err := h.messages.Peek(t.Context(), &ipcdv1.PeekRequest{Queue: "/q", Filter: filter})
		if err != nil {
			t.Fatal(err)
		}
		_, err = stream.Recv()
		wantInvalid(t, err, field)
	}
	for _, states := range [][]ipcdv1.MessageState{{5}, {-1}, {1, 1, 1, 1, 1, 1}} {
		_, err := h.admin.PurgeQueue(t.Context(), &ipcdv1.PurgeQueueRequest{Name: "/q", Filter: &ipcdv1.Filter{States: states}})
		wantInvalid(t, err, "filter.states")
	}
	_, err := h.admin.PurgeQueue(t.Context(), &ipcdv1.PurgeQueueRequest{Name: "/q", Limit: math.MaxUint64})
	wantInvalid(t, err, "limit")
}

func TestDeletePauseAndResume(t *testing.T) {
	h := serve(t, &fakeBroker{})
	if r, err := h.admin.DeleteQueue(t.Context(), &ipcdv1.DeleteQueueRequest{Name: "/q"}); err != nil || r.Messages != 17 {
		t.Errorf("delete: %v, %v", r, err)
	}
	if r, err := h.admin.PauseQueue(t.Context(), &ipcdv1.PauseQueueRequest{Name: "/q"}); err != nil || !r.Queue.Paused {
		t.Errorf("pause: %v, %v", r, err)
	}
	if r, err := h.admin.ResumeQueue(t.Context(), &ipcdv1.ResumeQueueRequest{Name: "/q"}); err != nil || r.Queue.Paused {
		t.Errorf("resume: %v, %v", r, err)
	}
}
