package rpc

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

func encodeQueue(info broker.Info, now time.Time) *ipcdv1.Queue {
	return &ipcdv1.Queue{
		Name:         info.Name,
		Id:           info.ID,
		Settings:     encodeSettings(&info.Settings),
		Paused:       info.Paused,
		CreateTime:   encodeTime(info.CreatedAt),
		Stats:        encodeStats(&info.Stats, now),
		KernelQueues: encodeDoors(info.Doors),

		Binds:         encodeBindStatus(info.Binds),
		Temporary:     info.Temporary,
		SchemaVersion: info.Schema,
	}
}

// encodeSettings sets every field.
func encodeSettings(s *queue.Settings) *ipcdv1.QueueSettings {
	return &ipcdv1.QueueSettings{
		MaxMessages:       new(uint64(s.MaxMessages)),
		MaxBytes:          new(uint64(s.MaxBytes)),
		MaxMessageSize:    new(uint64(s.MaxMessageSize)),
		Lease:             durationpb.New(s.Lease),
		MaxAttempts:       new(uint32(s.MaxAttempts)),
		DeadLetterQueue:   new(s.DeadLetter),
		DeadLetterExpired: new(s.DeadLetterExpired),
		Overflow:          enum[ipcdv1.OverflowPolicy](overflows, s.Overflow),
		Durability:        enum[ipcdv1.Durability](durabilities, s.Durability),
		Backoff:           &ipcdv1.Backoff{Initial: durationpb.New(s.BackoffInitial), Max: durationpb.New(s.BackoffMax)},
		DedupWindow:       durationpb.New(s.DedupWindow),
		MaxDedupIds:       new(uint64(s.MaxDedupIDs)),
		TypeNames:         s.TypeNames,
		Mqueue: &ipcdv1.KernelQueue{
			Mode:        enum[ipcdv1.KernelQueueMode](kernelModes, s.Kernel.Mode),
			MaxMessages: uint32(s.Kernel.MaxMessages),
			MessageSize: uint32(s.Kernel.MessageSize),
			Type:        s.Kernel.Type,
			TypePrefix:  s.Kernel.TypePrefix,
			OutSelector: encodeSelector(s.Kernel.OutSelector),
		},
		Mode:     new(s.Mode),
		OwnerUid: new(s.OwnerUID),
		GroupGid: new(s.GroupGID),
		Binds:    encodeBinds(s.Binds),
	}
}

// encodeSelector returns an empty selector for any.
func encodeSelector(s queue.Selector) *ipcdv1.Selector {
	out := new(ipcdv1.Selector)
	switch s.Kind {
	case queue.TypeIs:
		out.Kind = &ipcdv1.Selector_Type{Type: s.Type}
	case queue.LowestUpTo:
		out.Kind = &ipcdv1.Selector_LowestUpto{LowestUpto: s.Type}
	case queue.TypeIsNot:
		out.Kind = &ipcdv1.Selector_NotType{NotType: s.Type}
	case queue.TypeIn:
		out.Kind = &ipcdv1.Selector_Types{Types: &ipcdv1.TypeSet{Types: s.Types}}
	}
	return out
}

func encodeStats(s *broker.Stats, now time.Time) *ipcdv1.QueueStats {
	out := &ipcdv1.QueueStats{
		Ready:                uint64(s.Ready),
		Delayed:              uint64(s.Delayed),
		Leased:               uint64(s.Leased),
		Buried:               uint64(s.Buried),
		Uncommitted:          uint64(s.Uncommitted),
		Bytes:                uint64(s.Bytes),
		Receivers:            uint32(s.Receivers),
		BlockedSenders:       uint32(s.BlockedSenders),
		SendRate:             s.SendRate,
		DeliveryRate:         s.DeliveryRate,
		AckRate:              s.AckRate,
		SentTotal:            s.Sent,
		DeliveredTotal:       s.Delivered,
		ConsumedTotal:        s.Consumed,
		NackedTotal:          s.Nacked,
		LeaseExpiredTotal:    s.LeaseExpired,
		TtlDroppedTotal:      s.TTLDropped,
		OverflowDroppedTotal: s.OverflowDropped,
		DeadLetteredTotal:    s.DeadLettered,
		PurgedTotal:          s.Purged,
		DuplicatesTotal:      s.Duplicates,
		PeekedTotal:          s.Peeked,
		DedupIds:             uint64(s.DedupIDs),
		MovedTotal:           s.Moved,
		Taps:                 uint32(s.Taps),
	}
	if s.OldestReady != 0 {
		// The wall clock may have been set back since.
		out.OldestAge = durationpb.New(max(time.Duration(now.UnixNano()-s.OldestReady), 0))
	}
	return out
}

func encodeDoors(doors []broker.DoorStatus) []*ipcdv1.KernelQueueStatus {
	out := make([]*ipcdv1.KernelQueueStatus, len(doors))
	for i, d := range doors {
		out[i] = &ipcdv1.KernelQueueStatus{
			Direction:       d.Direction,
			Name:            d.Name,
			Open:            d.Open,
			Problem:         d.Problem,
			MaxMessages:     uint32(d.MaxMessages),
			MessageSize:     uint32(d.MessageSize),
			CurrentMessages: uint32(d.Current),
			PassedTotal:     d.Passed,
			SkippedTotal:    d.Skipped,
			OwnerUid:        d.UID,
			GroupGid:        d.GID,
			Mode:            d.Mode,
		}
	}
	return out
}
