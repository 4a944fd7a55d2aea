package main

import (
	"context"
	"fmt"
	"sync"
)

// probe finds out whether the daemon moves. Those who ask at the same time share one look: where something is stuck,
// one goroutine is, and no more.
type probe struct {
	look func() error // returns at once, unless something is stuck

	mu    sync.Mutex // guards under
	under *looking   // the look that is under way, or nil
}

type looking struct {
	done chan struct{}
	err  error // valid once done is closed
}

// do returns nil if the daemon moves. It waits for that until the context ends.
func (p *probe) do(ctx context.Context) error {
	p.mu.Lock()
	l := p.under
	if l == nil {
		l = &looking{done: make(chan struct{})}
		p.under = l
		go func() {
			l.err = p.look()
			p.mu.Lock()
			p.under = nil
			p.mu.Unlock()
			close(l.done)
		}()
	}
	p.mu.Unlock()
	select {
	case <-l.done:
		return l.err
	case <-ctx.Done():
		return fmt.Errorf("the daemon does not move: a lock or the disk is stuck: %w", ctx.Err())
	}
}
