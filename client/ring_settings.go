package client

import (
	"time"

	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// RingPolicy is what happens in a ring when a consumer is slow.
type RingPolicy uint8

// The ring policies.
const (
	RingDefault   RingPolicy = iota // as RingOverwrite
	RingOverwrite                   // the producer never waits; the consumer learns what it lost
	RingLossless                    // the producer waits for the slowest consumer that asked for it
)

var ringPolicyNames = []string{"default", "overwrite", "lossless"}

// String returns the policy's name: overwrite or lossless.
func (p RingPolicy) String() string { return enumName(ringPolicyNames, p) }

// MarshalText returns the policy's name.
func (p RingPolicy) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads the policy's name.
func (p *RingPolicy) UnmarshalText(text []byte) error {
	return parseEnum("ring policy", ringPolicyNames, text, p)
}

// RingSettings is what was declared for a ring. When creating or updating one, zero and nil stand for the
// default; in a RingInfo every field has its value.
type RingSettings struct {
	CapacityBytes   int64         // of each lane: a power of two; 0: 32 MiB
	MaxMessageBytes int64         // of one payload, at most a quarter of the capacity less 32; 0: that, or 16 MiB if less
	Policy          RingPolicy    // what happens when a consumer is slow
	Mode            *uint32       // permission bits, as of a file: consume = read, produce = write, consume lossless = read and write; nil: 0600
	OwnerUID        *uint32       // nil: the creator
	GroupGID        *uint32       // nil: the creator's group
	RetainBytes     *int64        // of lanes that are kept although their producers have left; nil: those of one lane
	Stall           time.Duration // how long a lossless consumer may hold a producer up, added up over ten seconds; 0: 1 second
}

// RingInfo is a ring as it is now.
type RingInfo struct {
	Name        string
	ID          uint64 // never used for another ring
	Settings    RingSettings
	CreatedAt   time.Time
	Lanes       []RingLane // those whose producers have left, and that are kept, included
	Consumers   []RingConsumer
	MemoryBytes int64  // of all lanes and consumers' pages
	Epoch       uint64 // rises whenever a producer or consumer comes or goes
}

// RingLane is a lane and its producer. Positions are bytes since the lane began. Numbers of the producer's
// work are what the producer says of itself.
type RingLane struct {
	ID                 uint64 // never used for another lane of the ring
	Slot               int
	UID                uint32 // on whose behalf the producer is there; of the daemon's lane: the ring's owner
	PID                int
	Daemon             bool // the daemon's own lane, through which RingPublishers go
	JoinedAt           time.Time
	Ended              bool    // the producer has left
	Position           uint64  // up to where it has published
	OldestPosition     uint64  // from where on it can still be read
	Sequence           uint64  // of the last message published; 0: none
	PublishRate        float64 // messages a second, over the last seconds
	WakesTotal         uint64  // times that sleeping consumers were woken
	WakesElidedTotal   uint64  // publishes that woke nobody, since every sleeper had been woken already
	Blocked            bool    // it waits for a lossless consumer now
	BlocksTotal        uint64  // times that it had to
	BlockedTimeTotal   time.Duration
	EvictionsTotal     uint64 // consumers that held it up for too long
	BackstopsTotal     uint64 // waits for a consumer that ended without having been woken
	KnownEpoch         uint64 // the epoch whose consumers it knows
	SlowestConsumerID  uint64 // the consumer that is furthest behind; 0: none is
	SlowestLagMessages uint64 // that it is behind
	MemoryBytes        int64
	Unreadable         bool // its memory cannot be read: positions and all that is counted are 0
}

// RingConsumer is a consumer. Numbers of its work are what it says of itself.
type RingConsumer struct {
	ID                uint64
	Slot              int
	UID               uint32 // on whose behalf it is there
	Anonymous         bool   // nothing is known of the subscriber, whose call came over TCP: UID means nothing
	PID               int
	Daemon            bool // the daemon, for a Subscribe
	JoinedAt          time.Time
	Lossless          bool // producers wait for it
	Parked            bool // it sleeps until something is published
	ReceivedTotal     uint64
	LostTotal         uint64  // messages that were overwritten before it read them
	ReceiveRate       float64 // messages a second, over the last seconds
	ParksTotal        uint64  // times that it went to sleep
	BackstopsTotal    uint64  // times that it found messages without having been woken for them
	LagMessages       uint64  // that it has not read yet, in all lanes
	CorruptLanesTotal uint64  // lanes whose memory made no sense
	Unreadable        bool    // its memory cannot be read: what is counted is 0, and Cursors are missing
	Cursors           []RingCursor
}

// RingCursor is where a consumer stands in a lane.
type RingCursor struct {
	LaneID      uint64
	Position    uint64 // bytes since the lane began
	Sequence    uint64 // of the last message that it read; 0: none
	LagMessages uint64 // that it has not read yet
	LagBytes    uint64
	LostTotal   uint64
	Evicted     bool // the producer waits for it no longer, since it held it up for too long
}

func (s *RingSettings) proto() *ipcdv1.RingSettings {
	return &ipcdv1.RingSettings{
		CapacityBytes:   optional(s.CapacityBytes),
		MaxMessageBytes: optional(s.MaxMessageBytes),
		Policy:          ipcdv1.RingPolicy(s.Policy),
		Mode:            s.Mode,
		OwnerUid:        s.OwnerUID,
		GroupGid:        s.GroupGID,
		RetainBytes:     s.RetainBytes,
		Stall:           durationProto(s.Stall),
	}
}

func ringInfoOf(p *ipcdv1.Ring) RingInfo {
	s := p.GetSettings()
	info := RingInfo{
		Name:        p.GetName(),
		ID:          p.GetRingId(),
		CreatedAt:   timeOf(p.GetCreateTime()),
		MemoryBytes: p.GetMemoryBytes(),
		Epoch:       p.GetEpoch(),
		Settings: RingSettings{
			CapacityBytes:   s.GetCapacityBytes(),
			MaxMessageBytes: s.GetMaxMessageBytes(),
			Policy:          RingPolicy(s.GetPolicy()),
			Mode:            new(s.GetMode()),
			OwnerUID:        new(s.GetOwnerUid()),
			GroupGID:        new(s.GetGroupGid()),
			RetainBytes:     new(s.GetRetainBytes()),
			Stall:           s.GetStall().AsDuration(),
		},
	}
	for _, l := range p.GetLanes() {
		info.Lanes = append(info.Lanes, RingLane{
			ID:                 l.GetLaneId(),
			Slot:               int(l.GetSlot()),
			UID:                l.GetUid(),
			PID:                int(l.GetPid()),
			Daemon:             l.GetDaemon(),
			JoinedAt:           timeOf(l.GetJoinTime()),
			Ended:              l.GetEnded(),
			Position:           l.GetPosition(),
			OldestPosition:     l.GetOldestPosition(),
			Sequence:           l.GetSequence(),
			PublishRate:        l.GetPublishRate(),
			WakesTotal:         l.GetWakesTotal(),
			WakesElidedTotal:   l.GetWakesElidedTotal(),
			Blocked:            l.GetBlocked(),
			BlocksTotal:        l.GetBlocksTotal(),
			BlockedTimeTotal:   l.GetBlockedTimeTotal().AsDuration(),
			EvictionsTotal:     l.GetEvictionsTotal(),
			BackstopsTotal:     l.GetBackstopsTotal(),
			KnownEpoch:         l.GetKnownEpoch(),
			SlowestConsumerID:  l.GetSlowestConsumerId(),
			SlowestLagMessages: l.GetSlowestLagMessages(),
			MemoryBytes:        l.GetMemoryBytes(),
			Unreadable:         l.GetUnreadable(),
		})
	}
	for _, c := range p.GetConsumers() {
		info.Consumers = append(info.Consumers, ringConsumerOf(c))
	}
	return info
}

func ringConsumerOf(p *ipcdv1.RingConsumer) RingConsumer {
	c := RingConsumer{
		ID:                p.GetConsumerId(),
		Slot:              int(p.GetSlot()),
		UID:               p.GetUid(),
		PID:               int(p.GetPid()),
		Daemon:            p.GetDaemon(),
		JoinedAt:          timeOf(p.GetJoinTime()),
		Lossless:          p.GetLossless(),
		Parked:            p.GetParked(),
		ReceivedTotal:     p.GetReceivedTotal(),
		LostTotal:         p.GetLostTotal(),
		ReceiveRate:       p.GetReceiveRate(),
		ParksTotal:        p.GetParksTotal(),
		BackstopsTotal:    p.GetBackstopsTotal(),
		LagMessages:       p.GetLagMessages(),
		Anonymous:         p.GetAnonymous(),
		CorruptLanesTotal: p.GetCorruptLanesTotal(),
		Unreadable:        p.GetUnreadable(),
	}
	for _, at := range p.GetCursors() {
		c.Cursors = append(c.Cursors, RingCursor{
			LaneID:      at.GetLaneId(),
			Position:    at.GetPosition(),
			Sequence:    at.GetSequence(),
			LagMessages: at.GetLagMessages(),
			LagBytes:    at.GetLagBytes(),
			LostTotal:   at.GetLostTotal(),
			Evicted:     at.GetEvicted(),
		})
	}
	return c
}
