package main

import (
	"time"

	"github.com/ipcd/ipcd/client"
)

// ringView is a ring as json and yaml show it: the names of the protobuf schema in snake case. Fields may be
// added; what is there stays.
type ringView struct {
	Name        string             `json:"name"`
	RingID      uint64             `json:"ring_id"`
	CreateTime  string             `json:"create_time"`
	Settings    ringSettingsView   `json:"settings"`
	MemoryBytes int64              `json:"memory_bytes"`
	Epoch       uint64             `json:"epoch"`
	Lanes       []ringLaneView     `json:"lanes"`
	Consumers   []ringConsumerView `json:"consumers"`
}

type ringSettingsView struct {
	CapacityBytes   int64  `json:"capacity_bytes"`
	MaxMessageBytes int64  `json:"max_message_bytes"`
	Policy          string `json:"policy"`
	Mode            string `json:"mode"`
	OwnerUID        uint32 `json:"owner_uid"`
	GroupGID        uint32 `json:"group_gid"`
	RetainBytes     int64  `json:"retain_bytes"`
	Stall           string `json:"stall"`
}

type ringLaneView struct {
	LaneID           uint64  `json:"lane_id"`
	Slot             int     `json:"slot"`
	UID              uint32  `json:"uid"`
	PID              int     `json:"pid"`
	Daemon           bool    `json:"daemon"`
	JoinTime         string  `json:"join_time"`
	Ended            bool    `json:"ended"`
	Position         uint64  `json:"position"`
	OldestPosition   uint64  `json:"oldest_position"`
	Sequence         uint64  `json:"sequence"`
	PublishRate      float64 `json:"publish_rate"`
	WakesTotal       uint64  `json:"wakes_total"`
	WakesElidedTotal uint64  `json:"wakes_elided_total"`
	Blocked          bool    `json:"blocked"`
	BlocksTotal      uint64  `json:"blocks_total"`
	BlockedTimeTotal string  `json:"blocked_time_total"`
	EvictionsTotal   uint64  `json:"evictions_total"`

	BackstopsTotal     uint64 `json:"backstops_total"`
	KnownEpoch         uint64 `json:"known_epoch"`
	SlowestConsumerID  uint64 `json:"slowest_consumer_id"` // 0: none is behind
	SlowestLagMessages uint64 `json:"slowest_lag_messages"`
	MemoryBytes        int64  `json:"memory_bytes"`
	Unreadable         bool   `json:"unreadable"`
}

type ringConsumerView struct {
	ConsumerID     uint64           `json:"consumer_id"`
	Slot           int              `json:"slot"`
	UID            uint32           `json:"uid"`
	PID            int              `json:"pid"`
	Daemon         bool             `json:"daemon"`
	JoinTime       string           `json:"join_time"`
	Lossless       bool             `json:"lossless"`
	Parked         bool             `json:"parked"`
	ReceivedTotal  uint64           `json:"received_total"`
	LostTotal      uint64           `json:"lost_total"`
	ReceiveRate    float64          `json:"receive_rate"`
	ParksTotal     uint64           `json:"parks_total"`
	BackstopsTotal uint64           `json:"backstops_total"`
	LagMessages    uint64           `json:"lag_messages"`
	Cursors        []ringCursorView `json:"cursors"`

	Anonymous         bool   `json:"anonymous"` // its call came over TCP: uid means nothing
	CorruptLanesTotal uint64 `json:"corrupt_lanes_total"`
	Unreadable        bool   `json:"unreadable"`
}

type ringCursorView struct {
	LaneID      uint64 `json:"lane_id"`
	Position    uint64 `json:"position"`
	Sequence    uint64 `json:"sequence"`
	LagMessages uint64 `json:"lag_messages"`
	LagBytes    uint64 `json:"lag_bytes"`
	LostTotal   uint64 `json:"lost_total"`
	Evicted     bool   `json:"evicted"`
}

func viewRing(r client.RingInfo) any {
	s := r.Settings
	v := ringView{
		Name: r.Name, RingID: r.ID, CreateTime: machineTime(r.CreatedAt), MemoryBytes: r.MemoryBytes, Epoch: r.Epoch,
		Settings: ringSettingsView{
			CapacityBytes: s.CapacityBytes, MaxMessageBytes: s.MaxMessageBytes, Policy: s.Policy.String(),
			Mode: modeText(value(s.Mode)), OwnerUID: value(s.OwnerUID), GroupGID: value(s.GroupGID),
			RetainBytes: value(s.RetainBytes), Stall: machineDuration(s.Stall),
		},
		Lanes: make([]ringLaneView, 0, len(r.Lanes)), Consumers: make([]ringConsumerView, 0, len(r.Consumers)),
	}
	for _, l := range r.Lanes {
		v.Lanes = append(v.Lanes, ringLaneView{
			LaneID: l.ID, Slot: l.Slot, UID: l.UID, PID: l.PID, Daemon: l.Daemon, JoinTime: machineTime(l.JoinedAt), Ended: l.Ended,
			Position: l.Position, OldestPosition: l.OldestPosition, Sequence: l.Sequence, PublishRate: l.PublishRate,
			WakesTotal: l.WakesTotal, WakesElidedTotal: l.WakesElidedTotal, Blocked: l.Blocked, BlocksTotal: l.BlocksTotal,
			BlockedTimeTotal: machineDuration(l.BlockedTimeTotal), EvictionsTotal: l.EvictionsTotal,
			BackstopsTotal: l.BackstopsTotal, KnownEpoch: l.KnownEpoch, SlowestConsumerID: l.SlowestConsumerID, SlowestLagMessages: l.SlowestLagMessages,
			MemoryBytes: l.MemoryBytes, Unreadable: l.Unreadable,
		})
	}
	for _, c := range r.Consumers {
		v.Consumers = append(v.Consumers, viewRingConsumer(c))
	}
	return v
}

func viewRingConsumer(c client.RingConsumer) ringConsumerView {
	v := ringConsumerView{
		ConsumerID: c.ID, Slot: c.Slot, UID: c.UID, PID: c.PID, Daemon: c.Daemon, JoinTime: machineTime(c.JoinedAt),
		Lossless: c.Lossless, Parked: c.Parked, ReceivedTotal: c.ReceivedTotal, LostTotal: c.LostTotal, ReceiveRate: c.ReceiveRate,
		ParksTotal: c.ParksTotal, BackstopsTotal: c.BackstopsTotal, LagMessages: c.LagMessages, Cursors: make([]ringCursorView, 0, len(c.Cursors)),
		Anonymous: c.Anonymous, CorruptLanesTotal: c.CorruptLanesTotal, Unreadable: c.Unreadable,
	}
	for _, at := range c.Cursors {
		v.Cursors = append(v.Cursors, ringCursorView(at))
	}
	return v
}

// joinedText says for how long a member has been there.
func joinedText(at time.Time) string { return humanDuration(max(0, time.Since(at))) }
