package main

import (
	"context"
	"fmt"
	"maps"
	"math"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ipcd/ipcd/client"
	"github.com/ipcd/ipcd/internal/limits"
)

// settingsFlags are the flags of create and update. Each belongs to one field of QueueSettings.
type settingsFlags struct {
	settings  client.QueueSettings
	fields    map[string]string // flag -> field's name in the protobuf schema
	typeNames []map[string]int64
	outType   string
}

// add adds the flags and notes which field each of them sets.
func (s *settingsFlags) add(cmd *cobra.Command) {
	s.fields = map[string]string{}
	f := cmd.Flags()
	set := &s.settings
	field := func(flag, field string) string {
		s.fields[flag] = field
		return flag
	}

	addFlag(f, &set.MaxMessages, field("max-messages", "max_messages"), "N", "messages the queue may hold (default 1000000)",
		positive[int64](parseCount))
	addFlag(f, &set.MaxBytes, field("max-bytes", "max_bytes"), "SIZE", "bytes of bodies, headers and ids it may hold (default 1GiB)",
		positive[int64](parseSize))
	addFlag(f, &set.MaxMessageSize, field("max-message-size", "max_message_size"), "SIZE", "bytes of one body (default 64KiB, at most 16MiB)",
		pointer(limited[int](parseSize)))
	addFlag(f, &set.Lease, field("lease", "lease"), "DURATION", "how long a receiver has to settle a message (default 30s)", positiveDuration)
	addFlag(f, &set.MaxAttempts, field("max-attempts", "max_attempts"), "N", "failed leases until a message is dead-lettered or buried (default 16)",
		parseNumber(1, limits.MaxAttemptsMax))
	addFlag(f, &set.DeadLetterQueue, field("dead-letter", "dead_letter_queue"), "QUEUE", "where messages go that failed too often; '': they are buried",
		parseQueueOrNone)
	f.BoolVar(&set.DeadLetterExpired, field("dead-letter-expired", "dead_letter_expired"), false, "dead-letter messages whose TTL ended, instead of dropping them")
	addFlag(f, &set.Overflow, field("overflow", "overflow"), "POLICY", "what a full queue does: reject (default), block or drop-oldest",
		oneOf("overflow policy", []string{"reject", "block", "drop-oldest"}, client.OverflowReject, client.OverflowBlock, client.OverflowDropOldest))
	addFlag(f, &set.Durability, field("durability", "durability"), "WHAT", "what survives a crash: journal (all that was acknowledged; the default) or memory (nothing; faster)",
		oneOf("durability", []string{"journal", "memory"}, client.DurabilityJournal, client.DurabilityMemory))
	addFlag(f, &set.BackoffInitial, field("backoff", "backoff.initial"), "DURATION", "how long a message waits after its first failed lease, doubled each time (default 0s)",
		parseDuration)
	addFlag(f, &set.BackoffMax, field("backoff-max", "backoff.max"), "DURATION", "where the doubling ends (default when creating: --backoff)", parseDuration)
	addFlag(f, &set.DedupWindow, field("dedup-window", "dedup_window"), "DURATION", "how long dedup ids are remembered (default 2m)", pointer(parseDuration))
	addFlag(f, &set.MaxDedupIDs, field("max-dedup-ids", "max_dedup_ids"), "N", "how many dedup ids are remembered (default 1000000)",
		pointer(limited[int64](parseCount)))
	addList(f, &s.typeNames, field("type-name", "type_names"), "NAME=TYPE", "a name for a type (repeat, or separate with commas, for all of the queue's names; '': none)",
		parseTypeNames)

	addFlag(f, &set.Mqueue.Mode, field("mqueue", "mqueue.mode"), "MODE", "POSIX message queues before it: auto (default; in where possible), in, out, both or none",
		oneOf("mqueue mode", []string{"auto", "in", "out", "both", "none"},
			client.KernelAuto, client.KernelIn, client.KernelOut, client.KernelBoth, client.KernelNone))
	addFlag(f, &set.Mqueue.Type, field("mqueue-type", "mqueue.type"), "TYPE", "the type of what comes in through mq_send(3) (default 1)", parseType)
	f.BoolVar(&set.Mqueue.TypePrefix, field("mqueue-type-prefix", "mqueue.type_prefix"), false, "the first 8 bytes of what comes in are its type")
	addFlag(f, &set.Mqueue.MaxMessages, field("mqueue-messages", "mqueue.max_messages"), "N", "mq_maxmsg (default 10)", parseNumber(1, 65536))
	addFlag(f, &set.Mqueue.MessageSize, field("mqueue-size", "mqueue.message_size"), "SIZE", "mq_msgsize (default: the maximum message size, at most the kernel's)",
		positive[int](parseSize))
	addFlag(f, &s.outType, field("mqueue-out-type", "mqueue.out_selector"), "SEL", "which types go out, a SEL: 7, upto:7, not:7, 1,2,3 or names (default any)", someSelector)

	addFlag(f, &set.Mode, field("mode", "mode"), "MODE", "permissions: r looks, w sends, rw receives (default 0600)", pointer(parseMode))
	addFlag(f, &set.OwnerUID, field("owner", "owner_uid"), "USER", "who owns it, name or uid (default: you)", pointer(lookupUID))
	addFlag(f, &set.GroupGID, field("group", "group_gid"), "GROUP", "its group, name or gid (default: yours)", pointer(lookupGID))
	f.SortFlags = false
	completeWords(cmd, "overflow", []string{"reject", "block", "drop-oldest"})
	completeWords(cmd, "durability", []string{"journal", "memory"})
	completeWords(cmd, "mqueue", []string{"auto", "in", "out", "both", "none"})
}

// given returns the fields whose flags were given.
func (s *settingsFlags) given(f *pflag.FlagSet) []string {
	var fields []string
	f.Visit(func(flag *pflag.Flag) {
		if field, is := s.fields[flag.Name]; is {
			fields = append(fields, field)
		}
	})
	return fields
}

// forQueue returns the settings for a queue. Names in --mqueue-out-type are those given together with it,
// else those the queue has: existing asks for them.
func (s *settingsFlags) forQueue(ctx context.Context, f *pflag.FlagSet, queue string, existing func(context.Context, string) (client.QueueInfo, error)) (client.QueueSettings, error) {
	settings := s.settings
	if f.Changed("type-name") {
		settings.TypeNames = map[string]int64{}
		for _, names := range s.typeNames {
			maps.Copy(settings.TypeNames, names)
		}
	}
	if s.outType == "" {
		return settings, nil
	}
	names := settings.TypeNames
	if !f.Changed("type-name") && existing != nil && mayHaveNames(s.outType) {
		info, err := existing(ctx, queue)
		if err != nil {
			return settings, err
		}
		names = info.Settings.TypeNames
	}
	selector, err := client.ParseSelector(s.outType, names)
	if err != nil {
		return settings, usagef("--mqueue-out-type: %v", err)
	}
	settings.Mqueue.OutSelector = selector
	return settings, nil
}

// limited turns what parse reads into another type of integer, if it fits.
func limited[T int | int64](parse func(string) (uint64, error)) func(string) (T, error) {
	return func(s string) (T, error) {
		n, err := parse(s)
		if err != nil {
			return 0, err
		}
		if n > math.MaxInt64 || int64(T(n)) != int64(n) {
			return 0, fmt.Errorf("%s is too large", quoteArg(s))
		}
		return T(n), nil
	}
}

// positive is limited without zero, which in a request would mean the default.
func positive[T int | int64](parse func(string) (uint64, error)) func(string) (T, error) {
	return func(s string) (T, error) {
		n, err := limited[T](parse)(s)
		if err == nil && n == 0 {
			err = fmt.Errorf("%s: it must be at least 1", quoteArg(s))
		}
		return n, err
	}
}

func positiveDuration(s string) (time.Duration, error) {
	d, err := parseDuration(s)
	if err == nil && d == 0 {
		err = fmt.Errorf("%s: it must be more than nothing", quoteArg(s))
	}
	return d, err
}

// pointer makes parse return a pointer.
func pointer[T any](parse func(string) (T, error)) func(string) (*T, error) {
	return func(s string) (*T, error) {
		v, err := parse(s)
		if err != nil {
			return nil, err
		}
		return &v, nil
	}
}

func parseQueueOrNone(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	return queueName(s), nil
}
