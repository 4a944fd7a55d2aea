package rpc

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ipcd/ipcd/broker/ring"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// ringFields is every setting of a ring. Which of them may be changed the ring knows.
var ringFields = fields[ring.Settings, ipcdv1.RingSettings]{
	setting("capacity_bytes", func(s *ring.Settings) *int64 { return &s.Capacity },
		func(s *ipcdv1.RingSettings) (int64, bool, error) {
			return s.GetCapacityBytes(), s.CapacityBytes != nil, nil
		}),
	setting("max_message_bytes", func(s *ring.Settings) *int64 { return &s.MaxMessage },
		func(s *ipcdv1.RingSettings) (int64, bool, error) {
			return s.GetMaxMessageBytes(), s.MaxMessageBytes != nil, nil
		}),
	setting("policy", func(s *ring.Settings) *ring.Policy { return &s.Policy },
		choice("policy", ringPolicies, "OVERWRITE (1) or LOSSLESS (2)", (*ipcdv1.RingSettings).GetPolicy)),
	setting("mode", func(s *ring.Settings) *uint32 { return &s.Mode },
		func(s *ipcdv1.RingSettings) (uint32, bool, error) { return s.GetMode(), s.Mode != nil, nil }),
	withoutDefault(setting("owner_uid", func(s *ring.Settings) *uint32 { return &s.OwnerUID },
		func(s *ipcdv1.RingSettings) (uint32, bool, error) { return s.GetOwnerUid(), s.OwnerUid != nil, nil })),
	withoutDefault(setting("group_gid", func(s *ring.Settings) *uint32 { return &s.GroupGID },
		func(s *ipcdv1.RingSettings) (uint32, bool, error) { return s.GetGroupGid(), s.GroupGid != nil, nil })),
	setting("retain_bytes", func(s *ring.Settings) *int64 { return &s.Retain },
		func(s *ipcdv1.RingSettings) (int64, bool, error) {
			n := s.GetRetainBytes()
			if n < 0 { // which would stand for the default
				return 0, true, reason.Invalid("settings.retain_bytes", "retain_bytes %d: it must be 0 to %d", n, int64(limits.RingRetainMax))
			}
			return n, s.RetainBytes != nil, nil
		}),
	setting("stall", func(s *ring.Settings) *time.Duration { return &s.Stall },
		span("stall", limits.RingStallMin, limits.RingStallMax, (*ipcdv1.RingSettings).GetStall)),
}

// The values of the schema's RingPolicy, from 1 on: 0 is unset.
var ringPolicies = []ring.Policy{ring.Overwrite, ring.Lossless}

// updateRingEdit takes over the fields that mask names. One that is named and unset returns to its default.
func updateRingEdit(from *ipcdv1.RingSettings, mask *fieldmaskpb.FieldMask, caller identity.Identity) (ring.Edit, error) {
	return ringFields.update(from, mask, "mode", ring.Default(caller.UID, caller.GID))
}

func encodeRing(info *ring.Info) *ipcdv1.Ring {
	s := &info.Settings
	return &ipcdv1.Ring{
		Name:       info.Name,
		RingId:     info.ID,
		CreateTime: timestamppb.New(info.Created),
		Settings: &ipcdv1.RingSettings{
			CapacityBytes:   new(s.Capacity),
			MaxMessageBytes: new(s.MaxMessage),
			Policy:          enum[ipcdv1.RingPolicy](ringPolicies, s.Policy),
			Mode:            new(s.Mode),
			OwnerUid:        new(s.OwnerUID),
			GroupGid:        new(s.GroupGID),
			RetainBytes:     new(s.Retain),
			Stall:           durationpb.New(s.Stall),
		},
		Lanes:       encodeLanes(info.Lanes),
		Consumers:   encodeConsumers(info.Consumers),
		MemoryBytes: info.Bytes,
		Epoch:       info.Epoch,
	}
}

func encodeLanes(lanes []ring.LaneInfo) []*ipcdv1.RingLane {
	out := make([]*ipcdv1.RingLane, len(lanes))
	for i := range lanes {
		l := &lanes[i]
		out[i] = &ipcdv1.RingLane{
			LaneId:             l.ID,
			Slot:               l.Slot,
			Uid:                l.Who.UID,
			Pid:                int32(l.PID),
			Daemon:             l.Daemon,
			JoinTime:           timestamppb.New(l.Joined),
			Ended:              l.Ended,
			Position:           l.Position,
			OldestPosition:     l.Oldest,
			Sequence:           l.Sequence,
			PublishRate:        l.Rate,
			WakesTotal:         l.Wakes,
			WakesElidedTotal:   l.WakesElided,
			Blocked:            l.Blocked,
			BlocksTotal:        l.Blocks,
			BlockedTimeTotal:   durationpb.New(l.BlockedTime),
			EvictionsTotal:     l.Evictions,
			BackstopsTotal:     l.Backstops,
			KnownEpoch:         l.Seen,
			SlowestConsumerId:  l.Stalest,
			SlowestLagMessages: l.StalestLag,
			MemoryBytes:        l.Bytes,
			Unreadable:         l.Unreadable,
		}
	}
	return out
}

func encodeConsumers(consumers []ring.ConsumerInfo) []*ipcdv1.RingConsumer {
	out := make([]*ipcdv1.RingConsumer, len(consumers))
	for i := range consumers {
		c := &consumers[i]
		out[i] = &ipcdv1.RingConsumer{
			ConsumerId:        c.ID,
			Slot:              c.Slot,
			Uid:               c.Who.UID,
			Pid:               int32(c.PID),
			Daemon:            c.Daemon,
			JoinTime:          timestamppb.New(c.Joined),
			Lossless:          c.Lossless,
			Parked:            c.Parked,
			ReceivedTotal:     c.Received,
			LostTotal:         c.Lost,
			ReceiveRate:       c.Rate,
			ParksTotal:        c.Parks,
			BackstopsTotal:    c.Backstops,
			LagMessages:       c.Lag,
			Anonymous:         c.Who.Kind == identity.Anonymous,
			CorruptLanesTotal: c.Corrupt,
			Unreadable:        c.Unreadable,
		}
		for _, at := range c.Lanes {
			out[i].Cursors = append(out[i].Cursors, &ipcdv1.RingCursor{
				LaneId:      at.LaneID,
				Position:    at.Cursor,
				Sequence:    at.Sequence,
				LagMessages: at.LagMessages,
				LagBytes:    at.LagBytes,
				LostTotal:   at.Lost,
				Evicted:     at.Evicted,
			})
		}
	}
	return out
}
