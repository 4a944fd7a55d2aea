package broker

import (
	"context"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
)

// Import stores messages with their past. It never waits for room. See transport.Broker.
func (b *Broker) Import(ctx context.Context, id identity.Identity, r ImportRequest) (queue.Stored, error) {
	bytes := int64(0)
	for i := range r.Messages {
		bytes += int64(r.Messages[i].Bytes() + len(r.Messages[i].BuryReason))
	}
	s, err := b.findInTurn(ctx, id, r.Queue, access.Send, workOf(len(r.Messages), bytes))
	if err != nil {
		return queue.Stored{}, err
	}
	batch, err := queue.Imported(b.now().Wall, r.Messages)
	if err != nil {
		return queue.Stored{}, on(s, err)
	}
	batch.Producer, batch.Number = r.Producer, r.Batch
	for i := range batch.Messages {
		bytes += recordBytes(&batch.Messages[i]) - int64(batch.Messages[i].Bytes()) + 2*int64(len(batch.Past[i].Why))
	}
	if err := b.admit(ctx, s, len(batch.Messages), bytes); err != nil {
		return queue.Stored{}, on(s, err)
	}
	s.mu.Lock()
	stored, err := s.importLocked(id, &r, batch)
	ticket := s.last
	s.mu.Unlock()
	if err != nil {
		return queue.Stored{}, on(s, err)
	}
	b.fair.granted(id.Principal(), s.id, 0)
	return stored, b.Await(ctx, ticket)
}

func (s *served) importLocked(id identity.Identity, r *ImportRequest, batch queue.Batch) (queue.Stored, error) {
	if err := s.mayLocked(id, access.Send); err != nil {
		return queue.Stored{}, err
	}
	if stored, ok, err := s.q.Repeat(batch.Producer, batch.Number); ok || err != nil {
		return stored, err
	}
	if err := s.knowsProducer(r.Instance); err != nil {
		return queue.Stored{}, err
	}
	if err := s.inLine(); err != nil {
		return queue.Stored{}, err
	}
	now := s.b.now()
	stored, err := s.storeLocked(now, batch)
	if err == nil {
		s.publishLocked()
		s.afterLocked(now)
	}
	return stored, err
}
