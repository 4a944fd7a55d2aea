package broker

import (
	"context"

	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/reason"
)

// Tap is a stream of copies of what arrives in a queue.
type Tap struct{}

// Tap opens a Tap. See transport.Broker.
func (b *Broker) Tap(ctx context.Context, id identity.Identity, r TapRequest) (*Tap, error) {
	return nil, reason.New(reason.Unimplemented, "not yet")
}

// Next waits for copies.
func (t *Tap) Next(ctx context.Context) (Tapped, error) { return Tapped{}, nil }

// Close ends the tap.
func (t *Tap) Close() {}
