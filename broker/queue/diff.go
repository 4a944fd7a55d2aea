package queue

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// String returns the policy's name.
func (o Overflow) String() string { return [...]string{"reject", "block", "drop-oldest"}[o] }

// String returns the durability's name.
func (d Durability) String() string { return [...]string{"journal", "memory"}[d] }

// String returns the mode's name.
func (m KernelMode) String() string { return [...]string{"auto", "in", "out", "both", "none"}[m] }

// Diff says in words how other differs from s: "" if it does not.
func (s *Settings) Diff(other *Settings) string {
	var out []string
	add := func(name string, a, b any) {
		if fmt.Sprint(a) != fmt.Sprint(b) {
			out = append(out, fmt.Sprintf("%s is %v, not %v", name, a, b))
		}
	}
	add("max_messages", s.MaxMessages, other.MaxMessages)
	add("max_bytes", s.MaxBytes, other.MaxBytes)
	add("max_message_size", s.MaxMessageSize, other.MaxMessageSize)
	add("lease", s.Lease, other.Lease)
	add("max_attempts", s.MaxAttempts, other.MaxAttempts)
	add("dead_letter_queue", fmt.Sprintf("%q", s.DeadLetter), fmt.Sprintf("%q", other.DeadLetter))
	add("dead_letter_expired", s.DeadLetterExpired, other.DeadLetterExpired)
	add("overflow", s.Overflow, other.Overflow)
	add("durability", s.Durability, other.Durability)
	add("backoff.initial", s.BackoffInitial, other.BackoffInitial)
	add("backoff.max", s.BackoffMax, other.BackoffMax)
	add("dedup_window", s.DedupWindow, other.DedupWindow)
	add("max_dedup_ids", s.MaxDedupIDs, other.MaxDedupIDs)
	if !maps.Equal(s.TypeNames, other.TypeNames) {
		add("type_names", typeNamesText(s.TypeNames), typeNamesText(other.TypeNames))
	}
	add("mqueue.mode", s.Kernel.Mode, other.Kernel.Mode)
	add("mqueue.max_messages", s.Kernel.MaxMessages, other.Kernel.MaxMessages)
	add("mqueue.message_size", s.Kernel.MessageSize, other.Kernel.MessageSize)
	add("mqueue.type", s.Kernel.Type, other.Kernel.Type)
	add("mqueue.type_prefix", s.Kernel.TypePrefix, other.Kernel.TypePrefix)
	add("mqueue.out_selector", s.Kernel.OutSelector, other.Kernel.OutSelector)
	if !slices.EqualFunc(s.Binds, other.Binds, Bind.Equal) {
		add("binds", bindsText(s.Binds), bindsText(other.Binds))
	}
	add("mode", fmt.Sprintf("%#o", s.Mode), fmt.Sprintf("%#o", other.Mode))
	add("owner_uid", s.OwnerUID, other.OwnerUID)
	add("group_gid", s.GroupGID, other.GroupGID)
	return strings.Join(out, "; ")
}

func typeNamesText(names map[string]int64) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		out = append(out, fmt.Sprintf("%s=%d", name, names[name]))
	}
	return "{" + strings.Join(out, " ") + "}"
}
