package rpc

import (
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/ipcd/ipcd/broker/ring"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// unusualRing differs from the defaults in every field.
func unusualRing() ring.Settings {
	return ring.Settings{Capacity: 1 << 20, MaxMessage: 100, Policy: ring.Lossless, OwnerUID: 14, GroupGID: 15, Mode: 0o640, Retain: 7, Stall: 2 * time.Second}
}

func TestEveryRingSettingIsTakenOver(t *testing.T) {
	want := unusualRing()
	var got ring.Settings
	var caller identity.Identity
	h := serveRings(t, &fakeRings{create: func(id identity.Identity, name string, edit ring.Edit, exclusive bool) (ring.Info, bool, error) {
		got, caller = ring.Default(1, 2), id
		err := edit(&got)
		return ring.Info{Name: name, Settings: got}, exclusive, err
	}})
	r, err := h.rings.CreateRing(t.Context(), &ipcdv1.CreateRingRequest{Name: "/r", Settings: encodeRing(&ring.Info{Settings: want}).Settings, Exclusive: true})
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if !r.Created || r.Ring.Name != "/r" || r.Ring.Settings.Policy != ipcdv1.RingPolicy_RING_POLICY_LOSSLESS || r.Ring.Settings.GetMode() != 0o640 || caller.Kind != identity.Unix {
		t.Errorf("answer %v for %v", r, caller)
	}
}

func TestUnsetRingSettingsTakeTheDefault(t *testing.T) {
	for _, unset := range []*ipcdv1.RingSettings{nil, {}} {
		got, want := ring.Default(1, 2), ring.Default(1, 2)
		if err := ringFields.create(unset)(&got); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%v changed the defaults to %+v", unset, got)
		}
	}
}

func TestEveryRingSettingOfTheSchemaIsKnown(t *testing.T) {
	var want []string
	schema := new(ipcdv1.RingSettings).ProtoReflect().Descriptor().Fields()
	for i := range schema.Len() {
		want = append(want, string(schema.Get(i).Name()))
	}
	got := ringFields.paths()
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("settings %q\nschema   %q", got, want)
	}
}

func TestUpdateRingChangesWhatTheMaskNames(t *testing.T) {
	settings := encodeRing(&ring.Info{Settings: unusualRing()}).Settings
	var got ring.Settings
	h := serveRings(t, &fakeRings{update: func(name string, edit ring.Edit) (ring.Info, error) {
		got = ring.Default(1, 2)
		err := edit(&got)
		return ring.Info{Name: name, Settings: got}, err
	}})
	r, err := h.rings.UpdateRing(t.Context(), &ipcdv1.UpdateRingRequest{Name: "/r", Settings: settings, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"stall", "group_gid"}}})
	if err != nil || r.Ring.Name != "/r" {
		t.Fatalf("%v, %v", r, err)
	}
	want := ring.Default(1, 15)
	if want.Stall = 2 * time.Second; got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	// What is named and unset returns to its default.
	edit, err := updateRingEdit(nil, &fieldmaskpb.FieldMask{Paths: []string{"stall", "mode", "retain_bytes"}}, identity.Identity{})
	if err != nil {
		t.Fatal(err)
	}
	got, want = unusualRing(), unusualRing()
	if err := edit(&got); err != nil {
		t.Fatal(err)
	}
	defaults := ring.Default(0, 0)
	if want.Stall, want.Mode, want.Retain = defaults.Stall, defaults.Mode, defaults.Retain; got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestRingSettingsThatMakeNoSenseAreRefused(t *testing.T) {
	h := serveRings(t, &fakeRings{update: func(_ string, edit ring.Edit) (ring.Info, error) {
		s := ring.Default(0, 0)
		return ring.Info{}, edit(&s)
	}})
	for name, test := range map[string]struct {
		settings *ipcdv1.RingSettings
		mask     []string
		field    string
		say      string
	}{
		"no mask":          {nil, nil, "update_mask", "such as `mode`"},
		"unknown":          {nil, []string{"mode", "mod"}, "update_mask", "retain_bytes"},
		"owner":            {nil, []string{"owner_uid"}, "settings.owner_uid", "has no default"},
		"policy":           {&ipcdv1.RingSettings{Policy: 3}, []string{"policy"}, "settings.policy", "LOSSLESS (2)"},
		"negative retain":  {&ipcdv1.RingSettings{RetainBytes: new(int64(-1))}, []string{"retain_bytes"}, "settings.retain_bytes", "must be 0"},
		"invalid duration": {&ipcdv1.RingSettings{Stall: &durationpb.Duration{Seconds: 1, Nanos: -1}}, []string{"stall"}, "settings.stall", "valid duration"},
		"endless stall":    {&ipcdv1.RingSettings{Stall: seconds(math.MaxInt64)}, []string{"stall"}, "settings.stall", "it must be"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := h.rings.UpdateRing(t.Context(), &ipcdv1.UpdateRingRequest{Name: "/r", Settings: test.settings, UpdateMask: &fieldmaskpb.FieldMask{Paths: test.mask}})
			if s := wantInvalid(t, err, test.field); !strings.Contains(s.Message(), test.say) {
				t.Errorf("message %q, want %q in it", s.Message(), test.say)
			}
		})
	}
}

func TestRingShowsAllThatIsKnown(t *testing.T) {
	at := time.Unix(5, 0)
	got := encodeRing(&ring.Info{
		Name: "/r", ID: 1, Created: at, Bytes: 2, Epoch: 3, Settings: unusualRing(),
		Lanes: []ring.LaneInfo{{ID: 1, Slot: 2, Who: identity.Identity{Kind: identity.Unix, UID: 3}, PID: 4, Daemon: true, Joined: at, Ended: true, Position: 5, Oldest: 6, Sequence: 7, Rate: 8,
			Wakes: 9, WakesElided: 10, Blocked: true, Blocks: 11, BlockedTime: 12, Evictions: 13, Backstops: 14, Seen: 15, Stalest: 16, StalestLag: 17, Bytes: 18, Unreadable: true}},
		Consumers: []ring.ConsumerInfo{{ID: 1, Slot: 2, Who: identity.Identity{Kind: identity.Anonymous, UID: 3}, PID: 4, Daemon: true, Joined: at, Lossless: true, Parked: true, Received: 5, Lost: 6,
			Rate: 7, Parks: 8, Backstops: 9, Lag: 10, Corrupt: 11, Unreadable: true,
			Lanes: []ring.CursorInfo{{LaneID: 1, Cursor: 2, Sequence: 3, LagMessages: 4, LagBytes: 5, Lost: 6, Evicted: true}}}},
	})
	joined := seconds(5).AsDuration()
	lane := &ipcdv1.RingLane{LaneId: 1, Slot: 2, Uid: 3, Pid: 4, Daemon: true, JoinTime: encodeTime(int64(joined)), Ended: true, Position: 5, OldestPosition: 6, Sequence: 7, PublishRate: 8,
		WakesTotal: 9, WakesElidedTotal: 10, Blocked: true, BlocksTotal: 11, BlockedTimeTotal: durationpb.New(12), EvictionsTotal: 13,
		BackstopsTotal: 14, KnownEpoch: 15, SlowestConsumerId: 16, SlowestLagMessages: 17, MemoryBytes: 18, Unreadable: true}
	consumer := &ipcdv1.RingConsumer{ConsumerId: 1, Slot: 2, Uid: 3, Pid: 4, Daemon: true, JoinTime: encodeTime(int64(joined)), Lossless: true, Parked: true, ReceivedTotal: 5, LostTotal: 6,
		ReceiveRate: 7, ParksTotal: 8, BackstopsTotal: 9, LagMessages: 10, Anonymous: true, CorruptLanesTotal: 11, Unreadable: true,
		Cursors: []*ipcdv1.RingCursor{{LaneId: 1, Position: 2, Sequence: 3, LagMessages: 4, LagBytes: 5, LostTotal: 6, Evicted: true}}}
	want := &ipcdv1.Ring{Name: "/r", RingId: 1, CreateTime: encodeTime(int64(joined)), MemoryBytes: 2, Epoch: 3, Settings: got.Settings,
		Lanes: []*ipcdv1.RingLane{lane}, Consumers: []*ipcdv1.RingConsumer{consumer}}
	if !proto.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestRingsAreShownListedAndDeleted(t *testing.T) {
	h := serveRings(t, &fakeRings{
		get: func(_ identity.Identity, name string) (ring.Info, error) {
			return ring.Info{}, reason.New(reason.RingNotFound, "no ring").On(name)
		},
		remove: func(name string) error {
			if name == "/denied" {
				return reason.New(reason.AccessDenied, "no").On(name)
			}
			return nil
		},
		list: func(glob string) ([]ring.Info, error) {
			if glob == "[" {
				return nil, reason.Invalid("glob", "no pattern")
			}
			return []ring.Info{{Name: "/a" + glob}, {Name: "/b"}}, nil
		},
	})
	_, err := h.rings.GetRing(t.Context(), &ipcdv1.GetRingRequest{Name: "/r"})
	wantReason(t, err, reason.RingNotFound)
	if r, err := h.rings.DeleteRing(t.Context(), &ipcdv1.DeleteRingRequest{Name: "/r"}); err != nil || r.Members != 3 {
		t.Errorf("%v, %v", r, err)
	}
	_, err = h.rings.DeleteRing(t.Context(), &ipcdv1.DeleteRingRequest{Name: "/denied"})
	wantReason(t, err, reason.AccessDenied)
	stream, err := h.rings.ListRings(t.Context(), &ipcdv1.ListRingsRequest{Glob: "*"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"/a*", "/b"} {
		if r, err := stream.Recv(); err != nil || r.Ring.Name != want {
			t.Errorf("got %v, %v; want %s", r, err, want)
		}
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}
	if stream, err = h.rings.ListRings(t.Context(), &ipcdv1.ListRingsRequest{Glob: "["}); err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	wantInvalid(t, err, "glob")
}

func TestWithoutRingsTheServiceIsUnimplemented(t *testing.T) {
	h := serve(t, &fakeBroker{})
	_, err := h.rings.GetRing(t.Context(), &ipcdv1.GetRingRequest{Name: "/r"})
	wantReason(t, err, reason.Unimplemented)
	publish, err := h.rings.Publish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = publish.Recv()
	wantReason(t, err, reason.Unimplemented)
}

func TestInfoTellsWhereToAttach(t *testing.T) {
	h := serveRings(t, &fakeRings{})
	info, err := h.system.GetInfo(t.Context(), &ipcdv1.GetInfoRequest{})
	if err != nil || info.AttachSocket != "/run/attach.sock" {
		t.Errorf("%v, %v", info, err)
	}
	health, err := grpc_health_v1.NewHealthClient(h.unix).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "ipcd.v1.RingService"})
	if err != nil || health.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", health, err)
	}
}
