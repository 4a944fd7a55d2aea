package broker

import (
	"context"

	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/reason"
)

// OpenTemporary makes a queue that ends when close is called. See transport.Broker.
func (b *Broker) OpenTemporary(ctx context.Context, id identity.Identity, edit Edit) (info Info, close func(), err error) {
	return Info{}, nil, reason.New(reason.Unimplemented, "not yet")
}
