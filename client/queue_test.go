package client

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// everySetting has every field set to something that is no default.
func everySetting() QueueSettings {
	return QueueSettings{
		MaxMessages: 1, MaxBytes: 2, MaxMessageSize: new(3), Lease: 4, MaxAttempts: 5, DeadLetterQueue: "/dead", DeadLetterExpired: true,
		Overflow: OverflowBlock, Durability: DurabilityMemory, BackoffInitial: 6, BackoffMax: 7, DedupWindow: new(8 * time.Second), MaxDedupIDs: new(int64(9)),
		TypeNames: map[string]int64{"created": 7}, Mode: new(uint32(0o660)), OwnerUID: new(uint32(0)), GroupGID: new(uint32(11)),
		Mqueue: KernelQueue{Mode: KernelOut, MaxMessages: 12, MessageSize: 13, Type: 14, TypePrefix: true, OutSelector: OneOf(1, 2)},
		Binds:  []Bind{{Destination: "/a", Skip: true}, {Destination: "/b", Selector: Type(15)}},
	}
}

func TestEverySettingGoesThereAndBack(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	want := everySetting()
	for i := range reflect.TypeFor[QueueSettings]().NumField() {
		if reflect.ValueOf(want).Field(i).IsZero() {
			t.Fatalf("the test leaves out %s", reflect.TypeFor[QueueSettings]().Field(i).Name)
		}
	}
	info, err := c.CreateQueue(t.Context(), "all", want)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(info.Settings, want) {
		t.Errorf("got  %+v\nwant %+v", info.Settings, want)
	}
	if info.Name != "/all" || info.ID != 5 || info.Stats.Messages() != 3 || info.Stats.OldestAge != 0 || info.KernelQueues[0].PassedTotal != 9 {
		t.Errorf("%+v", info)
	}
}

// SEMANTICS 1.
func TestCreateTellsWhetherItDid_S1(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	var created bool
	for i, want := range []bool{true, false} {
		if _, err := c.CreateQueue(t.Context(), "/new", QueueSettings{}, ReportCreated(&created)); err != nil || created != want {
			t.Errorf("call %d: created %v, %v, want %v", i, created, err, want)
		}
	}
	if _, err := c.CreateQueue(t.Context(), "/new", QueueSettings{}, Exclusive()); !errors.Is(err, ErrQueueExists) {
		t.Errorf("exclusive: %v, want ErrQueueExists", err)
	}
	if _, err := c.CreateQueue(t.Context(), "/new", QueueSettings{MaxMessages: 1}); !errors.Is(err, ErrQueueExists) {
		t.Errorf("other settings: %v, want ErrQueueExists", err)
	}
}

func TestNumbersThatNoSchemaHoldsAreRefused(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	for _, s := range []QueueSettings{{MaxMessages: -1}, {MaxBytes: -1}, {MaxAttempts: -1}, {MaxMessageSize: new(-1)}, {MaxDedupIDs: new(int64(-1))}, {Mqueue: KernelQueue{MaxMessages: 1 << 33}}} {
		if _, err := c.CreateQueue(t.Context(), "/x", s); !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("%+v: %v, want ErrInvalidArgument", s, err)
		}
	}
}

func TestUpdateNamesItsFields(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	if _, err := c.UpdateQueue(t.Context(), "jobs", QueueSettings{}); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("without fields: %v, want ErrInvalidArgument", err)
	}
	info, err := c.UpdateQueue(t.Context(), "jobs", QueueSettings{Lease: time.Minute}, "lease", "backoff.initial")
	if err != nil || info.Settings.Lease != time.Minute {
		t.Errorf("%+v, %v", info, err)
	}
	if f.sawLocked("update [lease backoff.initial]") != 1 {
		t.Errorf("%q", f.seen)
	}
}

func TestQueuesAreListedByName(t *testing.T) {
	f := startFake(t)
	f.addQueue("/jobs.dead", 1)
	f.addQueue("/other", 1)
	c := f.dial(t)
	list := func(glob string, most int) (names []string) {
		for info, err := range c.Queues(t.Context(), glob) {
			if err != nil {
				t.Fatal(err)
			}
			if names = append(names, info.Name); len(names) == most {
				break
			}
		}
		return names
	}
	if got := list("", 9); !slices.Equal(got, []string{"/jobs", "/jobs.dead", "/other"}) {
		t.Errorf("%q", got)
	}
	if got := list("jobs*", 9); !slices.Equal(got, []string{"/jobs", "/jobs.dead"}) {
		t.Errorf("%q", got)
	}
	if got := list("", 1); !slices.Equal(got, []string{"/jobs"}) {
		t.Errorf("%q", got)
	}
}

func TestPurgeGoesOnToTheEnd_S22(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	for _, test := range []struct {
		limit    int64
		want     int64
		progress []int64
	}{
		{0, 40000, []int64{15000, 30000, 40000}},
		{20000, 20000, []int64{15000, 20000}},
		{7, 7, []int64{7}},
	} {
		var progress []int64
		n, err := c.PurgeQueue(t.Context(), "jobs", SelectOptions{
			Limit: test.limit, DryRun: true, Filter: Filter{MinSequence: 3},
			Progress: func(done int64) { progress = append(progress, done) },
		})
		if err != nil || n != test.want || !slices.Equal(progress, test.progress) {
			t.Errorf("limit %d: %d, %v, progress %v", test.limit, n, err, progress)
		}
	}
	if f.sawLocked("purge limit 7 dry true min 3") != 1 {
		t.Errorf("%q", f.seen)
	}
	if _, err := c.PurgeQueue(t.Context(), "jobs", SelectOptions{Limit: -1}); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("%v, want ErrInvalidArgument", err)
	}
	if n, err := c.KickQueue(t.Context(), "jobs", SelectOptions{}); n != 4 || !errors.Is(err, ErrQueueDeleted) {
		t.Errorf("a kick that fails halfway: %d, %v, want the 4 that are done and ErrQueueDeleted", n, err)
	}
}

func TestPauseResumeDeleteInfo(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	if info, err := c.PauseQueue(t.Context(), "jobs"); err != nil || !info.Paused {
		t.Errorf("%+v, %v", info, err)
	}
	if info, err := c.ResumeQueue(t.Context(), "jobs"); err != nil || info.Paused {
		t.Errorf("%+v, %v", info, err)
	}
	if n, err := c.DeleteQueue(t.Context(), "jobs"); err != nil || n != 12 {
		t.Errorf("%d, %v", n, err)
	}
	if info, err := c.Info(t.Context()); err != nil || info.Instance != "first" || info.PID != 42 || info.Caller.UID != 7 || info.AttachSocket != "/run/attach.sock" {
		t.Errorf("%+v, %v", info, err)
	}
	var e *Error
	if _, err := c.Queue("none").Info(t.Context()); !errors.As(err, &e) || !errors.Is(err, ErrQueueNotFound) || e.Queue != "/none" {
		t.Errorf("%#v", err)
	}
}

// SEMANTICS 20.
func TestPeekShowsAndPages_S20(t *testing.T) {
	f := startFake(t)
	q := f.dial(t).Queue("jobs")
	f.send(t, q, numbers(5)...)
	var got, cursors []string
	for p, err := range q.Peek(t.Context(), PeekOptions{
		Filter: Filter{States: []State{StateReady, StateBuried}}, Limit: 9, Cursor: "c",
		OnPage: func(cursor string) { cursors = append(cursors, cursor) },
	}) {
		if err != nil {
			t.Fatal(err)
		}
		if p.State != StateReady || p.Queue != "/jobs" {
			t.Errorf("%+v", p)
		}
		got = append(got, string(p.Body))
	}
	if !slices.Equal(got, numbers(5)) || !slices.Equal(cursors, []string{"2", "4", ""}) {
		t.Errorf("%q, cursors %q", got, cursors)
	}
	if f.sawLocked(`peek [MESSAGE_STATE_READY MESSAGE_STATE_BURIED] 9 "c"`) != 1 {
		t.Errorf("%q", f.seen)
	}
	for _, err := range q.Peek(t.Context(), PeekOptions{Limit: -1}) {
		if !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("%v, want ErrInvalidArgument", err)
		}
	}
}

func TestPeekFollowsUntilItsContextEnds_S20(t *testing.T) {
	f := startFake(t)
	q := f.dial(t).Queue("jobs")
	f.send(t, q, "a", "b", "c")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []string
	for p, err := range q.Peek(ctx, PeekOptions{Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		switch got = append(got, string(p.Body)); string(p.Body) {
		case "c":
			f.send(t, q, "d")
		case "d":
			cancel()
		}
	}
	if strings.Join(got, "") != "abcd" {
		t.Errorf("%q", got)
	}
}

func TestNamesOfSettingsAreRead(t *testing.T) {
	for _, want := range []Overflow{OverflowReject, OverflowBlock, OverflowDropOldest} {
		var got Overflow
		if err := got.UnmarshalText([]byte(want.String())); err != nil || got != want {
			t.Errorf("%v: %v, %v", want, got, err)
		}
	}
	var d Durability
	if err := d.UnmarshalText([]byte("disk")); !errors.Is(err, ErrInvalidArgument) || !strings.Contains(err.Error(), "journal") {
		t.Errorf("%v, want ErrInvalidArgument that names what is allowed", err)
	}
	var s State
	if err := s.UnmarshalText([]byte("unspecified")); err == nil {
		t.Error("unspecified is no state to ask for")
	}
	if got := KernelMode(99).String(); got != "unknown(99)" {
		t.Errorf("%q", got)
	}
}
