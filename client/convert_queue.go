package client

import (
	"math"
	"slices"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

func count(n uint64) int64 { return int64(min(n, math.MaxInt64)) }

func (s *QueueSettings) proto() *ipcdv1.QueueSettings {
	p := &ipcdv1.QueueSettings{
		Lease:       durationProto(s.Lease),
		Overflow:    ipcdv1.OverflowPolicy(s.Overflow),
		Durability:  ipcdv1.Durability(s.Durability),
		TypeNames:   s.TypeNames,
		Mode:        s.Mode,
		OwnerUid:    s.OwnerUID,
		GroupGid:    s.GroupGID,
		MaxMessages: optional(uint64(s.MaxMessages)),
		MaxBytes:    optional(uint64(s.MaxBytes)),
		MaxAttempts: optional(uint32(s.MaxAttempts)),
	}
	if s.DeadLetterQueue != "" {
		name := queueName(s.DeadLetterQueue)
		p.DeadLetterQueue = &name
	}
	p.DeadLetterExpired = optional(s.DeadLetterExpired)
	if s.MaxMessageSize != nil {
		p.MaxMessageSize = new(uint64(*s.MaxMessageSize))
	}
	if s.MaxDedupIDs != nil {
		p.MaxDedupIds = new(uint64(*s.MaxDedupIDs))
	}
	if s.DedupWindow != nil {
		p.DedupWindow = durationpb.New(*s.DedupWindow)
	}
	if s.BackoffInitial != 0 || s.BackoffMax != 0 {
		p.Backoff = &ipcdv1.Backoff{Initial: durationProto(s.BackoffInitial), Max: durationProto(s.BackoffMax)}
	}
	for i := range s.Binds {
		p.Binds = append(p.Binds, s.Binds[i].proto())
	}
	if k := &s.Mqueue; !k.isZero() {
		p.Mqueue = &ipcdv1.KernelQueue{
			Mode:        ipcdv1.KernelQueueMode(k.Mode),
			MaxMessages: uint32(k.MaxMessages),
			MessageSize: uint32(k.MessageSize),
			Type:        k.Type,
			TypePrefix:  k.TypePrefix,
			OutSelector: k.OutSelector.proto(),
		}
	}
	return p
}

func optional[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// check finds numbers that have no place in the protobuf schema; all else the daemon checks.
func (s *QueueSettings) check() *Error {
	for _, n := range [...]struct {
		field string
		value int64
		max   int64
	}{
		{"max_messages", s.MaxMessages, math.MaxInt64},
		{"max_bytes", s.MaxBytes, math.MaxInt64},
		{"max_attempts", int64(s.MaxAttempts), math.MaxUint32},
		{"max_message_size", int64(value(s.MaxMessageSize)), math.MaxInt64},
		{"max_dedup_ids", value(s.MaxDedupIDs), math.MaxInt64},
		{"mqueue.max_messages", int64(s.Mqueue.MaxMessages), math.MaxUint32},
		{"mqueue.message_size", int64(s.Mqueue.MessageSize), math.MaxUint32},
	} {
		if n.value < 0 || n.value > n.max {
			e := newError(reason.InvalidArgument, "%s %d: it must be 0 to %d", n.field, n.value, n.max)
			e.Field = "settings." + n.field
			return e
		}
	}
	return nil
}

func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

func queueInfoOf(p *ipcdv1.Queue) QueueInfo {
	s, st, k := p.GetSettings(), p.GetStats(), p.GetSettings().GetMqueue()
	info := QueueInfo{
		Name:      p.GetName(),
		ID:        p.GetId(),
		Paused:    p.GetPaused(),
		CreatedAt: timeOf(p.GetCreateTime()),
		Temporary: p.GetTemporary(),

		SchemaVersion: p.GetSchemaVersion(),
		Settings: QueueSettings{
			MaxMessages:       count(s.GetMaxMessages()),
			MaxBytes:          count(s.GetMaxBytes()),
			MaxMessageSize:    new(int(min(s.GetMaxMessageSize(), math.MaxInt))),
			Lease:             s.GetLease().AsDuration(),
			MaxAttempts:       int(s.GetMaxAttempts()),
			DeadLetterQueue:   s.GetDeadLetterQueue(),
			DeadLetterExpired: s.GetDeadLetterExpired(),
			Overflow:          Overflow(s.GetOverflow()),
			Durability:        Durability(s.GetDurability()),
			BackoffInitial:    s.GetBackoff().GetInitial().AsDuration(),
			BackoffMax:        s.GetBackoff().GetMax().AsDuration(),
			DedupWindow:       new(s.GetDedupWindow().AsDuration()),
			MaxDedupIDs:       new(count(s.GetMaxDedupIds())),
			TypeNames:         s.GetTypeNames(),
			Mqueue: KernelQueue{
				Mode:        KernelMode(k.GetMode()),
				MaxMessages: int(k.GetMaxMessages()),
				MessageSize: int(k.GetMessageSize()),
				Type:        k.GetType(),
				TypePrefix:  k.GetTypePrefix(),
				OutSelector: selectorOf(k.GetOutSelector()),
			},
			Mode:     new(s.GetMode()),
			OwnerUID: new(s.GetOwnerUid()),
			GroupGID: new(s.GetGroupGid()),
			Binds:    bindsOf(s.GetBinds()),
		},
		Stats: QueueStats{
			Ready:                count(st.GetReady()),
			Delayed:              count(st.GetDelayed()),
			Leased:               count(st.GetLeased()),
			Buried:               count(st.GetBuried()),
			Uncommitted:          count(st.GetUncommitted()),
			Bytes:                count(st.GetBytes()),
			OldestAge:            -1,
			Receivers:            int(st.GetReceivers()),
			BlockedSenders:       int(st.GetBlockedSenders()),
			Taps:                 int(st.GetTaps()),
			SendRate:             st.GetSendRate(),
			DeliveryRate:         st.GetDeliveryRate(),
			AckRate:              st.GetAckRate(),
			SentTotal:            count(st.GetSentTotal()),
			DeliveredTotal:       count(st.GetDeliveredTotal()),
			ConsumedTotal:        count(st.GetConsumedTotal()),
			NackedTotal:          count(st.GetNackedTotal()),
			LeaseExpiredTotal:    count(st.GetLeaseExpiredTotal()),
			TTLDroppedTotal:      count(st.GetTtlDroppedTotal()),
			OverflowDroppedTotal: count(st.GetOverflowDroppedTotal()),
			DeadLetteredTotal:    count(st.GetDeadLetteredTotal()),
			PurgedTotal:          count(st.GetPurgedTotal()),
			DuplicatesTotal:      count(st.GetDuplicatesTotal()),
			PeekedTotal:          count(st.GetPeekedTotal()),
			MovedTotal:           count(st.GetMovedTotal()),
			DedupIDs:             count(st.GetDedupIds()),
		},
	}
	if st.GetOldestAge() != nil {
		info.Stats.OldestAge = st.GetOldestAge().AsDuration()
	}
	for _, b := range p.GetBinds() {
		info.Binds = append(info.Binds, BindStatus{
			Destination:  b.GetDestination(),
			CopiedTotal:  count(b.GetCopiedTotal()),
			SkippedTotal: count(b.GetSkippedTotal()),
			Problem:      b.GetProblem(),
		})
	}
	for _, k := range p.GetKernelQueues() {
		info.KernelQueues = append(info.KernelQueues, KernelQueueStatus{
			Direction:       k.GetDirection(),
			Name:            k.GetName(),
			Open:            k.GetOpen(),
			Problem:         k.GetProblem(),
			MaxMessages:     int(k.GetMaxMessages()),
			MessageSize:     int(k.GetMessageSize()),
			CurrentMessages: int(k.GetCurrentMessages()),
			PassedTotal:     count(k.GetPassedTotal()),
			SkippedTotal:    count(k.GetSkippedTotal()),
			OwnerUID:        k.GetOwnerUid(),
			GroupGID:        k.GetGroupGid(),
			Mode:            k.GetMode(),
		})
	}
	return info
}

func parseEnum[T ~uint8](what string, names []string, text []byte, v *T) error {
	if i := slices.Index(names, string(text)); i > 0 {
		*v = T(i)
		return nil
	}
	return newError(reason.InvalidArgument, "%s %.40q: it must be one of %q", what, text, names[1:])
}

func (k *KernelQueue) isZero() bool {
	return k.Mode == KernelDefault && k.MaxMessages == 0 && k.MessageSize == 0 && k.Type == 0 && !k.TypePrefix && k.OutSelector.kind == SelectAny
}
