package broker

import "context"

// Probe returns once all locks were had and what was decided is on disk: at once, where the broker moves, and never
// where something is stuck.
func (b *Broker) Probe() error {
	if err := b.Failure(); err != nil {
		return err
	}
	b.admin.Lock()
	queues := b.all()
	b.admin.Unlock()
	last := Ticket(0)
	for _, s := range queues {
		s.mu.Lock()
		last = max(last, s.last)
		s.mu.Unlock()
	}
	return b.Await(context.Background(), last)
}
