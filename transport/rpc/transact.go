package rpc

import (
	"context"
	"fmt"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

func (s messages) Transact(ctx context.Context, r *ipcdv1.TransactRequest) (*ipcdv1.TransactResponse, error) {
	request, err := decodeTransact(r)
	if err != nil {
		return nil, err
	}
	stored, err := s.broker.Transact(ctx, callerFrom(ctx), request)
	if err != nil {
		return nil, err
	}
	response := &ipcdv1.TransactResponse{Stored: make([]*ipcdv1.Stored, len(stored))}
	for i := range stored {
		response.Stored[i] = encodeStored(stored[i])
	}
	return response, nil
}

// decodeTransact gives errors the index of the send or, counted after all sends, of the receipt.
func decodeTransact(r *ipcdv1.TransactRequest) (out broker.TransactRequest, err error) {
	out = broker.TransactRequest{Producer: r.ProducerId, Batch: r.BatchId, Instance: r.Instance}
	if len(r.Sends) == 0 && len(r.Receipts) == 0 {
		return out, reason.Invalid("sends", "a transaction of nothing: it must have sends, receipts or both")
	}
	if len(r.Sends) > limits.BatchMessages {
		return out, reason.Invalid("sends", "%d sends: a transaction may have %d", len(r.Sends), limits.BatchMessages)
	}
	if len(r.Receipts) > limits.SettlementsPerFrame {
		return out, reason.Invalid("receipts", "%d receipts: a transaction may have %d", len(r.Receipts), limits.SettlementsPerFrame)
	}
	total, bytes := 0, 0
	for _, send := range r.Sends {
		total += len(send.GetMessages())
	}
	if total > limits.BatchMessages {
		return out, reason.Invalid("sends", "%d messages in all sends: a transaction may have %d", total, limits.BatchMessages)
	}
	out.Sends = make([]broker.TransactSend, len(r.Sends))
	for i, send := range r.Sends {
		messages, err := decodeBatch(send.GetMessages(), nil)
		if err != nil {
			return out, inSend(err, i, send.GetQueue())
		}
		for j := range messages {
			bytes += messages[j].Bytes()
		}
		out.Sends[i] = broker.TransactSend{Queue: send.GetQueue(), Messages: messages}
	}
	if bytes > limits.BatchBytes {
		return out, reason.Invalid("sends", "%d bytes in bodies, headers and ids of all sends: a transaction may have %d", bytes, limits.BatchBytes)
	}
	out.Acks = make([]queue.Receipt, len(r.Receipts))
	for i, text := range r.Receipts {
		if out.Acks[i], err = queue.ParseReceipt(text); err != nil {
			if e, ok := err.(*reason.Error); ok {
				e.Field = "receipts"
				return out, e.At(len(r.Sends) + i)
			}
			return out, err
		}
	}
	return out, nil
}

// inSend turns an error about a batch, or a message of it, into one about a send of a transaction.
func inSend(err error, send int, name string) error {
	e, ok := err.(*reason.Error)
	if !ok {
		return err
	}
	if e.Index != reason.Whole {
		e.Message = fmt.Sprintf("message %d: %s", e.Index, e.Message)
	}
	return e.At(send).On(name)
}
