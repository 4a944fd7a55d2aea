package client

import (
	"context"

	"google.golang.org/grpc"

	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// ImportBatch is Import under a producer id and a batch id of the caller's own, for imports that are continued by another
// process: a batch that is repeated under the same ids, with the same messages and within two minutes, is stored once. Batch
// ids of one producer rise.
func (q *Queue) ImportBatch(ctx context.Context, producer string, batch uint64, m []*Peeked) ([]Sent, error) {
	messages, e := importProto(m)
	if e != nil {
		return nil, e.on(q.name)
	}
	request := &ipcdv1.ImportMessagesRequest{Queue: q.name, Messages: messages, ProducerId: producer, BatchId: batch}
	return q.store(ctx, len(m), func(string, uint64) storeCall {
		return func(instance string, opts ...grpc.CallOption) (*ipcdv1.Stored, error) {
			request.Instance = instance
			r, err := q.c.messages.ImportMessages(ctx, request, opts...)
			return r.GetStored(), err
		}
	})
}
