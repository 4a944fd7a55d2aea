package broker

import (
	"context"
	"fmt"
)

// Probe returns nil if the broker moves: all locks can be had, and what was decided reaches the disk. It waits for
// that until the context ends. Callers share one look: where something is stuck, no more than one goroutine is.
func (b *Broker) Probe(ctx context.Context) error {
	b.probeMu.Lock()
	p := b.probing
	if p == nil {
		p = &probe{done: make(chan struct{})}
		b.probing = p
		go func() {
			p.err = b.probe()
			b.probeMu.Lock()
			b.probing = nil
			b.probeMu.Unlock()
			close(p.done)
		}()
	}
	b.probeMu.Unlock()
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("the broker does not move: a lock or the disk is stuck: %w", ctx.Err())
	}
}

// probe is one look at the broker.
type probe struct {
	done chan struct{}
	err  error // valid once done is closed
}

func (b *Broker) probe() error {
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
