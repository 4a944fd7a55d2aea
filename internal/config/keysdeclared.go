package config

import (
	"math"

	"github.com/ipcd/ipcd/internal/limits"
)

// kernelMessagesMax is the largest mq_maxmsg: HARD_MSGMAX of the kernel.
const kernelMessagesMax = 65536

// queueKeys are the settings of a queue, as of ipcctl create.
var queueKeys = []Key{
	{Name: "max_messages", Kind: Number, Default: number(limits.QueueMessagesDefault), least: 1, most: limits.QueueMessagesMax,
		Meaning: "How many messages it holds at most.",
		at:      func(p *place) any { return &p.queue.MaxMessages }},
	{Name: "max_bytes", Kind: Size, Default: sizeText(limits.QueueBytesDefault), least: 1, most: limits.QueueBytesMax,
		Meaning: "Bytes of bodies, headers and ids that it holds at most.",
		at:      func(p *place) any { return &p.queue.MaxBytes }},
	{Name: "max_message_size", Kind: Size, Default: sizeText(limits.MessageSizeDefault), most: limits.MessageSizeMax,
		Meaning: "Bytes of the largest body that it takes.",
		at:      func(p *place) any { return &p.queue.MaxMessageSize }},
	{Name: "lease", Kind: Duration, Default: durationText(limits.LeaseDefault), least: int64(limits.LeaseMin), most: int64(limits.LeaseMax),
		Meaning: "How long a receiver has a message to itself.",
		at:      func(p *place) any { return &p.queue.Lease }},
	{Name: "max_attempts", Kind: Number, Default: number(limits.MaxAttemptsDefault), least: 1, most: limits.MaxAttemptsMax,
		Meaning: "Failed leases after which a message is a dead letter.",
		at:      func(p *place) any { return &p.queue.MaxAttempts }},
	{Name: "dead_letter", Kind: QueueName, Example: "/jobs.dead",
		Meaning: "The queue for dead letters. Without one they are buried where they are.",
		at:      func(p *place) any { return &p.queue.DeadLetter }},
	{Name: "dead_letter_expired", Kind: Switch, Default: "false",
		Meaning: "Messages whose time to live is over are dead letters too, and not dropped.",
		at:      func(p *place) any { return &p.queue.DeadLetterExpired }},
	{Name: "overflow", Kind: Word, Words: []string{"reject", "block", "drop-oldest"}, Default: "reject",
		Meaning: "What a full queue does with a send: refuse it, let the sender wait, or drop the oldest ready message of the lowest priority.",
		at:      func(p *place) any { return &p.queue.Overflow }},
	{Name: "durability", Kind: Word, Words: []string{"journal", "memory"}, Default: "journal",
		Meaning: "What survives a crash: all that was acknowledged, or nothing but the queue itself. It can not be changed later.",
		at:      func(p *place) any { return &p.queue.Durability }},
	{Name: "backoff_initial", Kind: Duration, Default: "0s", most: int64(limits.DelayMax),
		Meaning: "How long a message waits after its first failed lease. It doubles with each further one.",
		at:      func(p *place) any { return &p.queue.BackoffInitial }},
	{Name: "backoff_max", Kind: Duration, Default: "0s", most: int64(limits.DelayMax),
		Meaning: "How long it waits at most; not less than backoff_initial.",
		at:      func(p *place) any { return &p.queue.BackoffMax }},
	{Name: "dedup_window", Kind: Duration, Default: durationText(limits.DedupWindowDefault), most: int64(limits.DedupWindowMax),
		Meaning: "How long a dedup id is remembered.",
		at:      func(p *place) any { return &p.queue.DedupWindow }},
	{Name: "max_dedup_ids", Kind: Number, Default: number(limits.DedupIDsDefault), most: limits.DedupIDsMax,
		Meaning: "How many are remembered at most.",
		at:      func(p *place) any { return &p.queue.MaxDedupIDs }},
	{Name: "type_names", Shape: Named, Of: "NAME", Kind: Number, least: 1, most: math.MaxInt64, Example: "{created: 7, failed: 8}",
		Meaning: "Names for types, as in {created: 7, failed: 8}.",
		put:     putTypeName},
	{Name: "binds", Shape: Named, Of: "QUEUE", Kind: Map, Keys: bindKeys, most: limits.Binds,
		begin:   func(p *place) { p.queue.Binds = append([]BindDeclaration{}, p.queue.Binds...) }, // not nil: an empty one ends all
		Meaning: "Queues in which a copy of what is sent to this one is stored, in the same record.",
		enter:   enterBind},
	{Name: "mqueue", Kind: Map, Keys: kernelKeys,
		Meaning: "The queue's doors to POSIX message queues, mq_overview(7)."},
	{Name: "mode", Kind: Mode, Default: "0600",
		Meaning: "Permission bits: write to send, read to look, both to receive.",
		at:      func(p *place) any { return &p.queue.Mode }},
	{Name: "owner", Kind: User, Example: "alice",
		Meaning: "Name or uid of the owner; the daemon's user unless one is named. It is who the quota is charged to.",
		at:      func(p *place) any { return &p.queue.OwnerUID }},
	{Name: "group", Kind: Group, Example: "staff",
		Meaning: "Name or gid of the group; the daemon's unless one is named.",
		at:      func(p *place) any { return &p.queue.GroupGID }},
}

var bindKeys = []Key{
	{Name: "type", Kind: Text, Example: "7",
		Meaning: "What is copied, by type: a number, a name of type_names, some of them with commas between, upto:TYPE or not:TYPE. Everything, unless it is said.",
		at:      func(p *place) any { return &p.bind.Type }},
	{Name: "overflow", Kind: Word, Words: []string{"refuse", "skip"}, Default: "refuse",
		Meaning: "What becomes of a send whose copy that queue can not take: it is refused as a whole, or that queue goes without.",
		at:      func(p *place) any { return &p.bind.Overflow }},
}

var kernelKeys = []Key{
	{Name: "mode", Kind: Word, Words: []string{"auto", "in", "out", "both", "none"}, Default: "auto",
		Meaning: "Which doors there are. auto: in, where limits of the kernel allow it.",
		at:      func(p *place) any { return &p.queue.Kernel.Mode }},
	{Name: "max_messages", Kind: Number, Default: "0", most: kernelMessagesMax,
		Meaning: "Messages that the kernel's queue holds, mq_maxmsg. 0: " + number(limits.KernelMessagesDefault) + ".",
		at:      func(p *place) any { return &p.queue.Kernel.MaxMessages }},
	{Name: "message_size", Kind: Size, Default: "0", most: limits.MessageSizeMax,
		Meaning: "Bytes of a message in it, mq_msgsize. 0: max_message_size, or the kernel's limit if that is less.",
		at:      func(p *place) any { return &p.queue.Kernel.MessageSize }},
	{Name: "type", Kind: Number, Default: "1", least: 1, most: math.MaxInt64,
		Meaning: "Type of the messages that come in.",
		at:      func(p *place) any { return &p.queue.Kernel.Type }},
	{Name: "type_prefix", Kind: Switch, Default: "false",
		Meaning: "The first 8 bytes of what comes in, in native byte order, are its type instead.",
		at:      func(p *place) any { return &p.queue.Kernel.TypePrefix }},
}

// ringKeys are the settings of a ring, as of ipcctl ring create.
var ringKeys = []Key{
	{Name: "capacity", Kind: Size, Default: sizeText(limits.RingCapacityDefault), least: limits.RingCapacityMin, most: limits.RingCapacityMax,
		Meaning: "Bytes of each producer's lane, a power of two. It can not be changed later.",
		at:      func(p *place) any { return &p.ring.Capacity }},
	{Name: "max_message", Kind: Size, Default: "0", most: limits.RingCapacityMax/4 - ringFrameHeader,
		Meaning: "Bytes of the largest message, at most a quarter of the capacity less 32. 0: that, or 16MiB if it is less. It can not be changed later.",
		at:      func(p *place) any { return &p.ring.MaxMessage }},
	{Name: "policy", Kind: Word, Words: []string{"overwrite", "lossless"}, Default: "overwrite",
		Meaning: "What a producer does when a consumer is slow: go on, or wait for those that asked for it. It can not be changed later.",
		at:      func(p *place) any { return &p.ring.Policy }},
	{Name: "retain", Kind: Size, most: limits.RingRetainMax, Example: "32MiB",
		Meaning: "Bytes kept of producers that have left; one capacity unless it is said.",
		at:      func(p *place) any { return &p.ring.Retain }},
	{Name: "stall", Kind: Duration, Default: durationText(limits.RingStallDefault), least: int64(limits.RingStallMin), most: int64(limits.RingStallMax),
		Meaning: "How long a consumer may hold a producer up.",
		at:      func(p *place) any { return &p.ring.Stall }},
	{Name: "mode", Kind: Mode, Default: "0600",
		Meaning: "Permission bits: read to consume, write to produce, both to hold producers back.",
		at:      func(p *place) any { return &p.ring.Mode }},
	{Name: "owner", Kind: User, Example: "alice",
		Meaning: "Name or uid of the owner; the daemon's user unless one is named.",
		at:      func(p *place) any { return &p.ring.OwnerUID }},
	{Name: "group", Kind: Group, Example: "staff",
		Meaning: "Name or gid of the group; the daemon's unless one is named.",
		at:      func(p *place) any { return &p.ring.GroupGID }},
}
