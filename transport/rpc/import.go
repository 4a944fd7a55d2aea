package rpc

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// importHeaders is how many headers an imported message may have: those of a dead letter come on top of its own.
const importHeaders = limits.Headers + limits.DeadHeaders

// ImportMessages stores messages as peek showed them.
func (s messages) ImportMessages(ctx context.Context, r *ipcdv1.ImportMessagesRequest) (*ipcdv1.ImportMessagesResponse, error) {
	batch, err := decodeImport(r.Messages)
	if err != nil {
		return nil, onQueue(err, r.Queue)
	}
	stored, err := s.broker.Import(ctx, callerFrom(ctx), broker.ImportRequest{
		Queue: r.Queue, Messages: batch, Producer: r.ProducerId, Batch: r.BatchId, Instance: r.Instance,
	})
	if err != nil {
		return nil, err
	}
	return &ipcdv1.ImportMessagesResponse{Stored: encodeStored(stored)}, nil
}

// decodeImport keeps to the limits of decodeBatch. Bodies stay those of the request.
func decodeImport(messages []*ipcdv1.PeekedMessage) ([]queue.Peeked, error) {
	if len(messages) == 0 {
		return nil, reason.Invalid("messages", "no messages: there must be 1 to %d", limits.BatchMessages)
	}
	if len(messages) > limits.BatchMessages {
		return nil, reason.Invalid("messages", "%d messages: there may be %d at once; split them", len(messages), limits.BatchMessages)
	}
	batch, bytes := make([]queue.Peeked, len(messages)), 0
	for i, m := range messages {
		if err := decodePeeked(m, &batch[i]); err != nil {
			return nil, err.At(i)
		}
		bytes += batch[i].Bytes()
	}
	if bytes > limits.BatchBytes {
		return nil, reason.Invalid("messages", "%d bytes in bodies, headers and ids: there may be %d at once; split them", bytes, limits.BatchBytes)
	}
	return batch, nil
}

// decodePeeked is the reverse of encodePeeked, but for the sequence and the lease, which an import ignores.
func decodePeeked(m *ipcdv1.PeekedMessage, to *queue.Peeked) *reason.Error {
	if m.Message == nil {
		return reason.Invalid("message", "an entry without a message")
	}
	if m.TruncatedFrom != 0 {
		return reason.Invalid("truncated_from", "the body was cut from %d bytes to %d: export it whole", m.TruncatedFrom, len(m.Message.Body))
	}
	if m.Message.Schedule != nil {
		return reason.Invalid("schedule", "delay and not_before have no place in an imported message: what is to become ready later has a due_time")
	}
	if err := decodeMessageWith(m.Message, &to.Message, importHeaders); err != nil {
		return err
	}
	switch {
	case m.State == ipcdv1.MessageState_MESSAGE_STATE_UNSPECIFIED:
		to.State = queue.Ready
	case m.State < 0 || int(m.State) >= len(states):
		return reason.Invalid("state", "state %d is not known: it may be READY (1), DELAYED (2), LEASED (3) or BURIED (4)", m.State)
	default:
		to.State = states[m.State]
	}
	for _, at := range [...]struct {
		field string
		from  *timestamppb.Timestamp
		to    *int64
	}{
		{"send_time", m.SendTime, &to.SentAt}, {"due_time", m.DueTime, &to.Due}, {"expire_time", m.ExpireTime, &to.Expires},
	} {
		var err error
		if *at.to, err = decodeTime(at.field, at.from); err != nil {
			return err.(*reason.Error)
		}
	}
	to.Attempts = int(min(m.Attempts, limits.MaxAttemptsMax))
	to.BuryReason = m.BuryReason // the queue cuts it
	return nil
}
