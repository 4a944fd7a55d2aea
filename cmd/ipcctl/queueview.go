package main

import (
	"fmt"
	"os/user"
	"strconv"

	"github.com/ipcd/ipcd/client"
)

// queueView is a queue as json and yaml show it: the names of the protobuf schema in snake case. Fields
// may be added; what is there stays.
type queueView struct {
	Name         string       `json:"name"`
	ID           uint64       `json:"id"`
	Paused       bool         `json:"paused"`
	CreateTime   string       `json:"create_time"`
	Settings     settingsView `json:"settings"`
	Stats        statsView    `json:"stats"`
	KernelQueues []kernelView `json:"kernel_queues"`

	Binds         []bindView `json:"binds"`
	Temporary     bool       `json:"temporary"`
	SchemaVersion uint32     `json:"schema_version"` // 0: it has no schema
}

type settingsView struct {
	MaxMessages       int64            `json:"max_messages"`
	MaxBytes          int64            `json:"max_bytes"`
	MaxMessageSize    int              `json:"max_message_size"`
	Lease             string           `json:"lease"`
	MaxAttempts       int              `json:"max_attempts"`
	DeadLetterQueue   string           `json:"dead_letter_queue"`
	DeadLetterExpired bool             `json:"dead_letter_expired"`
	Overflow          string           `json:"overflow"`
	Durability        string           `json:"durability"`
	Backoff           backoffView      `json:"backoff"`
	DedupWindow       string           `json:"dedup_window"`
	MaxDedupIDs       int64            `json:"max_dedup_ids"`
	TypeNames         map[string]int64 `json:"type_names"`
	Mqueue            mqueueView       `json:"mqueue"`
	Mode              string           `json:"mode"`
	OwnerUID          uint32           `json:"owner_uid"`
	GroupGID          uint32           `json:"group_gid"`
}

type backoffView struct {
	Initial string `json:"initial"`
	Max     string `json:"max"`
}

type mqueueView struct {
	Mode        string `json:"mode"`
	MaxMessages int    `json:"max_messages"`
	MessageSize int    `json:"message_size"`
	Type        int64  `json:"type"`
	TypePrefix  bool   `json:"type_prefix"`
	OutSelector string `json:"out_selector"`
}

type statsView struct {
	Ready                int64   `json:"ready"`
	Delayed              int64   `json:"delayed"`
	Leased               int64   `json:"leased"`
	Buried               int64   `json:"buried"`
	Uncommitted          int64   `json:"uncommitted"`
	Bytes                int64   `json:"bytes"`
	OldestAge            string  `json:"oldest_age,omitempty"` // absent: none is ready
	Receivers            int     `json:"receivers"`
	BlockedSenders       int     `json:"blocked_senders"`
	SendRate             float64 `json:"send_rate"`
	DeliveryRate         float64 `json:"delivery_rate"`
	AckRate              float64 `json:"ack_rate"`
	SentTotal            int64   `json:"sent_total"`
	DeliveredTotal       int64   `json:"delivered_total"`
	ConsumedTotal        int64   `json:"consumed_total"`
	NackedTotal          int64   `json:"nacked_total"`
	LeaseExpiredTotal    int64   `json:"lease_expired_total"`
	TTLDroppedTotal      int64   `json:"ttl_dropped_total"`
	OverflowDroppedTotal int64   `json:"overflow_dropped_total"`
	DeadLetteredTotal    int64   `json:"dead_lettered_total"`
	PurgedTotal          int64   `json:"purged_total"`
	DuplicatesTotal      int64   `json:"duplicates_total"`
	PeekedTotal          int64   `json:"peeked_total"`
	DedupIDs             int64   `json:"dedup_ids"`
	MovedTotal           int64   `json:"moved_total"`
	Taps                 int     `json:"taps"`
}

type kernelView struct {
	Direction       string `json:"direction"`
	Name            string `json:"name"`
	Open            bool   `json:"open"`
	Problem         string `json:"problem,omitempty"`
	MaxMessages     int    `json:"max_messages"`
	MessageSize     int    `json:"message_size"`
	CurrentMessages int    `json:"current_messages"`
	PassedTotal     int64  `json:"passed_total"`
	SkippedTotal    int64  `json:"skipped_total"`
	OwnerUID        uint32 `json:"owner_uid"`
	GroupGID        uint32 `json:"group_gid"`
	Mode            string `json:"mode"`
}

func viewQueue(q client.QueueInfo) queueView {
	s, st := q.Settings, q.Stats
	v := queueView{
		Name: q.Name, ID: q.ID, Paused: q.Paused, CreateTime: machineTime(q.CreatedAt),
		Settings: settingsView{
			MaxMessages: s.MaxMessages, MaxBytes: s.MaxBytes, MaxMessageSize: value(s.MaxMessageSize),
			Lease: machineDuration(s.Lease), MaxAttempts: s.MaxAttempts,
			DeadLetterQueue: s.DeadLetterQueue, DeadLetterExpired: s.DeadLetterExpired,
			Overflow: s.Overflow.String(), Durability: s.Durability.String(),
			Backoff:     backoffView{machineDuration(s.BackoffInitial), machineDuration(s.BackoffMax)},
			DedupWindow: machineDuration(value(s.DedupWindow)), MaxDedupIDs: value(s.MaxDedupIDs),
			TypeNames: s.TypeNames,
			Mqueue: mqueueView{
				Mode: s.Mqueue.Mode.String(), MaxMessages: s.Mqueue.MaxMessages, MessageSize: s.Mqueue.MessageSize,
				Type: s.Mqueue.Type, TypePrefix: s.Mqueue.TypePrefix, OutSelector: s.Mqueue.OutSelector.String(),
			},
			Mode: modeText(value(s.Mode)), OwnerUID: value(s.OwnerUID), GroupGID: value(s.GroupGID),
		},
		Stats: statsView{
			Ready: st.Ready, Delayed: st.Delayed, Leased: st.Leased, Buried: st.Buried, Uncommitted: st.Uncommitted,
			Bytes: st.Bytes, Receivers: st.Receivers, BlockedSenders: st.BlockedSenders,
			SendRate: st.SendRate, DeliveryRate: st.DeliveryRate, AckRate: st.AckRate,
			SentTotal: st.SentTotal, DeliveredTotal: st.DeliveredTotal, ConsumedTotal: st.ConsumedTotal,
			NackedTotal: st.NackedTotal, LeaseExpiredTotal: st.LeaseExpiredTotal, TTLDroppedTotal: st.TTLDroppedTotal,
			OverflowDroppedTotal: st.OverflowDroppedTotal, DeadLetteredTotal: st.DeadLetteredTotal,
			PurgedTotal: st.PurgedTotal, DuplicatesTotal: st.DuplicatesTotal, PeekedTotal: st.PeekedTotal,
			DedupIDs: st.DedupIDs, MovedTotal: st.MovedTotal, Taps: st.Taps,
		},
		KernelQueues: make([]kernelView, 0, len(q.KernelQueues)),
		Binds:        make([]bindView, 0, len(q.Settings.Binds)),
		Temporary:    q.Temporary, SchemaVersion: q.SchemaVersion,
	}
	for _, b := range bindsOf(q) {
		view := viewBind(b)
		view.Source = ""
		v.Binds = append(v.Binds, view)
	}
	if v.Settings.TypeNames == nil {
		v.Settings.TypeNames = map[string]int64{}
	}
	if st.OldestAge >= 0 {
		v.Stats.OldestAge = machineDuration(st.OldestAge)
	}
	for _, k := range q.KernelQueues {
		v.KernelQueues = append(v.KernelQueues, kernelView{
			Direction: k.Direction, Name: k.Name, Open: k.Open, Problem: k.Problem,
			MaxMessages: k.MaxMessages, MessageSize: k.MessageSize, CurrentMessages: k.CurrentMessages,
			PassedTotal: k.PassedTotal, SkippedTotal: k.SkippedTotal,
			OwnerUID: k.OwnerUID, GroupGID: k.GroupGID, Mode: modeText(k.Mode),
		})
	}
	return v
}

// value returns what p points to, or zero.
func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// modeText writes permission bits as chmod(1) takes them.
func modeText(mode uint32) string { return fmt.Sprintf("%04o", mode) }

// userName returns a uid's name on this host, or its number.
func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return escapeLine(u.Username)
	}
	return id
}

// groupName returns a gid's name on this host, or its number.
func groupName(gid uint32) string {
	id := strconv.FormatUint(uint64(gid), 10)
	if g, err := user.LookupGroupId(id); err == nil {
		return escapeLine(g.Name)
	}
	return id
}

// doorText says in a few words how a queue's kernel queues fare: "in", "in,out", "in closed: why", "-".
func doorText(q client.QueueInfo) string {
	text := ""
	for _, k := range q.KernelQueues {
		if text != "" {
			text += ", "
		}
		text += escapeLine(k.Direction)
		if !k.Open {
			text += " closed"
		}
		if k.Problem != "" {
			text += ": " + escapeLine(k.Problem)
		}
	}
	if text == "" {
		return "-"
	}
	return text
}

// queueStatus says in a word what keeps messages from passing, if anything.
func queueStatus(q client.QueueInfo) string {
	switch {
	case q.Paused:
		return "paused"
	case q.Stats.Messages() >= q.Settings.MaxMessages || q.Stats.Bytes >= q.Settings.MaxBytes:
		return "full"
	}
	return "ok"
}
