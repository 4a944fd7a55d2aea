package broker

import (
	"context"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/reason"
)

// RegisterSchema makes the next version of a queue's schema. See transport.Broker.
func (b *Broker) RegisterSchema(ctx context.Context, id identity.Identity, r SchemaRequest) (SchemaOutcome, error) {
	return SchemaOutcome{}, reason.New(reason.Unimplemented, "not yet")
}

// GetSchema tells a version of a queue's schema. See transport.Broker.
func (b *Broker) GetSchema(ctx context.Context, id identity.Identity, name string, version uint32) (s queue.Schema, versions []uint32, err error) {
	return queue.Schema{}, nil, reason.New(reason.Unimplemented, "not yet")
}

// RemoveSchema removes a queue's schema. See transport.Broker.
func (b *Broker) RemoveSchema(ctx context.Context, id identity.Identity, name string) error {
	return reason.New(reason.Unimplemented, "not yet")
}
