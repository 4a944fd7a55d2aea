package rpc

import (
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ipcd/ipcd/broker/queue"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

func encodeTime(nanos int64) *timestamppb.Timestamp {
	t := new(timestamppb.Timestamp)
	setTime(t, nanos)
	return t
}

// optionalTime returns nil for 0.
func optionalTime(nanos int64) *timestamppb.Timestamp {
	if nanos == 0 {
		return nil
	}
	return encodeTime(nanos)
}

func setTime(t *timestamppb.Timestamp, nanos int64) {
	t.Seconds, t.Nanos = nanos/int64(time.Second), int32(nanos%int64(time.Second))
}

func setMessage(to *ipcdv1.Message, m *queue.Message) {
	to.Type = m.Type
	to.Priority = uint32(m.Priority)
	to.Body = m.Body
	to.Headers = encodeHeaders(m.Headers)
	to.DedupId = m.DedupID
	to.CorrelationId = m.CorrelationID
	to.ReplyTo = m.ReplyTo
	to.ContentType = m.ContentType
	to.Ttl = nil
	if m.TTL > 0 {
		to.Ttl = durationpb.New(m.TTL)
	}
}

func encodeHeaders(headers []queue.Header) map[string][]byte {
	if len(headers) == 0 {
		return nil
	}
	out := make(map[string][]byte, len(headers))
	for _, h := range headers {
		out[h.Key] = h.Value
	}
	return out
}

func encodeStored(stored queue.Stored) *ipcdv1.Stored {
	return &ipcdv1.Stored{
		FirstSequence: stored.First,
		Count:         uint32(stored.Count),
		SendTime:      encodeTime(stored.SentAt),
		Duplicates:    encodeDuplicates(stored.Duplicates),
	}
}

func encodeDuplicates(duplicates []queue.Duplicate) []*ipcdv1.Duplicate {
	var out []*ipcdv1.Duplicate
	for _, d := range duplicates {
		out = append(out, &ipcdv1.Duplicate{Index: uint32(d.Index), Sequence: d.Sequence})
	}
	return out
}

// deliverySlab is the protobuf messages of a frame of deliveries, in one piece of memory. One
// allocation for each of them would cost more than all else on the way of a small message.
type deliverySlab struct {
	slots []deliverySlot
	list  []*ipcdv1.Delivery
}

type deliverySlot struct {
	delivery ipcdv1.Delivery
	message  ipcdv1.Message
	sent     timestamppb.Timestamp
	ends     timestamppb.Timestamp
}

var slabs = sync.Pool{New: func() any { return new(deliverySlab) }}

// encode fills the slab with deliveries. The result is valid until the slab's next use.
func (s *deliverySlab) encode(deliveries []queue.Delivery, queueName string, receipts bool) []*ipcdv1.Delivery {
	if cap(s.slots) < len(deliveries) {
		s.slots = make([]deliverySlot, len(deliveries))
		s.list = make([]*ipcdv1.Delivery, len(deliveries))
	}
	s.slots, s.list = s.slots[:len(deliveries)], s.list[:len(deliveries)]
	for i := range deliveries {
		from, slot := &deliveries[i], &s.slots[i]
		to := &slot.delivery
		setMessage(&slot.message, &from.Message)
		setTime(&slot.sent, from.SentAt)
		to.Message, to.SendTime = &slot.message, &slot.sent
		to.Queue = queueName
		if from.Queue != "" {
			to.Queue = from.Queue
		}
		to.Sequence = from.Sequence
		to.Attempts = uint32(from.Attempts)
		to.TruncatedFrom = uint64(from.TruncatedFrom)
		to.LeaseExpireTime, to.Receipt = nil, ""
		if from.LeaseEnds != 0 {
			setTime(&slot.ends, from.LeaseEnds)
			to.LeaseExpireTime = &slot.ends
		}
		if receipts && from.Receipt != (queue.Receipt{}) {
			to.Receipt = from.Receipt.String()
		}
		s.list[i] = to
	}
	return s.list
}

// recycle makes the slab available again. It lets go of the bodies and, if it grew beyond what a
// frame of a stream needs, of itself.
func (s *deliverySlab) recycle() {
	if cap(s.slots) > frameMessages {
		return
	}
	for i := range s.slots {
		m := &s.slots[i].message
		m.Body, m.Headers = nil, nil
		m.DedupId, m.CorrelationId, m.ReplyTo, m.ContentType = "", "", "", ""
		s.slots[i].delivery.Receipt, s.slots[i].delivery.Queue = "", ""
	}
	slabs.Put(s)
}

func encodePeeked(messages []queue.Peeked) []*ipcdv1.PeekedMessage {
	slots := make([]struct {
		peeked  ipcdv1.PeekedMessage
		message ipcdv1.Message
		sent    timestamppb.Timestamp
	}, len(messages))
	out := make([]*ipcdv1.PeekedMessage, len(messages))
	for i := range messages {
		from, slot := &messages[i], &slots[i]
		to := &slot.peeked
		setMessage(&slot.message, &from.Message)
		setTime(&slot.sent, from.SentAt)
		to.Message, to.SendTime = &slot.message, &slot.sent
		to.Sequence = from.Sequence
		to.State = encodeState(from.State)
		to.Attempts = uint32(from.Attempts)
		to.DueTime = optionalTime(from.Due)
		to.LeaseExpireTime = optionalTime(from.LeaseEnds)
		to.ExpireTime = optionalTime(from.Expires)
		to.BuryReason = from.BuryReason
		to.TruncatedFrom = uint64(from.TruncatedFrom)
		out[i] = to
	}
	return out
}

func encodeState(s queue.State) ipcdv1.MessageState {
	for wire, state := range states {
		if state == s && wire != 0 {
			return ipcdv1.MessageState(wire)
		}
	}
	return ipcdv1.MessageState_MESSAGE_STATE_UNSPECIFIED
}
