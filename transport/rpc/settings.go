package rpc

import (
	"math"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// settingsFields is every setting of a queue.
var settingsFields = fields[queue.Settings, ipcdv1.QueueSettings]{
	setting("max_messages", func(s *queue.Settings) *int64 { return &s.MaxMessages },
		count("max_messages", limits.QueueMessagesMax, func(s *ipcdv1.QueueSettings) *uint64 { return s.MaxMessages })),
	setting("max_bytes", func(s *queue.Settings) *int64 { return &s.MaxBytes },
		count("max_bytes", limits.QueueBytesMax, func(s *ipcdv1.QueueSettings) *uint64 { return s.MaxBytes })),
	setting("max_message_size", func(s *queue.Settings) *int { return &s.MaxMessageSize },
		func(s *ipcdv1.QueueSettings) (int, bool, error) {
			v, set, err := count("max_message_size", limits.MessageSizeMax, func(s *ipcdv1.QueueSettings) *uint64 { return s.MaxMessageSize })(s)
			return int(v), set, err
		}),
	setting("lease", func(s *queue.Settings) *time.Duration { return &s.Lease },
		span("lease", limits.LeaseMin, limits.LeaseMax, (*ipcdv1.QueueSettings).GetLease)),
	setting("max_attempts", func(s *queue.Settings) *int { return &s.MaxAttempts },
		func(s *ipcdv1.QueueSettings) (int, bool, error) {
			return int(s.GetMaxAttempts()), s.MaxAttempts != nil, nil
		}),
	setting("dead_letter_queue", func(s *queue.Settings) *string { return &s.DeadLetter },
		func(s *ipcdv1.QueueSettings) (string, bool, error) {
			return s.GetDeadLetterQueue(), s.DeadLetterQueue != nil, nil
		}),
	setting("dead_letter_expired", func(s *queue.Settings) *bool { return &s.DeadLetterExpired },
		func(s *ipcdv1.QueueSettings) (bool, bool, error) {
			return s.GetDeadLetterExpired(), s.DeadLetterExpired != nil, nil
		}),
	setting("overflow", func(s *queue.Settings) *queue.Overflow { return &s.Overflow },
		choice("overflow", overflows, "REJECT (1), BLOCK (2) or DROP_OLDEST (3)", (*ipcdv1.QueueSettings).GetOverflow)),
	setting("durability", func(s *queue.Settings) *queue.Durability { return &s.Durability },
		choice("durability", durabilities, "JOURNAL (1) or MEMORY (2)", (*ipcdv1.QueueSettings).GetDurability)),
	setting("backoff.initial", func(s *queue.Settings) *time.Duration { return &s.BackoffInitial },
		span("backoff.initial", 0, limits.DelayMax, func(s *ipcdv1.QueueSettings) *durationpb.Duration { return s.GetBackoff().GetInitial() })),
	setting("backoff.max", func(s *queue.Settings) *time.Duration { return &s.BackoffMax },
		span("backoff.max", 0, limits.DelayMax, func(s *ipcdv1.QueueSettings) *durationpb.Duration { return s.GetBackoff().GetMax() })),
	setting("dedup_window", func(s *queue.Settings) *time.Duration { return &s.DedupWindow },
		span("dedup_window", 0, limits.DedupWindowMax, (*ipcdv1.QueueSettings).GetDedupWindow)),
	setting("max_dedup_ids", func(s *queue.Settings) *int64 { return &s.MaxDedupIDs },
		count("max_dedup_ids", limits.DedupIDsMax, func(s *ipcdv1.QueueSettings) *uint64 { return s.MaxDedupIds })),
	setting("type_names", func(s *queue.Settings) *map[string]int64 { return &s.TypeNames },
		func(s *ipcdv1.QueueSettings) (map[string]int64, bool, error) {
			return s.GetTypeNames(), len(s.GetTypeNames()) > 0, nil
		}),
	setting("mqueue.mode", func(s *queue.Settings) *queue.KernelMode { return &s.Kernel.Mode },
		choice("mqueue.mode", kernelModes, "AUTO (1), IN (2), OUT (3), BOTH (4) or NONE (5)",
			func(s *ipcdv1.QueueSettings) ipcdv1.KernelQueueMode { return s.GetMqueue().GetMode() })),
	setting("mqueue.max_messages", func(s *queue.Settings) *int { return &s.Kernel.MaxMessages },
		func(s *ipcdv1.QueueSettings) (int, bool, error) {
			n := s.GetMqueue().GetMaxMessages()
			return int(n), n != 0, nil
		}),
	setting("mqueue.message_size", func(s *queue.Settings) *int { return &s.Kernel.MessageSize },
		func(s *ipcdv1.QueueSettings) (int, bool, error) {
			n := s.GetMqueue().GetMessageSize()
			return int(n), n != 0, nil
		}),
	setting("mqueue.type", func(s *queue.Settings) *int64 { return &s.Kernel.Type },
		func(s *ipcdv1.QueueSettings) (int64, bool, error) {
			t := s.GetMqueue().GetType()
			return t, t != 0, nil
		}),
	setting("mqueue.type_prefix", func(s *queue.Settings) *bool { return &s.Kernel.TypePrefix },
		func(s *ipcdv1.QueueSettings) (bool, bool, error) {
			on := s.GetMqueue().GetTypePrefix()
			return on, on, nil
		}),
	setting("mqueue.out_selector", func(s *queue.Settings) *queue.Selector { return &s.Kernel.OutSelector },
		func(s *ipcdv1.QueueSettings) (queue.Selector, bool, error) {
			selector, err := decodeSelector(s.GetMqueue().GetOutSelector())
			return selector, s.GetMqueue().GetOutSelector() != nil, err
		}),
	setting("mode", func(s *queue.Settings) *uint32 { return &s.Mode },
		func(s *ipcdv1.QueueSettings) (uint32, bool, error) { return s.GetMode(), s.Mode != nil, nil }),
	withoutDefault(setting("owner_uid", func(s *queue.Settings) *uint32 { return &s.OwnerUID },
		func(s *ipcdv1.QueueSettings) (uint32, bool, error) { return s.GetOwnerUid(), s.OwnerUid != nil, nil })),
	withoutDefault(setting("group_gid", func(s *queue.Settings) *uint32 { return &s.GroupGID },
		func(s *ipcdv1.QueueSettings) (uint32, bool, error) { return s.GetGroupGid(), s.GroupGid != nil, nil })),
	setting("binds", func(s *queue.Settings) *[]queue.Bind { return &s.Binds },
		func(s *ipcdv1.QueueSettings) ([]queue.Bind, bool, error) {
			binds, err := decodeBinds(s.GetBinds())
			return binds, len(s.GetBinds()) > 0, err
		}),
}

// count reads a number. What does not fit an int64 is refused here, all else by queue.Settings.Check.
func count(path string, high int64, get func(*ipcdv1.QueueSettings) *uint64) func(*ipcdv1.QueueSettings) (int64, bool, error) {
	return func(s *ipcdv1.QueueSettings) (int64, bool, error) {
		v := get(s)
		if v == nil {
			return 0, false, nil
		}
		if *v > math.MaxInt64 {
			return 0, true, reason.Invalid("settings."+path, "%s %d: it may be %d at most", path, *v, high)
		}
		return int64(*v), true, nil
	}
}

// The values of the schema's enums, from 1 on: 0 is unset.
var (
	overflows    = []queue.Overflow{queue.Reject, queue.Block, queue.DropOldest}
	durabilities = []queue.Durability{queue.Journal, queue.Memory}
	kernelModes  = []queue.KernelMode{queue.KernelAuto, queue.KernelIn, queue.KernelOut, queue.KernelBoth, queue.KernelNone}
)

// createEdit takes over every field that is set.
func createEdit(from *ipcdv1.QueueSettings) broker.Edit { return settingsFields.create(from) }

// updateEdit takes over the fields that mask names. One that is named and unset returns to its default.
func updateEdit(from *ipcdv1.QueueSettings, mask *fieldmaskpb.FieldMask, caller identity.Identity) (broker.Edit, error) {
	return settingsFields.update(from, mask, "lease", queue.Default(caller.UID, caller.GID))
}
