package client

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// everyRingSetting has every field set to something that is no default.
func everyRingSetting() RingSettings {
	return RingSettings{
		CapacityBytes: 1 << 20, MaxMessageBytes: 100, Policy: RingLossless, Mode: new(uint32(0o660)), OwnerUID: new(uint32(0)), GroupGID: new(uint32(11)),
		RetainBytes: new(int64(0)), Stall: 2 * time.Second,
	}
}

// ring makes a ring of the default settings.
func (f *fake) ring(t testing.TB, c *Client, name string) *Ring {
	t.Helper()
	if _, err := c.CreateRing(t.Context(), name, RingSettings{}); err != nil {
		t.Fatal(err)
	}
	return c.Ring(name)
}

func TestEveryRingSettingGoesThereAndBack(t *testing.T) {
	c := startFake(t).dial(t)
	want := everyRingSetting()
	for i := range reflect.TypeFor[RingSettings]().NumField() {
		if reflect.ValueOf(want).Field(i).IsZero() {
			t.Fatalf("the test leaves out %s", reflect.TypeFor[RingSettings]().Field(i).Name)
		}
	}
	info, err := c.CreateRing(t.Context(), "all", want)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(info.Settings, want) {
		t.Errorf("got  %+v\nwant %+v", info.Settings, want)
	}
	if info.Name != "/all" || info.ID != 5 || info.CreatedAt.IsZero() {
		t.Errorf("%+v", info)
	}
}

// everyField fails if p, or a message in it, has a field of its schema that is not set.
func everyField(t *testing.T, v reflect.Value) {
	t.Helper()
	for i := range v.NumField() {
		field, name := v.Field(i), v.Type().Field(i).Name
		if field.IsZero() {
			t.Errorf("%s.%s is not taken over", v.Type().Name(), name)
		}
		if field.Kind() == reflect.Slice {
			everyField(t, field.Index(0))
		}
	}
}

func TestRingInfoShowsAllThatIsKnown(t *testing.T) {
	at := timestamppb.New(time.Unix(5, 0))
	info := ringInfoOf(&ipcdv1.Ring{
		Name: "/r", RingId: 1, CreateTime: at, MemoryBytes: 2, Epoch: 3, Settings: &ipcdv1.RingSettings{},
		Lanes: []*ipcdv1.RingLane{{LaneId: 1, Slot: 2, Uid: 3, Pid: 4, Daemon: true, JoinTime: at, Ended: true, Position: 5, OldestPosition: 6, Sequence: 7, PublishRate: 8,
			WakesTotal: 9, WakesElidedTotal: 10, Blocked: true, BlocksTotal: 11, BlockedTimeTotal: durationpb.New(12), EvictionsTotal: 13,
			BackstopsTotal: 14, KnownEpoch: 15, SlowestConsumerId: 16, SlowestLagMessages: 17, MemoryBytes: 18, Unreadable: true}},
		Consumers: []*ipcdv1.RingConsumer{{ConsumerId: 1, Slot: 2, Uid: 3, Pid: 4, Daemon: true, JoinTime: at, Lossless: true, Parked: true, ReceivedTotal: 5, LostTotal: 6,
			ReceiveRate: 7, ParksTotal: 8, BackstopsTotal: 9, LagMessages: 10, Anonymous: true, CorruptLanesTotal: 11, Unreadable: true,
			Cursors: []*ipcdv1.RingCursor{{LaneId: 1, Position: 2, Sequence: 3, LagMessages: 4, LagBytes: 5, LostTotal: 6, Evicted: true}}}},
	})
	everyField(t, reflect.ValueOf(info.Lanes[0]))
	everyField(t, reflect.ValueOf(info.Consumers[0]))
	want := RingLane{ID: 1, Slot: 2, UID: 3, PID: 4, Daemon: true, JoinedAt: time.Unix(5, 0), Ended: true, Position: 5, OldestPosition: 6, Sequence: 7, PublishRate: 8,
		WakesTotal: 9, WakesElidedTotal: 10, Blocked: true, BlocksTotal: 11, BlockedTimeTotal: 12, EvictionsTotal: 13,
		BackstopsTotal: 14, KnownEpoch: 15, SlowestConsumerID: 16, SlowestLagMessages: 17, MemoryBytes: 18, Unreadable: true}
	if info.Lanes[0] != want {
		t.Errorf("lane %+v\nwant %+v", info.Lanes[0], want)
	}
	consumer := RingConsumer{ID: 1, Slot: 2, UID: 3, PID: 4, Daemon: true, JoinedAt: time.Unix(5, 0), Lossless: true, Parked: true, ReceivedTotal: 5, LostTotal: 6,
		ReceiveRate: 7, ParksTotal: 8, BackstopsTotal: 9, LagMessages: 10, Anonymous: true, CorruptLanesTotal: 11, Unreadable: true,
		Cursors: []RingCursor{{LaneID: 1, Position: 2, Sequence: 3, LagMessages: 4, LagBytes: 5, LostTotal: 6, Evicted: true}}}
	if !reflect.DeepEqual(info.Consumers[0], consumer) {
		t.Errorf("consumer %+v\nwant     %+v", info.Consumers[0], consumer)
	}
	if info.MemoryBytes != 2 || info.Epoch != 3 {
		t.Errorf("%+v", info)
	}
}

func TestRingsAreMadeChangedListedAndDeleted(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	var created bool
	for i, want := range []bool{true, false} {
		if _, err := c.CreateRing(t.Context(), "ticks", RingSettings{}, ReportCreated(&created)); err != nil || created != want {
			t.Errorf("call %d: created %v, %v, want %v", i, created, err, want)
		}
	}
	if _, err := c.CreateRing(t.Context(), "/ticks", RingSettings{}, Exclusive()); !errors.Is(err, ErrRingExists) {
		t.Errorf("exclusive: %v, want ErrRingExists", err)
	}
	if _, err := c.UpdateRing(t.Context(), "ticks", RingSettings{}); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("update without fields: %v, want ErrInvalidArgument", err)
	}
	info, err := c.UpdateRing(t.Context(), "ticks", RingSettings{Stall: time.Minute}, "stall", "mode")
	if err != nil || info.Settings.Stall != time.Minute || f.sawLocked("update ring [stall mode]") != 1 {
		t.Errorf("%+v, %v, %q", info, err, f.seen)
	}
	f.ring(t, c, "/ticks.eu")
	list := func(glob string, most int) (names []string) {
		for info, err := range c.Rings(t.Context(), glob) {
			if err != nil {
				t.Fatal(err)
			}
			if names = append(names, info.Name); len(names) == most {
				break
			}
		}
		return names
	}
	for glob, want := range map[string][]string{"": {"/ticks", "/ticks.eu"}, "*.eu": {"/ticks.eu"}, "x": nil} {
		if got := list(glob, 9); !slices.Equal(got, want) {
			t.Errorf("glob %q: %q, want %q", glob, got, want)
		}
	}
	if got := list("", 1); len(got) != 1 {
		t.Errorf("%q", got)
	}
	for _, err := range c.Rings(t.Context(), "[") {
		if !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("%v, want ErrInvalidArgument", err)
		}
	}
	if info, err := c.Ring("ticks").Info(t.Context()); err != nil || info.Name != "/ticks" {
		t.Errorf("%+v, %v", info, err)
	}
	if err := c.DeleteRing(t.Context(), "ticks"); err != nil {
		t.Error(err)
	}
	var e *Error
	if err := c.DeleteRing(t.Context(), "ticks"); !errors.As(err, &e) || !errors.Is(err, ErrRingNotFound) || e.Queue != "/ticks" {
		t.Errorf("%#v", err)
	}
	if _, err := c.Ring("ticks").Info(t.Context()); !errors.Is(err, ErrRingNotFound) {
		t.Errorf("%v, want ErrRingNotFound", err)
	}
	if _, err := c.UpdateRing(t.Context(), "ticks", RingSettings{}, "mode"); !errors.Is(err, ErrRingNotFound) {
		t.Errorf("%v, want ErrRingNotFound", err)
	}
}

func TestSubscribersSeeWhatIsPublished(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	r := f.ring(t, c, "/ticks")
	p, err := r.Publisher(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	publish := func(m ...RingMessage) RingPublished {
		t.Helper()
		published, err := p.Publish(t.Context(), m...)
		if err != nil {
			t.Fatal(err)
		}
		return published
	}
	if got, want := publish(RingMessage{Type: 1, Payload: []byte("a")}, RingMessage{Type: 2, Payload: []byte("b")}), (RingPublished{9, 1, 2}); got != want {
		t.Errorf("published %+v, want %+v", got, want)
	}
	for from, want := range map[RingPosition]string{FromOldest(): "abc", FromSequence(2): "bc", FromNewest(): "c", {}: "c"} {
		f.mu.Lock()
		f.rings["/ticks"].log = f.rings["/ticks"].log[:2]
		f.mu.Unlock()
		ctx, cancel := context.WithCancel(t.Context())
		got := ""
		for d, err := range r.Subscribe(ctx, RingSubscribeOptions{From: from, OnOpen: func() { publish(RingMessage{Type: 7, Payload: []byte("c")}) }}) {
			if err != nil {
				t.Fatal(err)
			}
			if d.LaneID != 9 || d.Sequence != uint64(d.Payload[0]-'a'+1) || d.PublishedAt.IsZero() || d.Lost != 0 {
				t.Errorf("%+v", d)
			}
			if got += string(d.Payload); d.Type == 7 {
				cancel() // which ends the sequence without an error
			}
		}
		cancel()
		if got != want {
			t.Errorf("from %v: %q, want %q", from, got, want)
		}
	}
}

func TestSubscribeAsksForWhatItsOptionsSay(t *testing.T) {
	f := startFake(t)
	r := f.ring(t, f.dial(t), "/ticks")
	ctx, cancel := context.WithCancel(t.Context())
	for _, err := range r.Subscribe(ctx, RingSubscribeOptions{Types: []int64{3, 4}, Lossless: true, OnOpen: cancel}) {
		t.Errorf("nothing was published, and yet: %v", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sawLocked("subscribe *ipcdv1.SubscribeRequest_Newest [3 4] lossless true") != 1 {
		t.Errorf("%q", f.seen)
	}
}

func TestALaneThatIsCorruptEndsTheLoopOnlyIfTheCallerDoes(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	r := f.ring(t, c, "/ticks")
	f.mu.Lock()
	ring := f.rings["/ticks"]
	ring.log = append(ring.log, &ipcdv1.RingDelivery{Type: 1, LaneId: 9, Sequence: 8, Lost: 7})
	ring.laneError = &ipcdv1.RingLaneError{LaneId: 4, Error: &ipcdv1.Error{Reason: "RING_CORRUPT", Message: "no sense"}}
	f.mu.Unlock()
	var lost, lane uint64
	deleted := false
	for d, err := range r.Subscribe(t.Context(), RingSubscribeOptions{From: FromOldest()}) {
		switch {
		case errors.Is(err, ErrRingCorrupt):
			lane = d.LaneID
			if err := c.DeleteRing(t.Context(), "/ticks"); err != nil {
				t.Fatal(err)
			}
		case err != nil:
			if deleted = errors.Is(err, ErrRingDeleted); !deleted {
				t.Errorf("the end: %v, want ErrRingDeleted", err)
			}
		default:
			lost = d.Lost
			if !d.PublishedAt.IsZero() {
				t.Errorf("published at %v, want no time", d.PublishedAt)
			}
		}
	}
	if lost != 7 || lane != 4 || !deleted {
		t.Errorf("lost %d, corrupt lane %d, deleted %v", lost, lane, deleted)
	}
	f.mu.Lock()
	ring.deleted, f.rings["/ticks"] = false, ring
	f.mu.Unlock()
	for _, err := range r.Subscribe(t.Context(), RingSubscribeOptions{From: FromOldest()}) {
		if err != nil {
			break
		}
	}
}

func TestSubscriptionsThatFailSaySo(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	r := f.ring(t, c, "/ticks")
	first := func(r *Ring, o RingSubscribeOptions) (got error) {
		for _, err := range r.Subscribe(t.Context(), o) {
			got = err
		}
		return got
	}
	for _, o := range []RingSubscribeOptions{{Types: []int64{0}}, {Types: []int64{1, -1}}, {Types: make([]int64, 1025)}} {
		if err := first(r, o); !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("%d types: %v, want ErrInvalidArgument", len(o.Types), err)
		}
	}
	if err := first(c.Ring("none"), RingSubscribeOptions{}); !errors.Is(err, ErrRingNotFound) {
		t.Errorf("%v, want ErrRingNotFound", err)
	}
	if err := first(r, RingSubscribeOptions{OnOpen: f.cut}); !errors.Is(err, ErrUnreachable) {
		t.Errorf("%v, want ErrUnreachable", err)
	}
}

func TestRingPositionsAreReadAndWritten(t *testing.T) {
	for _, text := range []string{"newest", "oldest", "0", "18446744073709551615"} {
		if p, err := ParseRingPosition(text); err != nil || p.String() != text {
			t.Errorf("%q: %v, %v", text, p, err)
		}
	}
	for _, text := range []string{"", "first", "-1", "18446744073709551616"} {
		if _, err := ParseRingPosition(text); !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("%q: %v, want ErrInvalidArgument", text, err)
		}
	}
	for _, want := range []RingPolicy{RingOverwrite, RingLossless} {
		var got RingPolicy
		if err := got.UnmarshalText([]byte(want.String())); err != nil || got != want {
			t.Errorf("%v: %v, %v", want, got, err)
		}
	}
}
