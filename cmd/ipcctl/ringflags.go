package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ipcd/ipcd/client"
	"github.com/ipcd/ipcd/internal/limits"
)

// ringFlags are the flags of ring create and ring update. Each belongs to one field of RingSettings.
type ringFlags struct {
	settings client.RingSettings
	fields   map[string]string // flag -> field's name in the protobuf schema
}

// add adds the flags of what can be changed; with fixed also those of what is settled when a ring is made.
func (r *ringFlags) add(cmd *cobra.Command, fixed bool) {
	r.fields = map[string]string{}
	f, set := cmd.Flags(), &r.settings
	field := func(flag, field string) string {
		r.fields[flag] = field
		return flag
	}
	otherwise := func(text string) string { // what create does without the flag; update leaves things as they are
		if !fixed {
			return ""
		}
		return " (default" + text + ")"
	}
	if fixed {
		addFlag(f, &set.CapacityBytes, field("capacity", "capacity_bytes"), "SIZE",
			"bytes of each lane, a power of two from "+humanBytes(limits.RingCapacityMin)+" to "+humanBytes(limits.RingCapacityMax)+
				otherwise(" "+humanBytes(limits.RingCapacityDefault)), positive[int64](parseSize))
		addFlag(f, &set.MaxMessageBytes, field("max-message", "max_message_bytes"), "SIZE",
			"bytes of one message, from 1 to a quarter of the capacity less 32"+
				otherwise(": the most, or 16MiB if that is less"), positive[int64](parseSize))
		addFlag(f, &set.Policy, field("policy", "policy"), "POLICY",
			"when a consumer is slow: overwrite (default; it learns what it lost) or lossless (producers wait for it)",
			oneOf("policy", ringPolicies, client.RingOverwrite, client.RingLossless))
		completeWords(cmd, "policy", ringPolicies)
	}
	addFlag(f, &set.RetainBytes, field("retain", "retain_bytes"), "SIZE",
		"bytes of lanes to keep although their producers have left, from 0 to "+humanBytes(limits.RingRetainMax)+otherwise(": one lane's"),
		pointer(limited[int64](parseSize)))
	addFlag(f, &set.Stall, field("stall", "stall"), "DURATION",
		"how long a lossless consumer may hold a producer up before it is evicted, from "+limits.RingStallMin.String()+" to "+limits.RingStallMax.String()+
			otherwise(" "+limits.RingStallDefault.String()), positiveDuration)
	addFlag(f, &set.Mode, field("mode", "mode"), "MODE", "permissions: r consumes, w produces, rw consumes lossless"+otherwise(" 0600"), pointer(parseMode))
	addFlag(f, &set.OwnerUID, field("owner", "owner_uid"), "USER", "who owns it, name or uid"+otherwise(": you"), pointer(lookupUID))
	addFlag(f, &set.GroupGID, field("group", "group_gid"), "GROUP", "its group, name or gid"+otherwise(": yours"), pointer(lookupGID))
	f.SortFlags = false
}

var ringPolicies = []string{"overwrite", "lossless"}

// given returns the fields whose flags were given.
func (r *ringFlags) given(f *pflag.FlagSet) []string {
	var fields []string
	f.Visit(func(flag *pflag.Flag) {
		if field, is := r.fields[flag.Name]; is {
			fields = append(fields, field)
		}
	})
	return fields
}
