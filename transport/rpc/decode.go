package rpc

import (
	"math"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// decodeDuration returns d, or unset where it is nil. A duration that is malformed or not between low
// and high is refused: beyond 292 years it would not even fit.
func decodeDuration(field string, d *durationpb.Duration, unset, low, high time.Duration) (time.Duration, error) {
	if d == nil {
		return unset, nil
	}
	if err := d.CheckValid(); err != nil {
		return 0, reason.Invalid(field, "%s: seconds %d and nanos %d are no valid duration; it must be %v to %v", field, d.Seconds, d.Nanos, low, high)
	}
	if v := d.AsDuration(); v >= low && v <= high {
		return v, nil
	}
	return 0, reason.Invalid(field, "%s %ds: it must be %v to %v", field, d.Seconds, low, high)
}

// decodeTime returns t in ns since 1970, 0 where it is nil. int64 reaches to the year 2262.
func decodeTime(field string, t *timestamppb.Timestamp) (int64, error) {
	if t == nil {
		return 0, nil
	}
	if t.Seconds < 0 || t.Seconds >= math.MaxInt64/int64(time.Second) || t.CheckValid() != nil {
		return 0, reason.Invalid(field, "%s: seconds %d and nanos %d; it must be a time between 1970 and 2262", field, t.Seconds, t.Nanos)
	}
	return t.Seconds*int64(time.Second) + int64(t.Nanos), nil
}

// decodeWait returns how long a blocked send may wait; negative if nothing was said.
func decodeWait(d *durationpb.Duration) (time.Duration, error) {
	return decodeDuration("wait", d, -1, 0, limits.WaitMax)
}

// decodeLease returns a lease, 0 if nothing was said.
func decodeLease(d *durationpb.Duration) (time.Duration, error) {
	return decodeDuration("lease", d, 0, limits.LeaseMin, limits.LeaseMax)
}

// decodeBatch returns the messages of a batch, in the memory of reuse where that suffices. Bodies
// stay those of the request.
func decodeBatch(messages []*ipcdv1.Message, reuse []queue.Message) ([]queue.Message, error) {
	if len(messages) == 0 {
		return nil, reason.Invalid("messages", "a batch without messages: it must have 1 to %d", limits.BatchMessages)
	}
	if len(messages) > limits.BatchMessages {
		return nil, reason.Invalid("messages", "a batch of %d messages: it may have %d; split it", len(messages), limits.BatchMessages)
	}
	if cap(reuse) < len(messages) {
		reuse = make([]queue.Message, len(messages))
	}
	batch, bytes := reuse[:len(messages)], 0
	for i, m := range messages {
		if e := decodeMessage(m, &batch[i]); e != nil {
			return nil, e.At(i)
		}
		bytes += batch[i].Bytes()
	}
	if bytes > limits.BatchBytes {
		return nil, reason.Invalid("messages", "a batch of %d bytes in bodies, headers and ids: it may have %d; split it", bytes, limits.BatchBytes)
	}
	return batch, nil
}

// decodeMessage refuses only what would not survive the way into a queue.Message; what a queue takes
// is the queue's business.
func decodeMessage(m *ipcdv1.Message, to *queue.Message) *reason.Error {
	return decodeMessageWith(m, to, limits.Headers)
}

// decodeMessageWith is decodeMessage for messages with up to so many headers.
func decodeMessageWith(m *ipcdv1.Message, to *queue.Message, headers int) *reason.Error {
	if m.Priority > limits.PriorityMax {
		return reason.Invalid("priority", "priority %d: it must be 0 to %d", m.Priority, limits.PriorityMax)
	}
	if len(m.Headers) > headers {
		return reason.Invalid("headers", "%d headers: a message may have %d", len(m.Headers), headers)
	}
	*to = queue.Message{
		Type:          m.Type,
		Priority:      uint16(m.Priority),
		Body:          m.Body,
		Headers:       decodeHeaders(m.Headers, to.Headers),
		DedupID:       m.DedupId,
		CorrelationID: m.CorrelationId,
		ReplyTo:       m.ReplyTo,
		ContentType:   m.ContentType,
	}
	if to.Type == 0 {
		to.Type = 1
	}
	var err error
	switch at := m.Schedule.(type) {
	case *ipcdv1.Message_Delay:
		to.Delay, err = decodeDuration("delay", at.Delay, 0, 0, limits.DelayMax)
	case *ipcdv1.Message_NotBefore:
		to.NotBefore, err = decodeTime("not_before", at.NotBefore)
	}
	if err == nil {
		to.TTL, err = decodeDuration("ttl", m.Ttl, 0, 0, limits.DelayMax)
	}
	if err != nil {
		return err.(*reason.Error)
	}
	return nil
}

func decodeHeaders(headers map[string][]byte, reuse []queue.Header) []queue.Header {
	if len(headers) == 0 {
		return reuse[:0]
	}
	list := reuse[:0]
	if cap(list) < len(headers) {
		list = make([]queue.Header, 0, len(headers))
	}
	for key, value := range headers {
		list = append(list, queue.Header{Key: key, Value: value})
	}
	return list
}

func decodeSelector(s *ipcdv1.Selector) (queue.Selector, error) {
	var out queue.Selector
	switch kind := s.GetKind().(type) {
	case nil:
	case *ipcdv1.Selector_Type:
		out = queue.Selector{Kind: queue.TypeIs, Type: kind.Type}
	case *ipcdv1.Selector_LowestUpto:
		out = queue.Selector{Kind: queue.LowestUpTo, Type: kind.LowestUpto}
	case *ipcdv1.Selector_NotType:
		out = queue.Selector{Kind: queue.TypeIsNot, Type: kind.NotType}
	case *ipcdv1.Selector_Types:
		out = queue.Selector{Kind: queue.TypeIn, Types: kind.Types.GetTypes()}
	}
	return out.Check()
}

// decodeConsume reports whether messages are consumed at once.
func decodeConsume(mode ipcdv1.SettleMode) (bool, error) {
	switch mode {
	case ipcdv1.SettleMode_SETTLE_MODE_UNSPECIFIED, ipcdv1.SettleMode_SETTLE_MODE_LEASE:
		return false, nil
	case ipcdv1.SettleMode_SETTLE_MODE_CONSUME:
		return true, nil
	}
	return false, reason.Invalid("settle_mode", "settle_mode %d is not known: it may be LEASE (1) or CONSUME (2)", mode)
}

// decodeOrder reports whether messages are shown by sequence.
func decodeOrder(order ipcdv1.PeekOrder) (bool, error) {
	switch order {
	case ipcdv1.PeekOrder_PEEK_ORDER_UNSPECIFIED, ipcdv1.PeekOrder_PEEK_ORDER_STATE:
		return false, nil
	case ipcdv1.PeekOrder_PEEK_ORDER_SEQUENCE:
		return true, nil
	}
	return false, reason.Invalid("order", "order %d is not known: it may be STATE (1) or SEQUENCE (2)", order)
}

var states = [...]queue.State{
	ipcdv1.MessageState_MESSAGE_STATE_READY:   queue.Ready,
	ipcdv1.MessageState_MESSAGE_STATE_DELAYED: queue.Delayed,
	ipcdv1.MessageState_MESSAGE_STATE_LEASED:  queue.Leased,
	ipcdv1.MessageState_MESSAGE_STATE_BURIED:  queue.Buried,
}

// decodeFilter turns ages into times, counted from now.
func decodeFilter(f *ipcdv1.Filter, now time.Time) (queue.Filter, error) {
	var out queue.Filter
	if f == nil {
		return out, nil
	}
	var err error
	if out.Selector, err = decodeSelector(f.Selector); err != nil {
		return out, err
	}
	if len(f.States) > len(states) {
		return out, reason.Invalid("filter.states", "%d states: name each at most once", len(f.States))
	}
	for _, state := range f.States {
		if state <= 0 || int(state) >= len(states) {
			return out, reason.Invalid("filter.states", "state %d is not known: it may be READY (1), DELAYED (2), LEASED (3) or BURIED (4)", state)
		}
		out.States = append(out.States, states[state])
	}
	out.MinSequence, out.MaxSequence = f.MinSequence, f.MaxSequence
	if f.MaxSequence != 0 && f.MinSequence > f.MaxSequence {
		return out, reason.Invalid("filter.min_sequence", "min_sequence %d lies above max_sequence %d", f.MinSequence, f.MaxSequence)
	}
	age, err := decodeDuration("filter.older_than", f.OlderThan, -1, 0, math.MaxInt64)
	if err != nil {
		return out, err
	}
	if age >= 0 {
		// At least 1: 0 would mean no bound, and nothing was sent before 1970.
		out.SentBefore = max(now.UnixNano()-int64(age), 1)
	}
	if len(f.Headers) > limits.Headers {
		return out, reason.Invalid("filter.headers", "%d headers: a filter may name %d", len(f.Headers), limits.Headers)
	}
	if len(f.Headers) > 0 {
		out.Headers = decodeHeaders(f.Headers, nil)
	}
	return out, nil
}

// decodeCount returns n where it fits what the broker counts with.
func decodeCount(field string, n uint64) (int, error) {
	if n > math.MaxInt64 {
		return 0, reason.Invalid(field, "%s %d: it must be 0 (all) to %d", field, n, int64(math.MaxInt64))
	}
	return int(n), nil
}

// decodeBody returns a receiver's buffer. No body is larger than limits.MessageSizeMax.
func decodeBody(bytes uint64) int { return int(min(bytes, limits.MessageSizeMax)) }

// decodeVerdict returns what becomes of the deliveries that a settlement names.
func decodeVerdict(s *ipcdv1.Settlement) (v broker.Verdict, err error) {
	switch outcome := s.Outcome.(type) {
	case *ipcdv1.Settlement_Ack:
		v.Outcome = broker.Ack
	case *ipcdv1.Settlement_Nack:
		v.Outcome, v.Reason = broker.Nack, outcome.Nack.GetReason()
		v.Delay, err = decodeDuration("delay", outcome.Nack.GetDelay(), -1, 0, limits.DelayMax)
	case *ipcdv1.Settlement_Touch:
		v.Outcome = broker.Touch
		v.Lease, err = decodeLease(outcome.Touch.GetLease())
	case *ipcdv1.Settlement_Release:
		v.Outcome = broker.Release
	case *ipcdv1.Settlement_Bury:
		v.Outcome, v.Reason = broker.Bury, outcome.Bury.GetReason()
	default:
		return v, reason.Invalid("outcome", "a settlement without an outcome: say ack, nack, touch, release or bury")
	}
	if err == nil && len(v.Reason) > limits.ReasonLength {
		err = reason.Invalid("reason", "a reason of %d bytes: it may have %d", len(v.Reason), limits.ReasonLength)
	}
	return v, err
}
