package broker

import (
	"context"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/reason"
)

// Move moves messages to another queue. See transport.Broker.
func (b *Broker) Move(ctx context.Context, id identity.Identity, r MoveRequest) (messages int64, cursor string, err error) {
	return 0, "", reason.New(reason.Unimplemented, "not yet")
}

// Redrive moves dead letters back. See transport.Broker.
func (b *Broker) Redrive(ctx context.Context, id identity.Identity, r RedriveRequest) ([]Redriven, error) {
	return nil, reason.New(reason.Unimplemented, "not yet")
}

// Import stores messages with their past. See transport.Broker.
func (b *Broker) Import(ctx context.Context, id identity.Identity, r ImportRequest) (queue.Stored, error) {
	return queue.Stored{}, reason.New(reason.Unimplemented, "not yet")
}
