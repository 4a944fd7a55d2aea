package broker

import (
	"context"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/reason"
)

// Bind lets a queue hand on copies. See transport.Broker.
func (b *Broker) Bind(ctx context.Context, id identity.Identity, source string, bind queue.Bind) (Info, error) {
	return Info{}, reason.New(reason.Unimplemented, "not yet")
}

// Unbind ends a bind. See transport.Broker.
func (b *Broker) Unbind(ctx context.Context, id identity.Identity, source, destination string) (Info, error) {
	return Info{}, reason.New(reason.Unimplemented, "not yet")
}
